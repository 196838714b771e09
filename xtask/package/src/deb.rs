//! The package: what goes into it besides files of the checkout, and cargo-deb, which makes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask_tools::{cargo, debian, shell, source_date};

use crate::copyright;

/// What a package is for.
pub(crate) struct Target {
    /// As Debian calls it.
    pub(crate) arch: &'static str,
    /// As `cargo xtask dist` calls it.
    dist: &'static str,
    /// As rustc calls it.
    triple: &'static str,
}

pub(crate) const TARGETS: &[Target] = &[
    Target { arch: "amd64", dist: "x86_64-linux-musl", triple: "x86_64-unknown-linux-musl" },
    Target { arch: "arm64", dist: "aarch64-linux-musl", triple: "aarch64-unknown-linux-musl" },
];

/// Where `proxytrace/Cargo.toml` finds what is not in the checkout, below the target directory: cargo-deb puts that of an
/// architecture before a path that begins with `target/release/`.
const STAGE: &str = "release/package";

/// What is taken from what `cargo xtask dist` made.
const FROM_DIST: &[&str] = &["proxytrace", "man", "completions"];

/// Who answers for the package, as in `proxytrace/Cargo.toml`.
const MAINTAINER: &str = "proxytrace maintainers <proxytrace@users.noreply.github.com>";

/// A line more for the default configuration of a newer package.
const NEWER_DEFAULT: &str = "\n# A default of the newer package.\n";

impl Target {
    /// The directory that `cargo xtask dist` made, if it did.
    fn made(&self, target: &Path) -> Option<PathBuf> {
        let directory = target.join("dist").join(format!("proxytrace-{}-{}", version(), self.dist));
        directory.join("proxytrace").is_file().then_some(directory)
    }
}

/// Makes a package of everything that `cargo xtask dist` made; gives where each is.
pub(crate) fn make() -> Result<Vec<(&'static Target, PathBuf)>> {
    let directory = cargo::target_dir()?;
    let made = TARGETS.iter().filter_map(|target| Some((target, target.made(&directory)?)));
    let packages: Vec<_> = made
        .map(|(target, made)| Ok((target, make_for(target, &made, &directory)?)))
        .collect::<Result<_>>()?;
    if packages.is_empty() {
        bail!("there is no program in {}: run `cargo xtask dist`", directory.join("dist").display());
    }
    Ok(packages)
}

fn make_for(Target { arch, triple, .. }: &Target, made: &Path, directory: &Path) -> Result<PathBuf> {
    let stage = directory.join(triple).join(STAGE);
    debian::remove(&stage)?;
    fs::create_dir_all(&stage).with_context(|| format!("create {}", stage.display()))?;
    let mut copy = Command::new("cp");
    copy.arg("--recursive").args(FROM_DIST.iter().map(|name| made.join(name))).arg(&stage);
    shell::run(&mut copy)?;
    let committed = source_date::seconds()?;
    write(&stage.join("copyright"), &copyright::text(cargo::root())?)?;
    write(&stage.join("changelog.Debian"), &changelog(&rfc_date(&committed)?))?;
    let notices = stage.join("THIRD-PARTY-NOTICES.md");
    fs::copy(cargo::root().join("THIRD-PARTY-NOTICES.md"), &notices).context("copy the notices")?;
    compress([notices, stage.join("changelog.Debian")].into_iter().chain(files_in(&stage.join("man"))?))?;

    let output = directory.join("dist").join(format!("proxytrace_{}-1_{arch}.deb", version()));
    let mut cargo_deb =
        cargo::cargo(&["deb", "--quiet", "--no-build", "--no-strip", "--package", "proxytrace"]);
    cargo_deb.args(["--target", triple, "--output"]).arg(&output).env(source_date::VARIABLE, committed);
    shell::run(&mut cargo_deb)?;
    Ok(output)
}

/// Makes a package of this one whose version is higher, and whose default configuration is another: what an upgrade meets.
pub(crate) fn newer(package: &Path, place: &Path, work: &Path) -> Result<()> {
    let unpacked = work.join("newer");
    debian::remove(&unpacked)?;
    shell::run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&unpacked))?;
    let control = unpacked.join("DEBIAN/control");
    let text = read(&control)?;
    let newer = text.replace(&format!("Version: {}-1\n", version()), &format!("Version: {}-2\n", version()));
    if newer == text {
        bail!("{} is not of version {}-1", package.display(), version());
    }
    write(&control, &newer)?;
    let config = unpacked.join("etc/proxytrace/agent.toml");
    write(&config, &(read(&config)? + NEWER_DEFAULT))?;
    shell::run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&unpacked).arg(place))?;
    debian::remove(&unpacked)
}

/// The version of the program; the package's has `-1` behind it.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// One entry: what changes for users is in CHANGELOG.md.
fn changelog(date: &str) -> String {
    let version = version();
    format!(
        "proxytrace ({version}-1) stable; urgency=medium

  * Version {version}. What changes for users is described in
    /usr/share/doc/proxytrace/changelog.gz.

 -- {MAINTAINER}  {date}
"
    )
}

fn rfc_date(seconds: &str) -> Result<String> {
    let mut date = Command::new("date");
    let printed = shell::output(date.args(["--utc", "--rfc-email", &format!("--date=@{seconds}")]))?;
    Ok(printed.trim().to_owned())
}

/// Compresses files as Debian wants manuals and changelogs to be. cargo-deb does so with those of the checkout alone.
fn compress(files: impl Iterator<Item = PathBuf>) -> Result<()> {
    shell::run(Command::new("gzip").args(["-9", "-n"]).args(files))
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
