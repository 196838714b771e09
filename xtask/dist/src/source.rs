//! The source that a release is made from: the files that git knows, as they are in the checkout.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xtask_tools::cargo;
use xtask_tools::source_date::git;

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
