//! What an agent's own processes take for each attempt, healthy and failing, and at different rates.

use std::fs;

use anyhow::{Context, Result};
use procfs::process::Process;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::Agent;

use crate::Bench;
use crate::calls::Caller;
use crate::comparison::{Comparison, SECONDS};
use crate::plots::Point;
use crate::programs::WAYS;

/// What the first comparison is called.
pub(crate) const OF_A_MILLION: &str = "the agent's processes, for a million attempts";

/// As many attempts as there can be, of each kind.
const ATTEMPTS: u32 = 100_000;

/// How many in a second, for so long.
const RATES: [u32; 5] = [100, 1_000, 3_000, 10_000, 30_000];
const SECONDS_EACH: u32 = 2;

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let sides = WAYS.map(|(way, _)| way);
    let mut comparison = Comparison::new(OF_A_MILLION, SECONDS, sides);
    for _ in 0..bench.rounds {
        let round = WAYS.map(|(_, call)| Ok(taken(call, ATTEMPTS, None)?.0 * 1e6 / f64::from(ATTEMPTS)));
        comparison.add(round.into_iter().collect::<Result<Vec<_>>>()?);
    }
    bench.add(comparison);
    for (way, call) in WAYS {
        for rate in RATES {
            let (seconds, each) = taken(call, rate * SECONDS_EACH, Some(rate))?;
            let (reached, took) = (1e9 / each, f64::from(rate * SECONDS_EACH) * each / 1e9);
            let share = seconds / took;
            bench.say(&format!(
                "the agent's processes, {way}, {rate} attempts a second asked for, {reached:.0} made: {:.2} % of a processor",
                100.0 * share
            ));
            bench.point(Point { plot: "agent-cpu", line: way.to_owned(), x: reached, y: 100.0 * share });
        }
    }
    Ok(())
}

/// The processor time of an agent, in seconds, while a process that it traces makes attempts; and the nanoseconds that each took.
fn taken(call: &str, attempts: u32, rate: Option<u32>) -> Result<(f64, f64)> {
    let netns = Netns::new();
    let (attempts, rate) = (attempts.to_string(), rate.map(|rate| rate.to_string()));
    let mut options = vec!["--call", call, "--calls", &attempts];
    options.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
    let mut caller = Caller::start(&netns, "trc", &options)?;
    let agent = Agent::start(&["--process", caller.name()]);
    let before = processor_time(agent.pid())?;
    let each = caller.go()?;
    let took = processor_time(agent.pid())? - before;
    agent.stop();
    Ok((took, each))
}

/// The processor time of a process and its children, in seconds.
pub(crate) fn processor_time(pid: u32) -> Result<f64> {
    let process = Process::new(pid.cast_signed()).context("read an agent")?;
    let children = process.task_main_thread().and_then(|thread| thread.children());
    let all = children.context("list the children of an agent")?.into_iter().chain([pid]);
    let nanoseconds = all.map(|pid| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list the threads of an agent")?;
        let times = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Ok(times.sum::<u64>())
    });
    Ok(nanoseconds.sum::<Result<u64>>()? as f64 / 1e9)
}
