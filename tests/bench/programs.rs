//! The programs in the kernel by themselves: how often each runs for an attempt, and how long, as the kernel's own statistics say; and
//! the tables that they use.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use aya::maps::loaded_maps;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use proxytrace_tests::empty::Empty;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::Agent;
use serde::Serialize;

use crate::Bench;
use crate::calls::Caller;
use crate::comparison::{Comparison, NANOSECONDS};

/// What is counted of a program.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) runs: u64,
    pub(crate) nanoseconds: f64,
    /// Instructions that the verifier looked at.
    pub(crate) verified: u64,
}

/// The programs of a process, by name; where some have the same, their sum.
pub(crate) fn of(pid: u32) -> Result<BTreeMap<String, Counted>> {
    let ids = fields(pid, "prog_id:", "memlock:")?;
    let mut found: BTreeMap<String, Counted> = BTreeMap::new();
    for program in loaded_programs() {
        // Others come and go.
        let Ok(program) = program else { continue };
        if !ids.contains_key(&program.id()) {
            continue;
        }
        let counted = found.entry(program.name_as_str().unwrap_or("?").to_owned()).or_default();
        counted.runs += program.run_count();
        counted.nanoseconds += program.run_time().as_nanos() as f64;
        counted.verified += program.verified_instruction_count().map_or(0, u64::from);
    }
    Ok(found)
}

/// What the kernel holds in memory for each table of a process, by name; where some have the same, their sum.
pub(crate) fn tables(pid: u32) -> Result<BTreeMap<String, f64>> {
    let held = fields(pid, "map_id:", "memlock:")?;
    let mut bytes: BTreeMap<String, f64> = BTreeMap::new();
    for table in loaded_maps().flatten() {
        if let Some(held) = held.get(&table.id()) {
            *bytes.entry(table.name_as_str().unwrap_or("?").to_owned()).or_default() += *held as f64;
        }
    }
    Ok(bytes)
}

/// A field of each object in the kernel that a process has descriptors of, by the field with its id.
fn fields(pid: u32, id: &str, wanted: &str) -> Result<BTreeMap<u32, u64>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&directory).with_context(|| format!("read {directory}"))?;
    let infos = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let found = infos.filter_map(|info| {
        let field =
            |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        Some((field(id)?.parse().ok()?, field(wanted)?.parse().ok()?))
    });
    Ok(found.collect())
}

/// The ways in which an attempt goes.
pub(crate) const WAYS: [(&str, &str); 2] = [("established", "established"), ("refused", "connect")];

/// What each program takes for an attempt: runs, and nanoseconds without what the statistics take themselves.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) way: &'static str,
    program: String,
    runs: f64,
    nanoseconds: f64,
    /// What it takes to come to it and back, for all runs.
    dispatch: f64,
}

impl Cost {
    /// The nanoseconds that an attempt takes longer for it.
    pub(crate) fn with_dispatch(&self) -> f64 {
        self.nanoseconds + self.dispatch
    }
}

/// How many attempts are made at once.
const ATTEMPTS: u32 = 4000;

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let own = statistics_themselves(bench.rounds)?;
    bench.note(format!("the kernel's statistics take {own:.0} ns of each run themselves; subtracted below"));
    let dispatch = dispatch(bench)?;
    kept(bench)?;
    for (way, call) in WAYS {
        let runs = |runs: &BTreeMap<String, Counted>| runs.values().map(|one| one.runs).sum::<u64>();
        // The quietest round: fewest runs for what others did meanwhile.
        let rounds: Vec<_> = (0..bench.rounds).map(|_| attempts(call, ATTEMPTS)).collect::<Result<_>>()?;
        let quietest = rounds.into_iter().min_by_key(runs).context("a round at least")?;
        let (mut all_runs, mut all_nanoseconds) = (0.0, 0.0);
        for (program, counted) in quietest {
            let runs = counted.runs as f64 / f64::from(ATTEMPTS);
            let nanoseconds = (counted.nanoseconds / f64::from(ATTEMPTS) - runs * own).max(0.0);
            if runs < 0.01 {
                continue;
            }
            bench.say(&format!(
                "programs, an attempt that is {way}: {program}: {runs:.2} runs, {nanoseconds:.0} ns"
            ));
            (all_runs, all_nanoseconds) = (all_runs + runs, all_nanoseconds + nanoseconds);
            bench.costs.push(Cost { way, program, runs, nanoseconds, dispatch: runs * dispatch });
        }
        bench.say(&format!(
            "programs, an attempt that is {way}: {all_runs:.1} runs, {all_nanoseconds:.0} ns, and {:.0} ns to come there and back",
            all_runs * dispatch
        ));
    }
    Ok(())
}

