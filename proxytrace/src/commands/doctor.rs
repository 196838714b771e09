//! `proxytrace doctor`: what this host lets it do.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::block_on;
use crate::{
    cli::Tracing,
    doctor::{self, report::Verdict},
    exit::Failure,
    output::{Colour, diagnosis},
};

/// Options of `proxytrace doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON: one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tracing: Tracing,
}

/// Examines the host, says what was found, and ends with 0 where nothing is amiss, 1 where something is, and 3 where
/// tracing is impossible.
///
/// # Errors
/// /proc is not readable, or standard output is gone.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { json, tracing } = args;
    // A runtime for the ring buffer, which nobody reads here.
    let report = block_on(async { doctor::examine(&tracing.options(false)) })?;
    let mut out = io::stdout().lock();
    if *json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(diagnosis(&report, Colour::of_stdout()).as_bytes())?;
    }
    out.flush()?;
    Ok(match report.verdict {
        Verdict::Full => ExitCode::SUCCESS,
        Verdict::Degraded => Failure::Failed.into(),
        Verdict::Cannot => Failure::CannotTrace.into(),
    })
}
