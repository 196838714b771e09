//! `cargo xtask demo`: the outage that proxytrace exists for, replayed on a real nginx.
//!
//! Two processes, both as root, with the program in `PROXYTRACE_BIN`: the supervisor waits and cleans up; the show, which it
//! starts, makes the namespaces and runs the story. So whatever becomes of the show, nothing of it stays behind.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a show")]

mod failures;
mod guarded;
mod live;
mod outage;
mod timeline;
mod verdict;

use std::process::ExitCode;

use clap::Parser;
use proxytrace_tests::supervisor;

#[derive(Parser)]
struct Args {
    /// Which of the two processes this is
    #[arg(long, hide = true, value_enum, default_value_t = Part::Supervisor)]
    part: Part,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Supervisor,
    Show,
}

fn main() -> ExitCode {
    let done = match Args::parse().part {
        Part::Supervisor => supervisor::run("demo"),
        Part::Show => outage::run(),
    };
    if let Err(error) = done {
        eprintln!("demo: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
