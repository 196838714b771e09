//! Processes as /proc shows them.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::child::as_pid;
use crate::wait;

/// A process that is alive: a zombie is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
}

/// All the processes that have this name (`comm`).
pub(crate) fn named(name: &str) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter_map(|pid| read(pid, name)).collect()
}

/// Ends all of them, and those that do not want to as well.
pub(crate) fn end(name: &str) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for process in named(name) {
            let _ = kill(as_pid(process.pid), signal);
        }
        let gone = || named(name).is_empty().then_some(());
        if wait::within(Duration::from_secs(2), gone).is_some() {
            return;
        }
    }
}

/// The process, if it is alive and has that name. Its line is `PID (COMM) STATE PPID ...`.
fn read(pid: u32, name: &str) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (comm, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let alive = fields.next()? != "Z";
    (alive && comm == name).then_some(Process { pid, parent: fields.next()?.parse().ok()? })
}

/// Whether an nginx master is done with every signal that it was sent: it waits, holds none back, and none is pending.
pub(crate) fn waits_for_signals(master: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{master}/status")).unwrap_or_default();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let is_empty = |name: &str| field(name).is_some_and(|set| set.bytes().all(|digit| digit == b'0'));
    let sleeps = field("State").is_some_and(|state| state.starts_with('S'));
    sleeps && ["SigPnd", "ShdPnd", "SigBlk"].into_iter().all(is_empty)
}

/// How often the kernel has skipped (recursion) programs of such a type (`enum bpf_prog_type`) that a process has descriptors of, as
/// it counts that itself: 0 on kernels that do not (before 5.12; for kprobes, before 6.7).
pub(crate) fn recursion_misses(pid: u32, is_of_type: impl Fn(u64) -> bool) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let count = |info: String| {
        let figure =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        figure("prog_type:").is_some_and(&is_of_type).then(|| figure("recursion_misses:")).flatten()
    };
    infos.filter_map(count).sum()
}

/// Where in the kernel each thread of a process waits, and whatever else waits there uninterruptibly, which it may wait for: what root
/// can read, for the message of a story that fails.
pub(crate) fn waits_in(pid: u32) -> String {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = others.filter(|other| *other != pid).flat_map(threads).filter(|thread| thread.state == 'D');
    threads(pid)
        .into_iter()
        .chain(others)
        .map(|Thread { name, state, stack }| format!("{name} ({state})\n{stack}"))
        .collect()
}

/// A thread, as far as it says why nothing happens.
struct Thread {
    name: String,
    state: char,
    stack: String,
}

/// The threads of a process.
fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
        Some(Thread { name: format!("{name})"), state: rest.chars().next()?, stack })
    };
    tasks.filter_map(read).collect()
}
