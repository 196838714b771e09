//! The process that connects as a proxy would, for `check` and `guard`.

use std::process::ExitCode;

use super::{Call, Run};
use crate::check::probe;
pub use crate::check::probe::COMMAND;

/// It has no options.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Run for Args {
    const BY_A_PERSON: bool = false;

    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        probe::serve()?;
        Ok(ExitCode::SUCCESS)
    }
}
