//! The hidden command that reads configurations for a trace.

use std::process::ExitCode;

use super::{Call, Run};
use crate::reader::serve;
pub use crate::reader::serve::COMMAND;

/// Options of the reader.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer one request, and end.
    #[arg(long)]
    once: bool,
}

impl Run for Args {
    const BY_A_PERSON: bool = false;

    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        serve::run(self.once).map(|()| ExitCode::SUCCESS)
    }
}
