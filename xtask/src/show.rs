//! `cargo xtask demo` and `cargo xtask bench`: built as the user, and carried on with as root.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Error, Result};
use xtask_tools::cargo::{self, Target};
use xtask_tools::shell;

use crate::setup;

/// The packages that they are.
pub(crate) const DEMO: &str = "proxytrace-demo";
pub(crate) const BENCH: &str = "proxytrace-bench";

pub(crate) fn run(package: &str) -> Result<()> {
    setup::run()?;
    let proxytrace = cargo::build(Target::Own, "proxytrace")?;
    let show = cargo::build(Target::Own, package)?;
    // Becoming it, not starting it: signals, terminal and exit status are then its own.
    let error = shell::as_root(&show)?.env(cargo::BINARY, proxytrace).exec();
    Err(Error::new(error)).with_context(|| format!("run {} as root", show.display()))
}
