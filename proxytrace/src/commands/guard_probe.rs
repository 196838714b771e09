//! The process that connects as a proxy would, for `guard`.

use std::process::ExitCode;

use super::{Call, Run};
use crate::guard::probe;
pub use crate::guard::probe::COMMAND;

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
