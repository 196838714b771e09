//! When the source was changed for the last time, so that whoever builds from it again gets the same bytes.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cargo, shell};

/// Where a reproducible build gets its time from: <https://reproducible-builds.org/specs/source-date-epoch/>.
pub const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// What is given, else the time of the last commit, in seconds since 1970.
pub fn seconds() -> Result<String> {
    if let Ok(given) = env::var(VARIABLE) {
        return Ok(given);
    }
    let seconds = shell::output(&mut git(&["log", "-1", "--format=%ct"]));
    let seconds =
        seconds.with_context(|| format!("this is no checkout: say when it is from, with {VARIABLE}"))?;
    Ok(seconds.trim().to_owned())
}

/// A call of git in the checkout, whose owner may be another user than root.
pub fn git(args: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*"]).args(args).current_dir(cargo::root());
    git
}