/// How often any of them runs for a request over a connection that is kept; those aside that run at each system call of the host.
fn kept(bench: &mut Bench) -> Result<()> {
    let calls: Vec<_> = (0..bench.rounds).map(|_| attempts("kept", ATTEMPTS)).collect::<Result<_>>()?;
    let of_connections = |counted: &BTreeMap<String, Counted>| {
        let others = counted.iter().filter(|(program, _)| !program.starts_with("syscall_"));
        others.map(|(_, one)| one.runs).sum::<u64>()
    };
    let least = calls.iter().map(of_connections).min().context("a round at least")?;
    bench.say(&format!(
        "programs, a request over a kept connection: {:.2} runs ({least} for one connection and {ATTEMPTS} requests)",
        least as f64 / f64::from(ATTEMPTS)
    ));
    Ok(())
}

/// What an agent's programs did for so many attempts of one process that it traces.
pub(crate) fn attempts(call: &str, attempts: u32) -> Result<BTreeMap<String, Counted>> {
    let netns = Netns::new();
    let mut caller = Caller::start(&netns, "trc", &["--call", call, "--calls", &attempts.to_string()])?;
    let agent = Agent::start(&["--process", caller.name()]);
    let _statistics = enable_stats(Stats::RunTime).context("have the kernel time its programs")?;
    let before = of(agent.pid())?;
    caller.go()?;
    let after = of(agent.pid())?;
    agent.stop();
    let since = |(name, now): (String, Counted)| {
        let then = before.get(&name).copied().unwrap_or_default();
        let (runs, nanoseconds) = (now.runs - then.runs, now.nanoseconds - then.nanoseconds);
        (name, Counted { runs, nanoseconds, ..now })
    };
    Ok(after.into_iter().map(since).collect())
}

/// The nanoseconds that the statistics say an empty program takes: their own.
fn statistics_themselves(rounds: u32) -> Result<f64> {
    let netns = Netns::new();
    let mut least = f64::INFINITY;
    for _ in 0..rounds {
        let _empty = Empty::at(c"sys_enter");
        let _statistics = enable_stats(Stats::RunTime).context("have the kernel time its programs")?;
        let mut caller = Caller::start(&netns, "oth", &["--call", "getppid", "--runs", "50"])?;
        caller.go()?;
        let counted: Vec<_> = of(std::process::id())?.into_values().filter(|one| one.runs > 0).collect();
        let empty = counted.first().context("the empty program ran")?;
        least = least.min(empty.nanoseconds / empty.runs as f64);
    }
    Ok(least)
}

/// The nanoseconds that it takes to come to a program and back, from an empty one at each system call.
fn dispatch(bench: &mut Bench) -> Result<f64> {
    let sides = ["without a program", "with an empty one", "with two"];
    let mut comparison = Comparison::new("getppid(), programs that do nothing", NANOSECONDS, sides);
    let netns = Netns::new();
    let call = || Caller::start(&netns, "oth", &["--call", "getppid", "--runs", "200"])?.go();
    for _ in 0..bench.rounds {
        let without = call()?;
        let one = Empty::at(c"sys_enter");
        let with_one = call()?;
        let _two = (one, Empty::at(c"sys_enter"));
        comparison.add([without, with_one, call()?]);
    }
    let figures: Vec<f64> = comparison.figures().map(|(_, figure)| figure).collect();
    bench.add(comparison);
    // The first one switches the tracepoint on, besides.
    Ok(figures[2] - figures[1])
}
