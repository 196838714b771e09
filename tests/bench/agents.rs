//! What an agent takes: time until it is ready, memory, and scrapes; with few addresses and with very many.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use procfs::process::Process;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::Nginx;
use proxytrace_tests::proxytrace::Agent;

use crate::Bench;
use crate::comparison::{Comparison, MEBIBYTES, MILLISECONDS, Unit};
use crate::many::{self, ADDRESSES};
use crate::plots::Point;

/// How many addresses are declared, all of which have series of their own.
const DECLARED: [u32; 4] = [10, 100, 1_000, 10_000];
const SCRAPES: usize = 5;
const MEBIBYTE: f64 = (1 << 20) as f64;

/// What is measured of an agent, in this order, and the plot that shows it.
const FIGURES: [(&str, &Unit, Option<&str>); 5] = [
    ("until it is ready", MILLISECONDS, None),
    ("memory with its reader's", MEBIBYTES, Some("memory")),
    ("memory in the kernel", MEBIBYTES, Some("memory")),
    ("a scrape", MILLISECONDS, Some("scrape")),
    ("the size of a scrape", MEBIBYTES, Some("scrape-size")),
];

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let netns = Netns::new();
    let proxies = DECLARED.map(|addresses| Nginx::start(&netns, &many::routes(addresses / ADDRESSES)));
    let sides = DECLARED.map(|addresses| format!("{addresses} addresses"));
    let mut comparisons =
        FIGURES.map(|(what, unit, _)| Comparison::new(format!("agent, {what}"), unit, sides.clone()));
    for _ in 0..bench.rounds {
        let figures = proxies.iter().zip(DECLARED).map(|(nginx, addresses)| figures(nginx, addresses));
        let figures = figures.collect::<Result<Vec<_>>>()?;
        for (number, comparison) in comparisons.iter_mut().enumerate() {
            comparison.add(figures.iter().map(|figures| figures[number]).collect::<Vec<_>>());
        }
    }
    for (comparison, (what, _, plot)) in comparisons.into_iter().zip(FIGURES) {
        let values: Vec<f64> = comparison.figures().map(|(_, figure)| figure).collect();
        for (addresses, y) in DECLARED.into_iter().zip(values) {
            if let Some(plot) = plot {
                bench.point(Point { plot, line: what.to_owned(), x: f64::from(addresses), y });
            }
        }
        bench.add(comparison);
    }
    Ok(())
}

/// Starts an agent that watches `nginx`, measures it and ends it.
fn figures(nginx: &Nginx, addresses: u32) -> Result<[f64; FIGURES.len()]> {
    let start = Instant::now();
    let agent = Agent::start(&["--process", nginx.name(), "--max-addresses", "10000"]);
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
    ensure!(
        declared >= f64::from(addresses),
        "an agent that watches {addresses} addresses says that {declared} are declared"
    );
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
