//! `cargo xtask image`: the container image, run by podman. `cargo xtask cluster`: the chart, installed by Helm on a real cluster of one node.
//!
//! Both happen in a Debian of their own (`lab.rs`), because this machine's engines, if it has any, are none of our business.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who typed the command")]

mod cluster;
mod departed;
mod image;
mod kubernetes;
mod lab;
mod oci;
mod operator;
mod proxies;
mod release;
mod secured;
mod smoke;
mod static_pods;
mod tools;
mod wait;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use xtask_tools::cargo;

use self::lab::{Lab, Network, Root};

pub use self::tools::Tools;

/// Builds the image of each architecture whose program `cargo xtask dist` has built, and runs this machine's.
///
/// # Errors
/// The image is not as it must be, or does not trace and name a proxy of the host.
pub fn image() -> Result<()> {
    let root = Root::made(&work()?)?;
    let lab = Lab::enter(&root, Network::Own)?;
    let image = image::build(&lab)?;
    image::try_with_podman(&lab, &image)
}

/// What is tried with the chart.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Args {
    /// Only its pod, run by a kubelet alone, in a machine that QEMU emulates: with AppArmor's default profile and without
    #[arg(long)]
    static_pods: bool,
}

/// Installs the chart on a cluster with Helm, looks at what it does, upgrades it and takes it away again.
///
/// # Errors
/// Something is not as it must be, or the cluster could not be run.
pub fn cluster(Args { static_pods }: Args) -> Result<()> {
    let work = work()?;
    let root = Root::made(&work)?;
    kubernetes::build(&root)?;
    let lab = Lab::enter(&root, Network::Own)?;
    let image = image::build(&lab)?;
    if static_pods { static_pods::run(&lab, &image) } else { smoke::run(&lab, &image) }
}

/// Where everything is kept that these commands make, below the target directory.
fn work() -> Result<PathBuf> {
    let work = cargo::target_dir()?.join("cluster");
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    Ok(work)
}
