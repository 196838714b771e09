//! What the figures come to on machines that are not at hand: on paper, and said to be so.

use anyhow::{Context, Result};

use crate::Bench;
use crate::attempts::OF_A_MILLION;
use crate::plots::Point;
use crate::programs::{Cost, WAYS};

/// How many processors a host has.
const PROCESSORS: [u32; 4] = [2, 8, 32, 128];

/// What each of them is asked for.
const ATTEMPTS_A_SECOND: f64 = 1_000.0;

/// System calls a second of a whole host.
const SYSTEM_CALLS: [f64; 5] = [1e4, 1e5, 1e6, 1e7, 1e8];

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    for (way, _) in WAYS {
        let programs: f64 = bench.costs.iter().filter(|cost| cost.way == way).map(Cost::with_dispatch).sum();
        let agent = figure(bench, OF_A_MILLION, way)? * 1e-6;
        let most = 1.0 / agent;
        bench.say(&format!(
            "on paper: attempts that are {way}: the agent's processes are busy all the time at {most:.0} a second, on any host"
        ));
        for processors in PROCESSORS {
            let rate = ATTEMPTS_A_SECOND * f64::from(processors);
            let (each, all) = (programs * 1e-9 * ATTEMPTS_A_SECOND, (agent * rate).min(1.0));
            let lost = if rate > most { ", and events are lost (counts are not)" } else { "" };
            bench.say(&format!(
                "on paper: {processors} processors, {ATTEMPTS_A_SECOND:.0} attempts a second on each that are {way}: {:.2} % of each by \
                 programs, {:.1} % of one by the agent{lost}",
                100.0 * each,
                100.0 * all
            ));
        }
    }
    let (without, with) = (0, 1);
    let call = bench.comparison("getppid(), other process")?;
    let figures: Vec<f64> = call.figures().map(|(_, figure)| figure).collect();
    let added = (figures[with] - figures[without]).max(0.0);
    for x in SYSTEM_CALLS {
        let y = x * added * 1e-9 * 100.0;
        bench.point(Point { plot: "system-calls", line: "an agent".to_owned(), x, y });
    }
    Ok(())
}

/// The figure of a side of what was measured.
fn figure(bench: &Bench, what: &str, side: &str) -> Result<f64> {
    let mut figures = bench.comparison(what)?.figures();
    let found = figures.find(|(name, _)| *name == side);
    Ok(found.with_context(|| format!("{what} has no side {side}"))?.1)
}
