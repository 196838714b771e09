//! What an agent takes: time until it is ready, memory, and scrapes; with one upstream, and with very many.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use procfs::process::Process;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::Nginx;
use proxytrace_tests::proxytrace::Agent;

use crate::comparison::{Comparison, MEBIBYTES, MILLISECONDS, Unit};
use crate::many;

const UPSTREAMS: u32 = 2000;
const ROUNDS: usize = 5;
const SCRAPES: usize = 5;
const MEBIBYTE: f64 = (1 << 20) as f64;

/// How many addresses have series of their own: as many as an agent gives them by default, and all.
const SERIES: &[(&[&str], &str)] = &[(&[], "1000 series"), (&["--max-addresses", "10000"], "10000 series")];

/// What is measured of an agent, in this order.
const FIGURES: [(&str, &Unit); 5] = [
    ("until it is ready", MILLISECONDS),
    ("memory with its reader's", MEBIBYTES),
    ("memory in the kernel", MEBIBYTES),
    ("a scrape", MILLISECONDS),
    ("the size of a scrape", MEBIBYTES),
];

pub(crate) fn measure() -> Result<Vec<Comparison>> {
    let netns = Netns::new();
    let few = Nginx::start(&netns, &many::routes(1));
    let many = Nginx::start(&netns, &many::routes(UPSTREAMS));
    let mut all = Vec::new();
    for (options, series) in SERIES {
        let mut comparisons = FIGURES.map(|(what, unit)| {
            let what = format!("agent, {what}, {series}");
            Comparison::new(what, unit, ["1 upstream", "2000 upstreams of 5 addresses"])
        });
        for _ in 0..ROUNDS {
            let (one, other) = (figures(&few, options, 1)?, figures(&many, options, UPSTREAMS)?);
            for (comparison, figures) in comparisons.iter_mut().zip(one.into_iter().zip(other)) {
                comparison.add(figures.into());
            }
        }
        all.extend(comparisons);
    }
    Ok(all)
}

/// Starts an agent that watches `nginx`, measures it and ends it.
fn figures(nginx: &Nginx, options: &[&str], upstreams: u32) -> Result<[f64; FIGURES.len()]> {
    let start = Instant::now();
    let agent = Agent::start(&[&["--process", nginx.name()], options].concat());
    let ready = milliseconds(start);
    let scrapes = (0..SCRAPES).map(|_| {
        let start = Instant::now();
        let size = agent.get("/metrics").body.len();
        (milliseconds(start), size)
    });
    let scrapes: Vec<_> = scrapes.collect();
    let best = scrapes.iter().map(|(took, _)| *took).fold(f64::INFINITY, f64::min);
    let size = scrapes.last().map_or(0, |(_, size)| *size);
    let metrics = agent.metrics();
    let declared = metrics.sum("proxytrace_upstream_declared", &[]);
    ensure!(declared > 0.0, "an agent that watches {upstreams} upstreams says that none is declared");
    let in_kernel = metrics.sum("proxytrace_kernel_memory_bytes", &[]);
    let figures =
        [ready, memory(agent.pid())? as f64 / MEBIBYTE, in_kernel / MEBIBYTE, best, size as f64 / MEBIBYTE];
    agent.stop();
    Ok(figures)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// What a process and its children keep in memory, in bytes; of what several processes share each has its part.
fn memory(pid: u32) -> Result<u64> {
    let process = Process::new(pid.cast_signed()).context("read an agent")?;
    let children = process.task_main_thread().and_then(|thread| thread.children());
    let children = children.context("list the children of an agent")?;
    let parts = [pid].into_iter().chain(children).map(|pid| {
        let rollup = Process::new(pid.cast_signed()).and_then(|process| process.smaps_rollup());
        let maps = rollup.with_context(|| format!("read the memory of process {pid}"))?.memory_map_rollup;
        let part = maps.iter().find_map(|map| map.extension.map.get("Pss"));
        part.copied().context("a kernel that reports proportional memory (Pss)")
    });
    parts.sum()
}
