//! Starts what makes namespaces and processes (a show), waits for it and leaves nothing of it behind: not after a failure,
//! not after Ctrl-C. It outlives failures, so unlike the other helpers it returns its own.

use std::env;
use std::os::unix::process::CommandExt;
use std::panic;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::child::as_pid;
use crate::netns::Netns;

/// Runs this very program with the same arguments and `--part show`, and cleans up after it. `name` is what the show is called.
///
/// # Errors
/// It failed, or was interrupted.
pub fn run(name: &str) -> Result<()> {
    let own = env::current_exe().context("find out where this program is")?;
    // A process group of its own, which everything that the show starts belongs to.
    let mut show = Command::new(own);
    show.args(env::args_os().skip(1)).args(["--part", "show"]).process_group(0);
    let mut show = show.spawn().context("start the show")?;
    let group = as_pid(show.id());
    kill_when_interrupted(group)?;

    // Not reaped yet: until then its number, which is also the group's, belongs to nobody else.
    waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).context("wait for the show")?;
    // Those of the group that are left, if any.
    let _ = killpg(group, Signal::SIGKILL);
    let status = show.wait().context("wait for the show")?;
    // The first namespace that a process makes takes those with it whose makers are gone.
    drop(Netns::new());

    match status.code() {
        Some(0) => Ok(()),
        Some(_) => bail!("the {name} failed, for the reason above"),
        None => bail!("the {name} was interrupted; nothing of it is left behind"),
    }
}

/// The helpers of the stories report by panicking: in a show that is a failure like any other, not a bug to be traced.
#[allow(clippy::print_stderr, reason = "that is where panics are reported")]
pub fn report_panics_plainly(name: &'static str) {
    panic::set_hook(Box::new(move |panic| {
        eprintln!("{name}: {}", panic.payload_as_str().unwrap_or("failed without a reason"));
    }));
}

/// Signals that would end us end the group instead, and we go on to clean up.
fn kill_when_interrupted(group: Pid) -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("block signals")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    });
    Ok(())
}
