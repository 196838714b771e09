//! Kubernetes' own programs, built from Debian's source package: no registry has them as binaries.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::lab::{Lab, Network, Root};

/// Where the programs are, as seen in the root.
pub(crate) const PROGRAMS: &str = "/lab/kubernetes";

/// The same from outside.
pub(crate) fn programs(root: &Root) -> PathBuf {
    root.work.join("kubernetes")
}

/// Builds them, if they are not there: some ten minutes.
pub(crate) fn build(root: &Root) -> Result<()> {
    let programs = programs(root);
    if programs.exists() {
        return Ok(());
    }
    eprintln!("cluster: building Kubernetes, once: ten minutes on two processors");
    let start = Instant::now();
    let source = root.path("/src");
    fs::create_dir_all(&source).context("create the directory of the source")?;
    fs::copy("/etc/resolv.conf", root.path("/etc/resolv.conf")).context("copy /etc/resolv.conf")?;
    Lab::enter(root, Network::Host)?.run("bash", &["-c", include_str!("kubernetes.sh"), "kubernetes"])?;
    fs::rename(source.join("unfinished"), &programs).context("name the finished programs")?;
    fs::remove_dir_all(&source).context("remove the source")?;
    eprintln!("cluster: built Kubernetes in {} s", start.elapsed().as_secs());
    Ok(())
}
