//! The standard library's source for the pinned toolchain: from rustup, or else from Debian.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xtask_tools::private_apt::{self, PrivateApt, Source, remove};
use xtask_tools::{cargo, shell};

/// Which Debian suite carries the pinned version; it moves with rust-toolchain.toml.
const SUITE: &str = "trixie-backports";

/// Puts the source where `-Z build-std` expects it.
pub(super) fn install(sysroot: &Path) -> Result<()> {
    let from_rustup =
        shell::run(Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(cargo::root()));
    from_rustup.or_else(|error| {
        eprintln!("setup:   {error:#}; taking rust-src from Debian {SUITE}");
        from_debian(sysroot)
    })
}

/// Debian's package holds the same files elsewhere, so it is unpacked, not installed, and the system's own package
/// sources are left alone.
fn from_debian(sysroot: &Path) -> Result<()> {
    let version = rustc_version()?;
    let (directory, sources) = (cargo::target_dir()?.join("setup/rust-src"), [Source::debian(SUITE)?]);
    let apt = PrivateApt::new(directory, &sources, private_apt::OWN)?;
    apt.update()?;

    // Unpacked beside its place, so that it appears there whole or not at all.
    let place = sysroot.join("lib/rustlib/src/rust");
    let unpacked = sysroot.join("lib/rustlib/src/unpacked");
    remove(&unpacked)?;
    apt.unpack(&[format!("rust-src={version}+*")], &unpacked)?;
    remove(&place)?;
    let source = unpacked.join(format!("usr/src/rustc-{version}"));
    fs::rename(&source, &place)
        .with_context(|| format!("move {} to {}", source.display(), place.display()))?;
    remove(&unpacked)?;
    apt.end()
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rustc_version() -> Result<String> {
    let printed = shell::output(Command::new("rustc").arg("--version").current_dir(cargo::root()))?;
    let version = printed.split_whitespace().nth(1);
    version.map(str::to_owned).with_context(|| format!("no version in what rustc says: {printed:?}"))
}
