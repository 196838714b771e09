//! Who is traced: proxies, their processes and their generations.
//!
//! Kept in the kernel, so that no connect is missed between a fork and userspace noticing it.

use proxytrace_ebpf::abi::{Event, Loss, NAME_ENTERS, Place, Process, Proxy, exit_signal, proxy_id};

use crate::{
    connect, events,
    kernel::{self, Access, Task},
    maps::{NAMES, PROCESSES, PROXIES},
};

const SIGHUP: i32 = 1;
const SIGUSR2: i32 = 12;

/// The current process, if it is traced.
#[inline(always)]
pub(crate) fn current() -> Option<(u32, Process)> {
    let pid = kernel::current_process();
    find(pid).map(|process| (pid, process))
}

/// A traced process forks: the child is of its proxy and its generation. After a reload was asked for, this is how it is
/// seen to be accepted: a master that took the new configuration forks new workers, before anything else. Two programs see it,
/// and the child does not run before both have.
#[inline(always)]
pub(crate) fn forked<A: Access>(parent: Task<A>, child: Task<A>) {
    let (pid, is_master) = (child.process(), parent.blocks(SIGHUP));
    if pid != child.thread() {
        return; // a new thread
    }
    let parent = parent.process();
    let Some(mut process) = find(parent) else { return };
    if find(pid).is_some_and(|known| known.parent == parent && known.generation == process.generation) {
        return;
    }
    events::seen(Place::Fork);
    if process.reload_asked_ns != 0 {
        process.generation = raise_generation(parent, process);
    }
    let flags = process.flags & !Process::OWN | Process::WORKER;
    enter(pid, Process { parent, children: 0, reload_asked_ns: 0, flags, ..process });
    // A program's way into the background is a fork as well: of a process that does not act as a master yet.
    if is_master || process.children > 0 {
        tell(Event::WORKER_STARTED, pid, process, 0, 0);
    }
    count_child(parent, 1);
}

/// The current process has become another program. Two programs see it.
#[inline(always)]
pub(crate) fn executed() {
    let pid = kernel::current_process();
    // SAFETY: copied at once; userspace fills the map before this program is attached.
    let name = NAMES.get_ptr(&kernel::current_name()).map(|role| unsafe { *role });
    let (process, exec_id) = (find(pid), Task::current().exec_id());
    if let Some(process) = process {
        if process.exec_id == exec_id {
            return;
        }
        events::seen(Place::Exec);
    }
    match (process, name) {
        (None, Some(NAME_ENTERS)) => {
            let now_ns = kernel::now_ns();
            let proxy = proxy_id(pid, now_ns);
            let owner = Task::current().owner();
            if PROXIES.insert(&proxy, &Proxy { owner, ..Proxy::ZERO }, 0).is_err() {
                events::lose(Loss::ProxyTableFull);
            }
            enter(pid, Process { proxy, owner, flags: Process::NAMED, ..Process::ZERO });
            events::tell(Event { time_ns: now_ns, proxy, pid, kind: Event::ENTERED, ..Event::ZERO });
        }
        // The same program over again: nginx's new master in a binary upgrade (USR2), a HAProxy that reloads.
        (Some(process), Some(_)) if process.flags & Process::NAMED != 0 => {
            if process.children == 0 {
                raise_generation(pid, process);
            } else {
                executed_anew(pid, process);
            }
        }
        (Some(process), Some(_)) => enter(pid, Process { flags: process.flags | Process::NAMED, ..process }),
        (Some(process), None) if process.flags & Process::KEPT == 0 => leave(pid, process),
        (Some(process), None) => enter(pid, Process { flags: process.flags & !Process::NAMED, ..process }),
        _ => {}
    }
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { (*own).exec_id = exec_id };
    }
}

/// A master has executed its program anew, as HAProxy's does: for a reload, and then it forks a worker; and once more, when
/// it has forked or has refused the new configuration, only to wait.
#[inline(always)]
fn executed_anew(pid: u32, process: Process) {
    let has = |flag| process.flags & flag != 0;
    let is_open = process.reload_asked_ns != 0;
    let reload_asked_ns = if is_open && has(Process::EXECUTED) {
        reject(pid, process);
        0
    } else if is_open {
        process.reload_asked_ns // by SIGHUP
    } else if has(Process::TOLD_TO_EXECUTE) || !has(Process::FORKED) {
        let now_ns = kernel::now_ns();
        tell(Event::RELOAD_ASKED, pid, process, 0, now_ns);
        now_ns
    } else {
        0
    };
    let executed = if reload_asked_ns == 0 { 0 } else { Process::EXECUTED };
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe {
            (*own).reload_asked_ns = reload_asked_ns;
            (*own).flags = process.flags & !Process::OWN | executed;
        }
    }
}

