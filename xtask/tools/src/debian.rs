//! Small Debians, in which things are tried: made once, of packages from the mirror that this machine's apt is set up with.

#![allow(clippy::print_stderr, reason = "it takes a minute, which whoever typed the command wants to know")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::private_apt::Source;
use crate::shell;

/// The release: its systemd, podman, containerd and runc are those that much of the world still runs.
pub const SUITE: &str = "bookworm";
const SECURITY: &str = "bookworm-security";

/// Which packages are in one: others may be wanted later.
const CONTENT: &str = "packages";

/// The directory `name` in `work`, made by `make` unless it is there with these packages. It appears whole or not at all.
pub fn once(
    work: &Path,
    name: &str,
    packages: &[&str],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let (directory, partial) = (work.join(name), work.join(format!("{name}.partial")));
    let content = packages.join(" ");
    if fs::read_to_string(directory.join(CONTENT)).is_ok_and(|had| had == content) {
        return Ok(directory);
    }
    eprintln!("debian: making {} of {content}", directory.display());
    remove(&directory)?;
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    make(&partial)?;
    fs::write(partial.join(CONTENT), content).with_context(|| format!("write in {}", partial.display()))?;
    fs::rename(&partial, &directory).with_context(|| format!("move {} to its place", partial.display()))?;
    Ok(directory)
}

/// Makes one with these packages: in a directory or, by its name, in an archive. Its apt knows where the sources of packages are.
pub fn make(packages: &[&str], place: &Path) -> Result<()> {
    let sources = [SUITE, SECURITY].map(Source::debian).into_iter().collect::<Result<Vec<_>>>()?;
    let mut mmdebstrap = shell::as_root("mmdebstrap")?;
    mmdebstrap.args(["--quiet", "--mode=root", "--variant=minbase"]);
    mmdebstrap.arg(format!("--include={}", packages.join(","))).arg(SUITE).arg(place);
    mmdebstrap.args(sources.iter().flat_map(|source| [source.line(), source.line_of_sources()]));
    shell::run(&mut mmdebstrap)
}

/// Removes a directory with what root made in it.
pub fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        shell::run(
            shell::as_root("rm")?.args(["--recursive", "--force", "--one-file-system"]).arg(directory),
        )?;
    }
    Ok(())
}
