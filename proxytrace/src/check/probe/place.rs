//! Whose place is taken to connect: which network, files and rights.

use std::{fs, io, os::fd::AsFd as _};

use anyhow::Context as _;
use nix::{
    sched::{CloneFlags, setns},
    unistd::{Gid, Group, Uid, User as Account, chroot, initgroups, setgroups, setresgid, setresuid},
};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::check::user::User;

/// Whose place is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// That of a process: its network, files, root and user.
    OfProcess(u32),
    /// That of a worker of nginx.
    OfWorker {
        /// The master, where it runs: its network, files and root are taken.
        master: Option<u32>,
        /// The user that its workers become. Only root can start them as another.
        user: Option<User>,
    },
}

/// Goes where that is and becomes its user, for good. This process has one thread.
///
/// # Errors
/// That takes privileges which this process does not have, or there is no such process or user.
pub(super) fn take(place: &Place) -> anyhow::Result<()> {
    match place {
        Place::OfProcess(pid) => {
            let process =
                Process::new(pid.cast_signed()).with_context(|| format!("look at process {pid}"))?;
            let status = process.status().with_context(|| format!("see whose process {pid} is"))?;
            go_to(&process)?;
            let groups: Vec<_> = status.groups.into_iter().map(Gid::from_raw).collect();
            become_user(Uid::from_raw(status.euid), Gid::from_raw(status.egid), || setgroups(&groups))
        }
        Place::OfWorker { master, user } => {
            if let Some(pid) = master {
                let process =
                    Process::new(pid.cast_signed()).with_context(|| format!("look at process {pid}"))?;
                go_to(&process)?;
            }
            match user.as_ref().filter(|_| Uid::effective().is_root()) {
                Some(user) => become_worker(user),
                None => Ok(()),
            }
        }
    }
}

fn go_to(process: &Process) -> anyhow::Result<()> {
    let pid = process.pid();
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
    Ok(())
}

/// By the accounts of where one is by now, as nginx looks them up.
fn become_worker(user: &User) -> anyhow::Result<()> {
    let User { name, group } = user;
    let account = Account::from_name(name)?.with_context(|| format!("there is no user {name}"))?;
    let group = group.as_ref().unwrap_or(name);
    let found = match Group::from_name(group)? {
        // As nginx's `configure` finds it.
        None if group == "nobody" => Group::from_name("nogroup")?,
        found => found,
    };
    let gid = found.with_context(|| format!("there is no group {group}"))?.gid;
    let name = std::ffi::CString::new(name.as_str())?;
    become_user(account.uid, gid, || initgroups(&name, gid))
}

fn become_user(uid: Uid, gid: Gid, set_groups: impl FnOnce() -> nix::Result<()>) -> anyhow::Result<()> {
    if uid == Uid::current() && gid == Gid::current() {
        return Ok(());
    }
    set_groups().and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid)).with_context(
        || format!("become user {uid}, as the proxy's workers; that takes CAP_SETUID and CAP_SETGID"),
    )
}

fn is_same(file: &fs::File, path: &str) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (one, other) = (file.metadata()?, fs::metadata(path)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