/// A signal is about to be handled by the current process. A SIGHUP to a proxy's master asks for a reload; new workers
/// are forked after this.
///
/// Whether a reload was rejected shows at the next signal, at the latest. nginx's master holds SIGHUP back from the moment
/// that it handles one until it waits for signals again, in sigsuspend(). So a signal that comes while SIGHUP is not held
/// back proves that the master is done with the reload, and it has forked nobody. The worker that takes the place of a
/// crashed one is forked after such a signal (SIGCHLD), and is not mistaken for one of a new configuration.
///
/// Two programs see it, `program` tells which: the one that has not seen what is being delivered comes second.
#[inline(always)]
pub(crate) fn signalled(signal: i32, program: u32) {
    let pid = kernel::current_process();
    let Some(own) = PROCESSES.get_ptr_mut(&pid) else { return };
    if signal == SIGHUP {
        events::seen(Place::Signal);
    }
    // SAFETY: a value of the map, of the process that runs this.
    let process = unsafe {
        let seen = (*own).flags & (Process::SIGNALLED | Process::SIGNALLED_AGAIN);
        (*own).flags |= program;
        if seen != 0 && seen & program == 0 {
            return;
        }
        (*own).flags &= !(Process::SIGNALLED | Process::SIGNALLED_AGAIN) | program;
        *own
    };
    let master = Task::current();
    let waits = process.flags & Process::WAITS_FOR_SIGNALS != 0;
    if process.reload_asked_ns != 0 && waits && !master.blocks(SIGHUP) {
        reject(pid, process);
    }
    if signal == SIGUSR2
        && let Some(own) = PROCESSES.get_ptr_mut(&pid)
    {
        // SAFETY: as below.
        unsafe { (*own).flags |= Process::TOLD_TO_EXECUTE };
    }
    if signal == SIGHUP && process.children > 0 {
        let waits = if master.will_block(SIGHUP) { Process::WAITS_FOR_SIGNALS } else { 0 };
        let now_ns = kernel::now_ns();
        if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
            // SAFETY: a value of the map, of the process that runs this; only count_child() writes to it elsewhere, to
            // another member.
            unsafe {
                (*own).reload_asked_ns = now_ns;
                (*own).flags = process.flags & !Process::WAITS_FOR_SIGNALS | waits;
            }
        }
        tell(Event::RELOAD_ASKED, pid, process, waits, now_ns);
    }
}

/// A thread exits, perhaps the last of its process.
#[inline(always)]
pub(crate) fn exited<A: Access>(task: Task<A>) {
    let pid = task.process();
    let Some(process) = find(pid) else { return };
    events::seen(Place::Exit);
    let status = task.exit_status();
    let was_killed = exit_signal(status) != 0;
    connect::thread_exited((u64::from(pid) << 32) | u64::from(task.thread()), was_killed);
    if !task.is_last_of_process() {
        return;
    }
    leave(pid, process);
    if process.flags & Process::WORKER != 0 {
        if was_killed && let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy) {
            // SAFETY: a value of the map.
            kernel::add(unsafe { &raw mut (*proxy).crashes }, 1);
        }
        tell(Event::WORKER_EXITED, pid, process, status, 0);
    }
}

#[inline(always)]
fn find(pid: u32) -> Option<Process> {
    // SAFETY: copied at once. An entry is removed only when its process exits or executes, which no other thread of
    // it outlives, and the kernel hands its slot to another process at the earliest after that.
    PROCESSES.get_ptr(&pid).map(|process| unsafe { *process })
}

#[inline(always)]
fn enter(pid: u32, process: Process) {
    if PROCESSES.insert(&pid, &process, 0).is_err() {
        events::lose(Loss::ProcessTableFull);
    }
}

#[inline(always)]
fn leave(pid: u32, process: Process) {
    let _ = PROCESSES.remove(&pid);
    count_child(process.parent, -1);
}

#[inline(always)]
fn count_child(parent: u32, change: i64) {
    if let Some(process) = PROCESSES.get_ptr_mut(&parent) {
        // SAFETY: a value of the map.
        kernel::add(unsafe { &raw mut (*process).children }, change.cast_unsigned());
        if change > 0 {
            // SAFETY: a value of the map; a process forks one child at a time.
            unsafe { (*process).flags = (*process).flags & !Process::WORKER | Process::FORKED };
        }
    }
}

/// The process and its proxy run a new configuration. Gives the generation.
#[inline(always)]
fn raise_generation(pid: u32, process: Process) -> u32 {
    let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy) else { return process.generation };
    let now_ns = kernel::now_ns();
    // SAFETY: a value of the map. Only a proxy's master comes here, so nothing races with the addition.
    let generation = unsafe {
        (*proxy).reloaded_ns = now_ns;
        (*proxy).generation += 1;
        (*proxy).generation
    };
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe {
            (*own).generation = generation;
            (*own).reload_asked_ns = 0;
            (*own).flags &= !(Process::WORKER | Process::EXECUTED);
        }
    }
    tell(Event::RELOADED, pid, Process { generation, ..process }, 0, process.reload_asked_ns);
    generation
}

/// The reload that was asked for last has not been accepted.
#[inline(always)]
fn reject(pid: u32, process: Process) {
    if let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy) {
        // SAFETY: a value of the map.
        kernel::add(unsafe { &raw mut (*proxy).rejected }, 1);
    }
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { (*own).reload_asked_ns = 0 };
    }
    tell(Event::RELOAD_REJECTED, pid, process, 0, process.reload_asked_ns);
}

/// Tells of something in the life of a process, that began at `since_ns` where it is not 0.
#[inline(always)]
fn tell(kind: u32, pid: u32, process: Process, what: u32, since_ns: u64) {
    let time_ns = kernel::now_ns();
    let duration_ns = if since_ns == 0 { 0 } else { time_ns.saturating_sub(since_ns) };
    let Process { proxy, generation, .. } = process;
    events::tell(Event { time_ns, proxy, duration_ns, generation, pid, kind, what, ..Event::ZERO });
}
