//! The hidden command that the self-test of `doctor` looks at.

use std::process::ExitCode;

use super::Run;
use crate::doctor::subject;
pub use crate::doctor::subject::COMMAND;

/// It has no options.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Run for Args {
    fn run(&self, _: bool) -> anyhow::Result<ExitCode> {
        subject::run().map(|()| ExitCode::SUCCESS)
    }
}
