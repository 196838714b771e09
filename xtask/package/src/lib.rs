//! `cargo xtask package`: makes the Debian packages, and tries that of this machine.
//!
//! What is in the package is a table in `proxytrace/Cargo.toml`. A way to try it is a line of [`CHECKS`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who typed the command")]

mod copyright;
mod deb;
mod lintian;
mod machine;
mod piuparts;
#[cfg(test)]
mod unit;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use xtask_tools::{cargo, private_apt};

/// A way to try a package.
struct Check {
    name: &'static str,
    run: fn(&Path, &Path) -> Result<()>,
}

/// The quickest first. Each gets the package, and a directory for what it makes.
const CHECKS: &[Check] = &[
    Check { name: "lintian", run: lintian::check },
    Check { name: "piuparts", run: piuparts::check },
    Check { name: "systemd", run: machine::check },
];

/// What is done with the package, once it is made.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Try it: all checks, or those that are named (lintian, piuparts, and systemd in a machine of its own)
    #[arg(long, value_name = "CHECK", num_args = 0.., value_parser = PossibleValuesParser::new(CHECKS.iter().map(|check| check.name)))]
    check: Option<Vec<String>>,
}

/// Makes a package of each program that `cargo xtask dist` made, and tries this machine's as asked for.
///
/// # Errors
/// It could not be made, or something is not as it must be.
pub fn run(Args { check: asked }: Args) -> Result<()> {
    let packages = deb::make()?;
    for (_, package) in &packages {
        println!("package: {}", package.display());
    }
    let Some(asked) = asked else { return Ok(()) };
    let own = packages.iter().find(|(target, _)| target.arch == private_apt::OWN);
    let (_, package) =
        own.with_context(|| format!("there is no package for {}, so none to try", private_apt::OWN))?;
    let work = cargo::target_dir()?.join("package");
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    for Check { name, run } in
        CHECKS.iter().filter(|check| asked.is_empty() || asked.iter().any(|asked| asked == check.name))
    {
        println!("package: {name}");
        run(package, &work).with_context(|| format!("{name} is not content with {}", package.display()))?;
    }
    Ok(())
}
