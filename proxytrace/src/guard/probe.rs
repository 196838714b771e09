//! Connects to every address as the proxy would: from its network, below its root, as the user of its workers. A process of
//! its own does that, which ends afterwards: nothing leads back.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, chroot, setgroups, setresgid, setresuid},
};
use procfs::process::Process;
use proxytrace_ebpf::outcome::Outcome;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::probed::Probed;
use crate::{
    check::{probe, resolve},
    declared::{Addresses, Routes},
};

/// The command that a guard starts for it.
pub const COMMAND: &str = "guard-probe";

/// For an address, where the connect timeout in force is not shorter.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What it is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// A process whose place and rights are taken.
    pid: u32,
    /// What leads where.
    routes: Routes,
    /// What names stand for; looked up there where that is missing.
    addresses: Option<Addresses>,
}

/// Connects to each address that something in `routes` leads to, as the process `pid` of `proxy` would.
///
/// # Errors
/// That was not possible.
pub(super) async fn all(
    proxy: &Arc<str>,
    pid: u32,
    routes: Routes,
    addresses: Option<Addresses>,
) -> anyhow::Result<Vec<Probed>> {
    let request = serde_json::to_vec(&Request { pid, routes, addresses })?;
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
    let probed: Vec<Probed> = serde_json::from_slice(&output.stdout)?;
    let complete = |probed: Probed| {
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == probed.outcome);
        let meaning = outcome.map_or_else(String::new, |outcome| outcome.words().to_owned());
        Probed { proxy: Arc::clone(proxy), meaning, ..probed }
    };
    Ok(probed.into_iter().map(complete).collect())
}

/// That process: reads a request from standard input, and writes what came of it.
///
/// # Errors
/// The place of the other process could not be taken.
pub fn serve() -> anyhow::Result<()> {
    let Request { pid, routes, addresses } = serde_json::from_reader(io::stdin().lock())?;
    take_place(pid)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probes = runtime.block_on(async {
        let addresses = match addresses {
            Some(addresses) => addresses,
            None => resolve::all(&routes).await,
        };
        probe::all(&routes, &addresses, TIMEOUT).await
    });
    runtime.shutdown_background();
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &probes)?;
    Ok(out.flush()?)
}

/// Goes where the process is and becomes its user, for good. This process has one thread.
fn take_place(pid: u32) -> anyhow::Result<()> {
    let process = Process::new(pid.cast_signed()).with_context(|| format!("look at process {pid}"))?;
    let status = process.status().with_context(|| format!("see whose process {pid} is"))?;
    let open =
        |name: &str| process.open_relative(name).with_context(|| format!("open {name} of process {pid}"));
    let root = open("root")?;
    // Where it is the same, to enter it would take privileges for nothing.
    for (name, flag) in [("net", CloneFlags::CLONE_NEWNET), ("mnt", CloneFlags::CLONE_NEWNS)] {
        let namespace = open(&format!("ns/{name}"))?;
        if !is_same(&namespace, &format!("/proc/self/ns/{name}"))? {
            setns(namespace.as_fd(), flag).with_context(|| {
                format!("enter the {name} namespace of process {pid}; that takes CAP_SYS_ADMIN")
            })?;
        }
    }
    if !is_same(&root, "/")? {
        nix::unistd::fchdir(root.as_fd()).context("go to the proxy's root")?;
        chroot(".").context("take the proxy's root; that takes CAP_SYS_CHROOT")?;
    }
    let (uid, gid) = (Uid::from_raw(status.euid), Gid::from_raw(status.egid));
    if uid != Uid::current() || gid != Gid::current() {
        let groups: Vec<_> = status.groups.into_iter().map(Gid::from_raw).collect();
        let become_user = || {
            setgroups(&groups)?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)
        };
        become_user().with_context(|| {
            format!("become user {uid}, as the proxy's workers; that takes CAP_SETUID and CAP_SETGID")
        })?;
    }
    Ok(())
}

fn is_same(file: &fs::File, path: &str) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (one, other) = (file.metadata()?, fs::metadata(path)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
