//! Gives up what a trace no longer needs once it runs: capabilities, new privileges, most system calls.
//!
//! docs/security.md says what is kept, and why.

mod capabilities;
mod seccomp;

#[cfg(test)]
mod docs;

use std::fmt;

use anyhow::Context as _;
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{Group, geteuid, gettid},
};
use procfs::process::{Process, Task};

/// The group that is shared with, where the host has it: its members may ask the agent, and read what it remembers.
pub const GROUP: &str = "proxytrace";

/// The id of [`GROUP`], for root to give files to. An agent with a user of its own makes them with that group anyway.
#[must_use]
pub fn group() -> Option<u32> {
    if !geteuid().is_root() {
        return None;
    }
    Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw())
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    capabilities: Vec<String>,
    /// How many system calls may be used; `None` where the kernel did not take the list.
    system_calls: Option<usize>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.capabilities {
            [] => f.write_str("keeps no capability")?,
            names => write!(f, "keeps {} only", names.join(" and "))?,
        }
        match self.system_calls {
            Some(count) => write!(f, ", may use {count} system calls"),
            None => f.write_str(", may use every system call"),
        }
    }
}

/// Gives up every capability that is not needed while a trace runs, for good: of this thread, and of those that it starts
/// from now on. `can_read` tries whether the kernel's maps can be read: some kernels ask for a capability to read what is
/// open already.
///
/// # Errors
/// Another thread holds a capability, which only that thread can give up; or the kernel refused.
pub fn lower(can_read: impl Fn() -> bool) -> anyhow::Result<Lowered> {
    let held = |task: Task| task.status().map(|status| (task.tid, status.capprm));
    let threads =
        Process::myself()?.tasks()?.map(|task| task.and_then(held)).collect::<Result<Vec<_>, _>>()?;
    for (tid, capabilities) in threads {
        let is_this = tid == gettid().as_raw();
        anyhow::ensure!(
            is_this || capabilities == 0,
            "give up privileges: thread {tid} holds capabilities {capabilities:#x}; please report this"
        );
    }
    give_up(can_read).context("give up privileges; --keep-privileges leaves that out")
}

/// Gives up every capability of this thread, for good: for one that only waits, or uses what is open.
///
/// # Errors
/// The kernel refused.
pub fn drop_all() -> anyhow::Result<()> {
    prctl::set_no_new_privs().context("set no_new_privs")?;
    capabilities::drop_all().context("give up privileges")
}

/// A process whose capabilities are lowered. What else it starts now has no more than they allow.
#[derive(Debug)]
#[must_use]
pub struct Lowered {
    capabilities: Vec<String>,
}

impl Lowered {
    /// Limits the system calls of every thread, and logs what is kept. No thread can be started after that.
    pub fn confine(self) {
        let system_calls = match seccomp::confine(seccomp::TRACE, seccompiler::apply_filter_all_threads) {
            Ok(count) => Some(count),
            Err(error) => {
                tracing::warn!("system calls are not limited: {error}");
                None
            }
        };
        tracing::info!("{}", Kept { capabilities: self.capabilities, system_calls });
    }
}

/// Gives up, for good, what reading the configurations of other processes does not need.
///
/// # Errors
/// The kernel refused.
pub fn lower_to_read() -> anyhow::Result<()> {
    keep_others_out()?;
    prctl::set_no_new_privs().context("set no_new_privs")?;
    capabilities::lower_to_read().context("give up privileges")
}

/// Has this process keep its capabilities when it becomes another user, until [`lower_to_owned`].
///
/// # Errors
/// The kernel refused.
pub fn keep_across_users() -> anyhow::Result<()> {
    prctl::set_keepcaps(true).context("keep capabilities across a change of users")
}

/// Gives up, for good, what it does not take to enter a user namespace.
///
/// # Errors
/// The kernel refused.
pub fn only_to_enter_a_user_namespace() -> anyhow::Result<()> {
    capabilities::lower_to_enter_a_user_namespace().context("give up capabilities")
}

/// Gives up, for good, everything that is not needed to read files as the user that this process has become, and to look
/// names up. Where that user `reads_everything`, so does this process.
///
/// # Errors
/// The kernel refused.
pub fn lower_to_owned(reads_everything: bool) -> anyhow::Result<()> {
    capabilities::lower_to_owned(reads_everything).context("give up capabilities")?;
    prctl::set_keepcaps(false).context("give up capabilities with the next change of users")?;
    // The change of users has the kernel forget both.
    keep_others_out()?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("ask to be ended with the process that asks")?;
    prctl::set_no_new_privs().context("set no_new_privs")?;
    seccomp::confine(seccomp::READER, seccompiler::apply_filter).context("limit system calls")?;
    Ok(())
}

/// Keeps other processes of the same user from looking into this one, and it from leaving an image of its memory behind.
///
/// # Errors
/// The kernel refused.
pub fn keep_others_out() -> anyhow::Result<()> {
    prctl::set_dumpable(false).context("keep others from looking into this process")
}

fn give_up(can_read: impl Fn() -> bool) -> anyhow::Result<Lowered> {
    keep_others_out()?;
    prctl::set_no_new_privs().context("set no_new_privs")?;
    let mut capabilities: Vec<_> =
        capabilities::lower(can_read)?.into_iter().map(|capability| capability.to_string()).collect();
    capabilities.sort();
    Ok(Lowered { capabilities })
}

#[cfg(test)]
mod tests {
    use super::Kept;

    #[test]
    fn what_is_kept_is_said_in_words() {
        let check = |capabilities: &[&str], system_calls: Option<usize>, expected: &str| {
            let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(Kept { capabilities, system_calls }.to_string(), expected);
        };
        check(&["CAP_SYS_PTRACE"], Some(50), "keeps CAP_SYS_PTRACE only, may use 50 system calls");
        check(&[], Some(50), "keeps no capability, may use 50 system calls");
        check(
            &["CAP_BPF", "CAP_SYS_PTRACE"],
            None,
            "keeps CAP_BPF and CAP_SYS_PTRACE only, may use every system call",
        );
    }
}
