//! `cargo xtask dist`: the files that a release consists of, in `target/dist`.

#![allow(clippy::print_stdout, reason = "it talks to the person who typed the command")]

mod archive;
mod build;
mod program;
mod sbom;
mod source;
mod sums;
mod targets;
mod tree;

use std::env::consts;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xtask_tools::private_apt::remove;
use xtask_tools::{cargo, source_date};

use self::build::{Paths, Place};
use self::targets::{TARGETS, Target};

/// Options of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only for this architecture, as rustc calls it: x86_64 or aarch64
    #[arg(long, value_name = "ARCH", value_parser = target)]
    arch: Option<&'static Target>,

    /// Build each program once more, from a copy of the source in another directory, and fail where its bytes differ
    #[arg(long)]
    verify: bool,

    /// The secret key of minisign(1) to sign with; without one nothing is signed
    #[arg(long, value_name = "FILE", env = "MINISIGN_SECRET_KEY")]
    minisign_key: Option<PathBuf>,
}

fn target(arch: &str) -> Result<&'static Target, String> {
    let known = || TARGETS.iter().map(Target::arch).collect::<Vec<_>>().join(", ");
    Target::of(arch).ok_or_else(|| format!("expected one of {}", known()))
}

/// Builds, checks and packs.
///
/// # Errors
/// Something cannot be built, or is not fit to be shipped.
pub fn run(args: &Args) -> Result<()> {
    let dist = cargo::target_dir()?.join("dist");
    remove(&dist)?;
    let copied = dist.join("source");
    source::copy_to(&copied)?;
    let mut files = Vec::new();
    for target in TARGETS.iter().filter(|target| args.arch.is_none_or(|only| only.name == target.name)) {
        announce(&format!("build for {}", target.name));
        let program = shipped(target)?;
        if args.verify {
            announce(&format!("build for {} again", target.name));
            same(target, &program, &copied)?;
        }
        announce(&format!("pack for {}", target.name));
        let name = tree::name(target);
        tree::fill(&dist.join(&name), target, &program)?;
        let bill = format!("{name}.cdx.json");
        fs::write(dist.join(&bill), sbom::make(target, &copied)?).with_context(|| format!("write {bill}"))?;
        files.extend([archive::pack(&dist, &name, &source_date::seconds()?)?, bill]);
    }
    remove(&copied)?;
    print!("{}", sums::write(&dist, &files)?);
    match &args.minisign_key {
        Some(key) => sums::sign(&dist, key, tree::VERSION)?,
        None => announce("nothing is signed: give a key with --minisign-key"),
    }
    announce(&format!("done, in {}", dist.display()));
    Ok(())
}

/// Builds the program for this machine as it is shipped, and checks it; gives its path.
///
/// # Errors
/// It cannot be built, is not fit to be shipped, or none is shipped for this architecture.
pub fn own_program() -> Result<PathBuf> {
    shipped(Target::of(consts::ARCH).context("nothing is shipped for this architecture")?)
}

/// Builds the program in the checkout, and checks it.
fn shipped(target: &Target) -> Result<PathBuf> {
    let place = Place { source: cargo::root().to_owned(), target: cargo::target_dir()? };
    let path = build::build(target, &place)?;
    program::check(target, &read(&path)?, Paths::of(&place)?.here())
        .with_context(|| format!("{} cannot be shipped", path.display()))?;
    Ok(path)
}

/// Builds the program from a copy of the source, and compares it with the one that was built.
fn same(target: &Target, program: &Path, copied: &Path) -> Result<()> {
    let place = Place { source: copied.to_owned(), target: cargo::target_dir()?.join("dist-again") };
    let again = build::build(target, &place)?;
    ensure!(
        read(program)? == read(&again)?,
        "not reproducible: {} and {} differ",
        program.display(),
        again.display()
    );
    remove(&place.target)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn announce(what: &str) {
    println!("dist: {what}");
}
