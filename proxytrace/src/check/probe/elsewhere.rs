//! Connects from another place. A process of its own does that, which ends afterwards: nothing leads back.

use std::{
    io::{self, Write as _},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    Manner, Probe,
    place::{self, Place},
};
use crate::{
    check::resolve,
    declared::{Addresses, Routes},
};

/// The hidden command that is started for it.
pub const COMMAND: &str = "probe-elsewhere";

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Whose place is taken.
    pub place: Place,
    /// What leads where.
    pub routes: Routes,
    /// What names stand for; looked up there where that is missing.
    pub addresses: Option<Addresses>,
    /// For an address, where the connect timeout in force is not shorter.
    pub each: Duration,
    /// What is done there.
    pub manner: Manner,
}

/// Connects to each address that something leads to.
///
/// # Errors
/// The place could not be taken.
pub async fn from(request: &Request) -> anyhow::Result<Vec<Probe>> {
    let request = serde_json::to_vec(request)?;
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the process that connects")?;
    let mut stdin = child.stdin.take().context("the process that connects has no input")?;
    stdin.write_all(&request).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}", said.trim().trim_start_matches("proxytrace: "));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// That process: reads a request from standard input, and writes what came of it.
///
/// # Errors
/// The place could not be taken.
pub fn serve() -> anyhow::Result<()> {
    let Request { place, routes, addresses, each, manner } = serde_json::from_reader(io::stdin().lock())?;
    place::take(&place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probes = runtime.block_on(async {
        let addresses = match addresses {
            Some(addresses) => addresses,
            None => resolve::all(routes.hosts()).await,
        };
        super::all(&routes, &addresses, each, manner).await
    });
    runtime.shutdown_background();
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &probes)?;
    Ok(out.flush()?)
}
