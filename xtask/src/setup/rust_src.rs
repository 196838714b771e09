//! The standard library's source for the pinned toolchain: from rustup, or else from Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cargo, shell};

/// Which Debian suite carries the pinned version; it moves with rust-toolchain.toml.
const SUITE: &str = "trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Puts the source where `-Z build-std` looks for it.
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
    let apt = PrivateApt::new(cargo::target_dir()?.join("setup/rust-src"))?;
    shell::run(apt.get().arg("update"))?;
    shell::run(apt.get().args(["download", &format!("rust-src={version}+*")]))?;
    let package = apt.downloaded()?;

    // Unpacked beside its place, so that it appears there whole or not at all.
    let place = sysroot.join("lib/rustlib/src/rust");
    let unpacked = sysroot.join("lib/rustlib/src/unpacked");
    remove(&unpacked)?;
    fs::create_dir_all(&unpacked).with_context(|| format!("create {}", unpacked.display()))?;
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
    remove(&place)?;
    let source = unpacked.join(format!("usr/src/rustc-{version}"));
    fs::rename(&source, &place)
        .with_context(|| format!("move {} to {}", source.display(), place.display()))?;
    remove(&unpacked)?;
    remove(&apt.directory)
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rustc_version() -> Result<String> {
    let printed = shell::output(Command::new("rustc").arg("--version").current_dir(cargo::root()))?;
    let version = printed.split_whitespace().nth(1);
    version.map(str::to_owned).with_context(|| format!("no version in what rustc says: {printed:?}"))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// The Debian mirror that this machine's apt is set up with: its security updates come from another.
fn mirror() -> Result<String> {
    let directory = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = directory.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    // As apt does: others are backups, or switched off.
    let files = files.filter(|file| file.extension().is_some_and(|kind| kind == "list" || kind == "sources"));
    let sources: String =
        files.filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n");
    let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut uris = lines.flat_map(str::split_whitespace).filter(|word| word.contains("://"));
    let mirror = uris.find(|uri| uri.contains("debian") && !uri.contains("security"));
    mirror.map(str::to_owned).context("/etc/apt names no Debian mirror to take rust-src from")
}

/// apt-get with package sources, lists and cache of its own.
struct PrivateApt {
    directory: PathBuf,
}

impl PrivateApt {
    fn new(directory: PathBuf) -> Result<Self> {
        remove(&directory)?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("create {}", directory.display()))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror()?);
        fs::write(directory.join("sources.list"), source).context("write the private sources.list")?;
        Ok(Self { directory })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.current_dir(&self.directory).arg("--quiet=2");
        for (option, value) in [
            ("Dir::Etc::SourceList", self.directory.join("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", self.directory.join("lists")),
            ("Dir::Cache", self.directory.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        // Root's apt would download as a user who may not enter the checkout.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }

    fn downloaded(&self) -> Result<PathBuf> {
        let entries =
            fs::read_dir(&self.directory).with_context(|| format!("read {}", self.directory.display()))?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get said that it downloaded rust-src, but no package is there")
    }
}
