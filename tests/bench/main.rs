//! `cargo xtask bench`: what proxytrace costs. Each figure stands beside that of the same thing without it (or with little
//! to do), measured in turns, so that whatever else the machine does slows down both; what counts is the ratio.
//!
//! Processes as in the demo: the supervisor cleans up, the show measures. That starts this program once more for the calls
//! that are timed, so it is built with optimizations.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are for whoever typed the command")]

mod agents;
mod calls;
mod comparison;
mod configuration;
mod connects;
mod many;
mod requests;

use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::sys::utsname::uname;
use proxytrace_tests::supervisor;

use crate::comparison::Comparison;

#[derive(Parser)]
struct Args {
    /// Which of the processes this is
    #[arg(long, hide = true, value_enum, default_value_t = Part::Supervisor)]
    part: Part,

    /// What a process does that is timed
    #[arg(long, hide = true, value_enum, default_value_t = calls::Call::Getppid)]
    call: calls::Call,

    /// In how many runs
    #[arg(long, hide = true, default_value_t = 1)]
    runs: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Supervisor,
    Show,
    Caller,
}

/// Each measures one side of what it costs.
const MEASUREMENTS: &[fn() -> Result<Vec<Comparison>>] =
    &[configuration::measure, connects::measure, agents::measure, requests::measure];

fn main() -> ExitCode {
    let Args { part, call, runs } = Args::parse();
    let done = match part {
        Part::Supervisor => supervisor::run("bench"),
        Part::Show => show(),
        Part::Caller => calls::make(call, runs),
    };
    if let Err(error) = done {
        eprintln!("bench: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn show() -> Result<()> {
    supervisor::report_panics_plainly("bench");
    println!("bench: {}", machine()?);
    let mut too_much = Vec::new();
    for measure in MEASUREMENTS {
        for comparison in measure()? {
            println!("bench: {comparison}");
            too_much.extend(comparison.too_much());
        }
    }
    if !too_much.is_empty() {
        bail!("{}", too_much.join("; "));
    }
    Ok(())
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
