//! The hidden command that the self-test of `doctor` looks at.

use std::process::ExitCode;

use super::{Call, Run};
use crate::doctor::subject;
pub use crate::doctor::subject::COMMAND;

/// It has no options.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Run for Args {
    const BY_A_PERSON: bool = false;

    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        subject::run().map(|()| ExitCode::SUCCESS)
    }
}
