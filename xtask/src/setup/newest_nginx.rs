//! The newest nginx, of Debian's next release, beside the one that is installed: unpacked with the libraries that it is linked to, as this
//! machine's may be older.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xtask_tools::private_apt::{self, PrivateApt, Source, remove};
use xtask_tools::shell;

/// Debian's next release.
pub(super) const SUITE: &str = "forky";

/// nginx with the modules of the stories.
pub(super) const PACKAGES: &[&str] = &["nginx", "libnginx-mod-stream", "libnginx-mod-mail"];

/// Where they are unpacked, in the target directory.
pub(super) const PLACE: &str = "setup/nginx-newest";

/// The program, in there.
pub(super) const PROGRAM: &str = "setup/nginx-newest/usr/sbin/nginx";

/// Brings it. It is made to take the loader and the libraries beside it, by their paths: so it runs as long as the target directory
/// stays where it is.
pub(super) fn install(target: &Path) -> Result<()> {
    let (place, program) = (target.join(PLACE), target.join(PROGRAM));
    let apt = PrivateApt::new(target.join("setup/nginx-apt"), &[Source::debian(SUITE)?], private_apt::OWN)?;
    apt.update()?;
    remove(&place)?;
    apt.unpack_with_dependencies(PACKAGES, &place)?;
    apt.end()?;

    let named = shell::output(Command::new("patchelf").arg("--print-interpreter").arg(&program))?;
    let loader = loader_in(&place, named.trim())?;
    let libraries = loader.parent().unwrap_or(&place);
    let mut patch = Command::new("patchelf");
    patch.arg("--set-interpreter").arg(&loader);
    // Of the program as of what it loads: a RUNPATH would be for its own libraries only.
    patch.arg("--force-rpath").arg("--set-rpath").arg(libraries).arg(&program);
    shell::run(&mut patch)
}

/// The loader that a program names as `/lib64/...`, where directories below the top are merged into usr.
fn loader_in(place: &Path, named: &str) -> Result<PathBuf> {
    let loader = place.join("usr").join(named.trim_start_matches('/'));
    loader.canonicalize().with_context(|| format!("find the loader at {}", loader.display()))
}
