//! `proxytrace doctor`: what this host lets it do.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{
    Call, Run, block_on,
    display::stdout_colour,
    options::{AskAgent, Tracing},
};
use crate::{
    doctor::{self, report::Verdict},
    exit::Failure,
    output::diagnosis,
};

/// Options of `proxytrace doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON: one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AskAgent,
    #[command(flatten)]
    tracing: Tracing,
}

impl Run for Args {
    /// Examines the host, reports what was found, and ends with 0 where everything is seen, at whatever price, 1 where something
    /// is not seen, and 3 where tracing is impossible.
    ///
    /// # Errors
    /// /proc is not readable, or standard output is gone.
    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        let Tracing { nginx_config, no_resolve, .. } = &self.tracing;
        let options = self.tracing.options(false);
        let examined = doctor::examine(&options, nginx_config.clone(), !no_resolve, self.agent.path());
        let report = block_on(examined)?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        } else {
            out.write_all(diagnosis(&report, stdout_colour()).as_bytes())?;
        }
        out.flush()?;
        Ok(match report.verdict {
            Verdict::Full | Verdict::Costly => ExitCode::SUCCESS,
            Verdict::Degraded => Failure::Failed.into(),
            Verdict::Cannot => Failure::CannotTrace.into(),
        })
    }
}
