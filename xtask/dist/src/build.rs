//! The program, built so that the same source gives the same bytes on every machine with the pinned toolchain.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xtask_tools::{cargo, shell, source_date};

use crate::targets::Target;

/// Where something is built.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The top of the source.
    pub(crate) source: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
}

/// In the workspace's Cargo.toml.
const PROFILE: &str = "shipped";

/// Builds the program with the list of its packages in it (`cargo auditable`); gives its path.
pub(crate) fn build(target: &Target, place: &Place) -> Result<PathBuf> {
    let (triple, variable) = (target.triple, target.triple.to_uppercase().replace('-', "_"));
    let paths = Paths::of(place)?;
    let mut build =
        cargo::cargo(&["auditable", "build", "--profile", PROFILE, "--locked", "--package", "proxytrace"]);
    build.args(["--target", triple, "--target-dir"]).arg(&place.target).current_dir(&place.source);
    build.env(format!("CARGO_TARGET_{variable}_LINKER"), linker(target, place)?);
    build.env("CARGO_ENCODED_RUSTFLAGS", paths.flags("--remap-path-prefix").join("\x1f"));
    build.env(format!("CC_{triple}"), target.c_compiler);
    build.env(format!("CFLAGS_{triple}"), paths.flags("-ffile-prefix-map").join(" "));
    // Nothing in the program says when it was built. With the time of a commit, each would have it built again.
    build.env(source_date::VARIABLE, "0");
    shell::run(&mut build)?;
    Ok(place.target.join(triple).join(PROFILE).join("proxytrace"))
}

/// That of the toolchain: it links for every architecture, and is the same on every machine.
fn linker(target: &Target, place: &Place) -> Result<PathBuf> {
    if target.is_static_pie {
        return Ok("rust-lld".into());
    }
    let directory = place.target.join("dist-linker");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // rustc tells from the name what kind of linker it is.
    let path = directory.join("ld.lld");
    fs::write(&path, include_str!("static-pie.sh")).with_context(|| format!("write {}", path.display()))?;
    let executable = Permissions::from_mode(0o755);
    fs::set_permissions(&path, executable).with_context(|| format!("make {} a program", path.display()))?;
    Ok(path)
}

/// Paths of this machine that would be in the program, in the names of source files, and what is there instead.
#[derive(Debug)]
pub(crate) struct Paths(Vec<(PathBuf, String)>);

impl Paths {
    pub(crate) fn of(place: &Place) -> Result<Self> {
        let rustc =
            |args: &[&str]| shell::output(Command::new("rustc").args(args).current_dir(&place.source));
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        let described = rustc(&["--version", "--verbose"])?;
        let commit = described.lines().find_map(|line| line.strip_prefix("commit-hash: "));
        let commit = commit.context("rustc does not say which commit it was built from")?;
        let home =
            env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
        // Of several that fit, rustc takes the last: the target directory may be in the source.
        Ok(Self(vec![
            (home.context("set CARGO_HOME, or HOME")?, "/cargo".to_owned()),
            // The same as where the library's source is not installed.
            (sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
            (place.source.clone(), "/proxytrace".to_owned()),
            (place.target.clone(), "/target".to_owned()),
        ]))
    }

    /// The paths of this machine.
    pub(crate) fn here(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| &**path)
    }

    fn flags(&self, option: &str) -> Vec<String> {
        self.0.iter().map(|(from, to)| format!("{option}={}={to}", from.display())).collect()
    }
}
