//! What a trace adds to connect(), and to other system calls: for the processes that are traced, and for everybody else.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::{child, scratch};
use tempfile::TempDir;

use crate::comparison::{Comparison, NANOSECONDS};

const ROUNDS: usize = 9;

/// The hook that other processes pay for, where it cannot be attached to the one function behind connect().
const HOOK: &str = "connect";

/// What it is attached by in turn, after the best way of this host: to every system call, and not at all.
const OTHER_WAYS: [&str; 2] = ["tp_btf", "none"];

/// Who calls what, and in how many runs in a round: for a part of a second.
const CALLERS: &[Caller] = &[
    Caller { what: "connect() refused, traced process", is_traced: true, call: "connect", runs: 400 },
    Caller { what: "connect() refused, other process", is_traced: false, call: "connect", runs: 400 },
    Caller { what: "getppid(), traced process", is_traced: true, call: "getppid", runs: 200 },
    Caller { what: "getppid(), other process", is_traced: false, call: "getppid", runs: 200 },
];

struct Caller {
    what: &'static str,
    is_traced: bool,
    call: &'static str,
    runs: u32,
}

pub(crate) fn measure() -> Result<Vec<Comparison>> {
    let place = Place::new()?;
    let best = Agent::start(&["--process", &place.traced]).metrics();
    let mut ways = best.values_of("via", "proxytrace_hook_attached", &[("hook", HOOK)]);
    ways.truncate(1);
    for other in OTHER_WAYS {
        if !ways.iter().any(|way| way == other) {
            ways.push(other.to_owned());
        }
    }
    let compare = |way: &String| {
        CALLERS.iter().map(|caller| caller.comparison(&format!("hook {HOOK} by {way}"))).collect::<Vec<_>>()
    };
    let mut comparisons: Vec<_> = ways.iter().map(compare).collect();
    for _ in 0..ROUNDS {
        for (way, comparisons) in ways.iter().zip(&mut comparisons) {
            let without = place.nanoseconds()?;
            let forced = format!("{HOOK}={way}");
            let agent = Agent::start(&["--process", &place.traced, "--hook-via", &forced]);
            let with = place.nanoseconds()?;
            agent.stop();
            for (comparison, figures) in comparisons.iter_mut().zip(without.into_iter().zip(with)) {
                comparison.add(figures.into());
            }
        }
    }
    Ok(comparisons.into_iter().flatten().collect())
}

impl Caller {
    fn comparison(&self, way: &str) -> Comparison {
        Comparison::new(format!("{}, {way}", self.what), NANOSECONDS, ["without an agent", "with one"])
    }
}

/// Where the callers run, and what they are called.
struct Place {
    netns: Netns,
    directory: TempDir,
    traced: String,
    other: String,
}

impl Place {
    fn new() -> Result<Self> {
        let own = env::current_exe().context("find out where this program is")?;
        let directory = scratch::directory();
        let [traced, other] = ["trc", "oth"].map(|kind| {
            let name = scratch::unique_name(kind);
            scratch::alias(&own, directory.path(), &name);
            name
        });
        Ok(Self { netns: Netns::new(), directory, traced, other })
    }

    /// One round: how long a call of each of the callers takes.
    fn nanoseconds(&self) -> Result<Vec<f64>> {
        CALLERS.iter().map(|caller| self.call(caller)).collect()
    }

    fn call(&self, Caller { is_traced, call, runs, .. }: &Caller) -> Result<f64> {
        let name = if *is_traced { &self.traced } else { &self.other };
        let mut command = Command::new(self.directory.path().join(name));
        command.args(["--part", "caller", "--call", call, "--runs", &runs.to_string()]);
        let printed = self.netns.enter(|| child::run(&mut command));
        printed.trim().parse().with_context(|| format!("a caller printed {printed:?}"))
    }
}
