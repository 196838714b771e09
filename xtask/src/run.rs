//! `cargo xtask run`: proxytrace as it is in the checkout, with the privileges it needs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Error, Result};

use xtask_tools::cargo::{self, Target};
use xtask_tools::shell;

use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Handed to proxytrace as they are, for example: trace --all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROXYTRACE ARGS")]
    args: Vec<OsString>,
}

pub(crate) fn run(Args { args }: Args) -> Result<()> {
    setup::run()?;
    let proxytrace = cargo::build(Target::Own, "proxytrace")?;
    // Becoming it, not starting it: signals, terminal and exit status are then its own.
    let error = shell::as_root(&proxytrace)?.args(args).exec();
    Err(Error::new(error).context(format!("run {}", proxytrace.display())))
}
