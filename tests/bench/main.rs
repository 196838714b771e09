//! `cargo xtask bench`: what proxytrace costs. Each figure stands beside that of the same thing without it, with little to do, or with
//! what people would use instead, measured in turns, so that whatever else the machine does slows down all; what counts is the ratio.
//!
//! Processes as in the demo: the supervisor cleans up, the show measures. That starts this program once more for the calls
//! that are timed, so it is built with optimizations.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are for whoever typed the command")]

mod agents;
mod attempts;
mod calls;
mod comparison;
mod configuration;
mod connects;
mod ended;
mod followed;
mod latency;
mod loads;
mod looks;
mod many;
mod paper;
mod plots;
mod programs;
mod quick;
mod report;
mod subjects;

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use nix::sys::utsname::uname;
use proxytrace_tests::supervisor;

use crate::comparison::Comparison;
use crate::plots::Point;
use crate::programs::Cost;

#[derive(Parser)]
#[command(bin_name = "cargo xtask bench", about)]
struct Args {
    /// Only what does not depend on the clock, held against the committed figures: a few seconds
    #[arg(long)]
    quick: bool,

    /// Write those figures again
    #[arg(long, requires = "quick")]
    update: bool,

    /// Only this side of the costs (may be repeated)
    #[arg(long, value_name = "SIDE", value_parser = PossibleValuesParser::new(MEASUREMENTS.iter().map(|side| side.name)))]
    only: Vec<String>,

    /// In how many rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long nginx is kept busy in each
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Also write docs/performance.md, docs/performance.json and the plots
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    docs: bool,

    /// Which of the processes this is
    #[arg(long, hide = true, value_enum, default_value_t = Part::Supervisor)]
    part: Part,

    #[command(flatten)]
    calls: calls::Calls,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Supervisor,
    Show,
    Caller,
}

/// A side of what it costs.
struct Measurement {
    name: &'static str,
    run: fn(&mut Bench) -> Result<()>,
}

/// The quickest first.
const MEASUREMENTS: &[Measurement] = &[
    Measurement { name: "configuration", run: configuration::measure },
    Measurement { name: "programs", run: programs::measure },
    Measurement { name: "looks", run: looks::measure },
    Measurement { name: "latency", run: latency::measure },
    Measurement { name: "agents", run: agents::measure },
    Measurement { name: "attempts", run: attempts::measure },
    Measurement { name: "connects", run: connects::measure },
    Measurement { name: "followed", run: followed::measure },
    Measurement { name: "ended", run: ended::measure },
    Measurement { name: "workers", run: loads::workers },
    Measurement { name: "loads", run: loads::measure },
    // From figures of the others: alone there is none.
    Measurement { name: "paper", run: paper::measure },
];

/// What was measured so far, and how it is to be.
pub(crate) struct Bench {
    rounds: u32,
    seconds: u32,
    comparisons: Vec<Comparison>,
    costs: Vec<Cost>,
    points: Vec<Point>,
    notes: Vec<String>,
    /// The lines that were printed.
    printed: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.part {
        Part::Supervisor => supervisor::run("bench"),
        Part::Show => show(args),
        Part::Caller => calls::make(args.calls),
    };
    if let Err(error) = done {
        eprintln!("bench: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn show(Args { quick, update, only, rounds, seconds, docs, .. }: Args) -> Result<()> {
    supervisor::report_panics_plainly("bench");
    if quick {
        return quick::run(update);
    }
    let machine = machine()?;
    let date = date()?;
    let mut bench = Bench {
        rounds,
        seconds,
        comparisons: Vec::new(),
        costs: Vec::new(),
        points: Vec::new(),
        notes: Vec::new(),
        printed: String::new(),
    };
    bench.say(&format!("{machine}, {date}, {rounds} rounds"));
    for Measurement { name, run } in MEASUREMENTS {
        if only.is_empty() || only.iter().any(|only| only == name) {
            run(&mut bench).with_context(|| format!("measure {name}"))?;
        }
    }
    if docs {
        report::write(&bench, &machine, &date)?;
    }
    let too_much: Vec<_> = bench.comparisons.iter().filter_map(Comparison::too_much).collect();
    if !too_much.is_empty() {
        bail!("{}", too_much.join("; "));
    }
    Ok(())
}

impl Bench {
    /// Something was measured.
    fn add(&mut self, comparison: Comparison) {
        self.say(&comparison.to_string());
        self.comparisons.push(comparison);
    }

    /// What was measured under that name.
    fn comparison(&self, what: &str) -> Result<&Comparison> {
        let found = self.comparisons.iter().find(|comparison| comparison.what() == what);
        found.with_context(|| format!("nothing was measured that is called {what:?}"))
    }

    /// A place in a plot.
    fn point(&mut self, point: Point) {
        self.points.push(point);
    }

    /// What one has to know about the figures.
    fn note(&mut self, note: String) {
        self.say(&note);
        self.notes.push(note);
    }

    fn say(&mut self, line: &str) {
        println!("bench: {line}");
        let _ = writeln!(self.printed, "bench: {line}");
    }
}

fn date() -> Result<String> {
    let date = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().context("run date")?.stdout;
    Ok(String::from_utf8_lossy(&date).trim().to_owned())
}

/// What it is measured on: figures of two machines are not to be compared.
fn machine() -> Result<String> {
    let system = uname().context("ask for the kernel's name")?;
    let words = [system.sysname(), system.release(), system.machine()];
    let processors = thread::available_parallelism().context("count the processors")?;
    // It prints its version on stderr.
    let nginx = Command::new("nginx").arg("-v").output().context("ask nginx for its version")?.stderr;
    let nginx = String::from_utf8_lossy(&nginx);
    let version = nginx.trim().strip_prefix("nginx version: ").unwrap_or("nginx");
    Ok(format!("{}, {processors} processors, {version}", words.map(|word| word.to_string_lossy()).join(" ")))
}
