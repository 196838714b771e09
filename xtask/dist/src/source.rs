//! The source that a release is made from: the files that git knows, as they are in the checkout.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xtask_tools::{cargo, shell};

/// Where a reproducible build gets its time from: <https://reproducible-builds.org/specs/source-date-epoch/>.
pub(crate) const TIME: &str = "SOURCE_DATE_EPOCH";

/// The files below a directory of the checkout, by their paths in it.
pub(crate) fn files(below: &str) -> Result<Vec<PathBuf>> {
    let output = git(&["ls-files", "-z", "--", below]).output().context("run git")?;
    let paths = output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    Ok(paths.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path))).collect())
}

/// Copies all of it.
pub(crate) fn copy_to(directory: &Path) -> Result<()> {
    for file in files(".")? {
        copy(&file, &directory.join(&file))?;
    }
    Ok(())
}

/// Copies a file of the checkout, with the directories that it is in.
pub(crate) fn copy(file: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::copy(cargo::root().join(file), to).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}

/// When it was changed for the last time, in seconds since 1970: what is given, else the time of the last commit.
pub(crate) fn time() -> Result<String> {
    if let Ok(given) = env::var(TIME) {
        return Ok(given);
    }
    let time = shell::output(&mut git(&["log", "-1", "--format=%ct"]));
    Ok(time
        .with_context(|| format!("this is no checkout: say when it is from, with {TIME}"))?
        .trim()
        .to_owned())
}

fn git(args: &[&str]) -> Command {
    let mut git = Command::new("git");
    // The owner of a checkout may be another user than root.
    git.args(["-c", "safe.directory=*"]).args(args).current_dir(cargo::root());
    git
}
