//! A look at connections that live: how long it takes, where there are many.

use std::time::Duration;

use anyhow::{Context, Result};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::wait;

use crate::Bench;
use crate::calls::Caller;
use crate::comparison::median;

/// So many live.
const CONNECTIONS: u32 = 10_000;

/// So many may wait to be accepted, which nobody does.
const QUEUE: u32 = 1 << 14;

/// So many looks are timed in each round.
const LOOKS: usize = 5;

/// The agent times each itself, and says so in its log.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let mut milliseconds = Vec::new();
    for _ in 0..bench.rounds {
        milliseconds.extend(round()?);
    }
    let (least, most) = milliseconds
        .iter()
        .fold((f64::INFINITY, 0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
    bench.say(&format!(
        "looks, at {CONNECTIONS} connections: {:.1} ms, once a second ({least:.1} to {most:.1} ms)",
        median(milliseconds)
    ));
    Ok(())
}

fn round() -> Result<Vec<f64>> {
    let netns = Netns::new();
    netns.sysctl("net.core.somaxconn", &QUEUE.to_string());
    let mut caller = Caller::start(&netns, "trc", &["--call", "hold", "--calls", &CONNECTIONS.to_string()])?;
    let agent = Agent::start(&["--process", caller.name(), "-vv"]);
    caller.go()?;
    let looks = wait::until("some looks", Duration::from_secs(30), || {
        let looks: Vec<_> = agent.stderr().lines().filter_map(taken).collect();
        (looks.len() > LOOKS).then_some(looks)
    });
    agent.stop();
    // The first may have begun before all were there.
    Ok(looks[1..].iter().map(|look| look.as_secs_f64() * 1e3).collect())
}

/// Of a line of the log that says it: what a look at all of them takes. On a busy machine one does not get to all in its time.
fn taken(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("looked at ")?;
    let (looked, taken) = rest.split_once(&format!(" of {CONNECTIONS} connections in "))?;
    let looked: f64 = looked.parse().ok()?;
    Some(duration(taken.trim()).ok()?.mul_f64(f64::from(CONNECTIONS) / looked))
}

/// As `Duration` is shown, such as `8.31ms`.
fn duration(text: &str) -> Result<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().context("a duration")?;
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        _ => anyhow::bail!("no duration: {text}"),
    };
    Ok(Duration::from_secs_f64(number * seconds))
}
