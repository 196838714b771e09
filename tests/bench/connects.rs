//! What is added to connect(), and to other system calls: for the processes that are traced, and for everybody else.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use proxytrace_tests::bpf::Objects;
use proxytrace_tests::child::Guarded;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::wait;

use crate::Bench;
use crate::calls::Caller;
use crate::comparison::{Comparison, NANOSECONDS};
use crate::subjects::bpftrace;

/// The hook that other processes pay for, where it cannot be attached to the one function behind connect().
const HOOK: &str = "connect";

/// What it is attached by in turn, after the best way of this host: to every system call, and not at all.
const OTHER_WAYS: [&str; 2] = ["tp_btf", "none"];

/// What is called, and in how many runs in a round: for a part of a second.
const CALLS: &[Timed] = &[
    Timed { what: "connect() refused", call: "connect", runs: "400" },
    Timed { what: "connect() established and closed", call: "established", runs: "200" },
    Timed { what: "getppid()", call: "getppid", runs: "200" },
];

struct Timed {
    what: &'static str,
    call: &'static str,
    runs: &'static str,
}

/// Who calls: by what its process is called.
const WHO: [&str; 2] = ["traced process", "other process"];

/// What watches.
enum Side {
    Nothing,
    /// An agent whose hook on connect() is attached in that way.
    Agent(String),
    /// A script that counts.
    Script,
}

impl Side {
    fn name(&self) -> String {
        match self {
            Self::Nothing => "without".to_owned(),
            Self::Agent(way) => format!("agent, hook {HOOK} by {way}"),
            Self::Script => "bpftrace, counting".to_owned(),
        }
    }
}

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let netns = Netns::new();
    let best = Agent::start(&["--process", "nobody"]).metrics();
    let mut ways = best.values_of("via", "proxytrace_hook_attached", &[("hook", HOOK)]);
    ways.truncate(1);
    for other in OTHER_WAYS {
        if !ways.iter().any(|way| way == other) {
            ways.push(other.to_owned());
        }
    }
    let sides: Vec<_> =
        [Side::Nothing].into_iter().chain(ways.into_iter().map(Side::Agent)).chain([Side::Script]).collect();
    for Timed { what, call, runs } in CALLS {
        for who in WHO {
            let what = format!("{what}, {who}");
            let mut comparison = Comparison::new(what, NANOSECONDS, sides.iter().map(Side::name));
            for _ in 0..bench.rounds {
                let figures = sides.iter().map(|side| {
                    let mut caller = Caller::start(&netns, "cal", &["--call", call, "--runs", runs])?;
                    let traced = if who == WHO[0] { caller.name().to_owned() } else { "nobody".to_owned() };
                    side.during(&traced, || caller.go())
                });
                comparison.add(figures.collect::<Result<Vec<_>>>()?);
            }
            bench.add(comparison);
        }
    }
    Ok(())
}

impl Side {
    /// Does `work` while the processes of that name are watched.
    fn during<T>(&self, traced: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::Nothing => work(),
            Self::Agent(way) => {
                let agent = Agent::start(&["--process", traced, "--hook-via", &format!("{HOOK}={way}")]);
                let done = work()?;
                agent.stop();
                Ok(done)
            }
            Self::Script => {
                let mut bpftrace = bpftrace("count.bt", traced);
                bpftrace.stdin(Stdio::null()).stdout(Stdio::null());
                let watching = Guarded::spawn(bpftrace.stderr(Stdio::null()));
                let is_there = || Objects::of(watching.pid()).is_complete();
                wait::until_true("bpftrace to watch", Duration::from_secs(20), is_there);
                std::thread::sleep(Duration::from_secs(1));
                work().context("while bpftrace watches")
            }
        }
    }
}
