//! `cargo xtask demo` and `cargo xtask bench`: built as the user, and carried on with as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Error, Result};
use xtask_tools::cargo::{self, Target};
use xtask_tools::shell;

use crate::setup;

/// The packages that they are.
const DEMO: &str = "proxytrace-demo";
pub(crate) const BENCH: &str = "proxytrace-bench";

/// What it prints when it is asked for help says what there is.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// Handed to the bench as they are: --quick, --quick --update, --only SIDE, --docs, --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

pub(crate) fn demo() -> Result<()> {
    setup::run()?;
    run(DEMO, &[])
}

pub(crate) fn bench(BenchArgs { options }: &BenchArgs) -> Result<()> {
    setup::run()?;
    if !options.iter().any(|option| option == "--quick" || option == "--help") {
        setup::for_bench()?;
    }
    run(BENCH, options)
}

fn run(package: &str, options: &[OsString]) -> Result<()> {
    let proxytrace = cargo::build(Target::Own, "proxytrace")?;
    let show = cargo::build(Target::Own, package)?;
    // Becoming it, not starting it: signals, terminal and exit status are then its own.
    let error = shell::as_root(&show)?.args(options).env(cargo::BINARY, proxytrace).exec();
    Err(Error::new(error)).with_context(|| format!("run {} as root", show.display()))
}
