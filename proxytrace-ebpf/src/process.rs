//! Who is traced: proxies, their processes and their generations.
//!
//! Kept in the kernel, so that no connect is missed between a fork and userspace noticing it.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use proxytrace_ebpf::{
    abi::{Event, Loss, NAME_ENTERS, Process, Share, exit_code, exit_signal, proxy_id},
    hooks::Place,
};

use crate::{
    counters::{count_loss, seen},
    events,
    helpers::{add, current_name, current_process, now_ns},
    kernel::{Access, Task},
    maps::{CALLS, EMPTY_PROXY, NAMES, ONLY_NEW, PROCESSES, PROXIES},
    shares,
};

const SIGHUP: i32 = 1;
const SIGSEGV: i32 = 11;
const SIGUSR2: i32 = 12;

/// The current process, if it is traced.
#[inline(always)]
pub(crate) fn current() -> Option<(u32, Process)> {
    let pid = current_process();
    find(pid).map(|process| (pid, process))
}

/// A traced process forks: the child is of its proxy and its generation. After a reload was asked for, this is how it is
/// seen to be accepted: a master that took the new configuration forks new workers, before anything else. Two programs see it,
/// and the child does not run before both have.
#[inline(always)]
pub(crate) fn forked<A: Access>(parent: Task<A>, child: Task<A>) {
    let pid = child.process();
    if pid != child.thread() {
        return; // a new thread
    }
    let (task, parent) = (parent, parent.process());
    let Some(mut process) = find(parent) else { return };
    let is_known = |known: Process| known.parent == parent && known.generation == process.generation;
    if process.refused_child == pid || find(pid).is_some_and(is_known) {
        return;
    }
    seen(Place::Fork);
    process.standing = acts(&process);
    if process.reload_asked_ns != 0 {
        process.generation = raise_generation(parent, process);
    }
    let has = |flags| process.flags & flags == flags;
    let is_helper = has(Process::HELPER) || has(Process::WORKER | Process::STARTED);
    // A program's way into the background is a fork as well: of a process that does not act as a master yet.
    let is_started = !is_helper && (has(Process::PARENT) || is_master(task));
    let role = match (is_helper, is_started) {
        (true, _) => Process::HELPER,
        (false, true) => Process::WORKER | Process::STARTED,
        (false, false) => Process::WORKER,
    };
    let flags = process.flags & !Process::OWN | role;
    let is_entered = enter(pid, Process { parent, reload_asked_ns: 0, refused_child: 0, flags, ..process });
    if let Some(own) = PROCESSES.get_ptr_mut(&parent) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe {
            (*own).flags |= Process::FORKED | Process::PARENT;
            if !is_helper {
                (*own).flags &= !Process::WORKER;
            }
            if !is_entered {
                (*own).refused_child = pid;
            }
        }
    }
    if is_started {
        report(Event::WORKER_STARTED, pid, process, 0, 0);
    }
}

/// Whether the current process, which forks its first child, acts as nginx's master: that holds SIGHUP back while it does not wait for
/// signals. Where all signals are held back it is the C library that does, in any fork() (musl, glibc from 2.41 on).
#[inline(always)]
fn is_master<A: Access>(parent: Task<A>) -> bool {
    parent.blocks(SIGHUP) && (!parent.blocks(SIGSEGV) || parent.is_titled_as_master())
}

/// The current process has become another program. Two programs see it.
#[inline(always)]
pub(crate) fn executed() {
    let pid = current_process();
    // SAFETY: copied at once; userspace fills the map before this program is attached.
    let name = NAMES.get_ptr(&current_name()).map(|role| unsafe { *role });
    let (process, exec_id) = (find(pid), Task::current().exec_id());
    if let Some(process) = process {
        if process.exec_id == exec_id {
            return;
        }
        seen(Place::Exec);
    }
    match (process, name) {
        // Not a proxy yet: see `acts`.
        (None, Some(NAME_ENTERS)) => {
            let (proxy, owner) = (proxy_id(pid, now_ns()), Task::current().owner());
            enter(pid, Process { proxy, owner, flags: Process::NAMED, ..Process::ZERO });
        }
        (Some(process), Some(_)) if process.flags & Process::NAMED != 0 && is_parent(&process) => {
            executed_anew(pid, process);
        }
        (Some(process), Some(_)) if process.flags & Process::NAMED != 0 && is_upgrade(&process) => {
            upgrades(pid, process);
        }
        (Some(process), Some(_)) => {
            let flags = process.flags & !(Process::STARTED | Process::HELPER) | Process::NAMED;
            set(pid, Process { flags, ..process });
        }
        (Some(process), None) if process.flags & Process::KEPT == 0 => {
            leave(pid, process);
            forget_calls(pid);
        }
        (Some(process), None) => {
            set(pid, Process { flags: process.flags & !(Process::STARTED | Process::NAMED), ..process });
        }
        _ => {}
    }
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { (*own).exec_id = exec_id };
    }
}

/// Whether the current process, a traced one, has children or had some: userspace enters those that run already, and what
/// they had forked before that is known to the kernel alone.
#[inline(always)]
fn is_parent(process: &Process) -> bool {
    process.flags & Process::PARENT != 0 || Task::current().has_children()
}

/// Whether a process that executes the program of its parent does so because that was told to: nginx's new master in a binary
/// upgrade (USR2).
#[inline(always)]
fn is_upgrade(process: &Process) -> bool {
    find(process.parent).is_some_and(|master| master.flags & Process::TOLD_TO_EXECUTE != 0)
}

/// A new master begins: it asks for a reload, which is accepted when it forks a worker, and rejected when it ends before.
#[inline(always)]
fn upgrades(pid: u32, process: Process) {
    let now_ns = now_ns();
    let flags = process.flags & !Process::OWN | Process::UPGRADES;
    set(pid, Process { reload_asked_ns: now_ns, flags, ..process });
    report(Event::RELOAD_ASKED, pid, process, Process::UPGRADES, now_ns);
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
        let now_ns = now_ns();
        report(Event::RELOAD_ASKED, pid, process, 0, now_ns);
        now_ns
    } else {
        0
    };
    let executed = if reload_asked_ns == 0 { 0 } else { Process::EXECUTED };
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe {
            (*own).reload_asked_ns = reload_asked_ns;
            (*own).flags = process.flags & !Process::OWN | Process::PARENT | executed;
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
/// Two programs see it, `program` is the one that does: the one that has not seen what is being delivered comes second.
#[inline(always)]
pub(crate) fn signalled(signal: i32, program: u32) {
    let pid = current_process();
    let Some(own) = PROCESSES.get_ptr_mut(&pid) else { return };
    if signal == SIGHUP {
        seen(Place::Signal);
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
    let is_master = process.flags & (Process::WORKER | Process::HELPER) == 0 && is_parent(&process);
    if signal == SIGHUP && is_master {
        let waits = if master.will_block(SIGHUP) { Process::WAITS_FOR_SIGNALS } else { 0 };
        let now_ns = now_ns();
        if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
            // SAFETY: a value of the map, of the process that runs this.
            unsafe {
                (*own).reload_asked_ns = now_ns;
                (*own).flags = process.flags & !Process::WAITS_FOR_SIGNALS | waits;
            }
        }
        report(Event::RELOAD_ASKED, pid, process, waits, now_ns);
    }
}

/// A thread of the process exits with that status, perhaps its last.
#[inline(always)]
pub(crate) fn exited<A: Access>(task: Task<A>, pid: u32, status: u32) {
    let Some(process) = find(pid) else { return };
    seen(Place::Exit);
    // Of threads that are killed together, each may find that it is the last.
    if !task.is_last_of_process() || !leave(pid, process) {
        return;
    }
    if process.flags & Process::UPGRADES != 0 && process.reload_asked_ns != 0 {
        reject(pid, process);
    }
    if process.flags & Process::WORKER != 0 {
        if (exit_signal(status) != 0 || exit_code(status) != 0)
            && let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy)
        {
            // SAFETY: a value of the map.
            add(unsafe { &raw mut (*proxy).crashes }, 1);
        }
        report(Event::WORKER_EXITED, pid, process, status, 0);
    }
}

/// The current process, a traced one, forks or makes an attempt: from then on there is its proxy. A program that only looks
/// at a configuration (`nginx -t`) or sends a signal never comes here, and takes no place among proxies. Gives the
/// process's standing.
#[inline(always)]
pub(crate) fn acts(process: &Process) -> u32 {
    if process.standing == Process::STANDS {
        return Process::STANDS;
    }
    let pid = current_process();
    let standing = if PROXIES.get_ptr(&process.proxy).is_some() || process_enter_proxy(pid) != 0 {
        Process::STANDS
    } else {
        Process::REFUSED
    };
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { (*own).standing = standing };
    }
    standing
}

/// Makes the proxy of the current process; false where there is no room, which is counted once for each process.
///
/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn process_enter_proxy(pid: u32) -> u32 {
    find(pid).is_some_and(|process| enter_proxy(pid, &process)).into()
}

#[inline(always)]
fn enter_proxy(pid: u32, process: &Process) -> bool {
    let Process { proxy, owner, .. } = *process;
    if shares::take(owner, Share::Proxies) {
        // In place: its row `~other` alone is larger than what is left of a program's stack.
        if PROXIES.insert(&proxy, &EMPTY_PROXY, ONLY_NEW).is_ok() {
            if let Some(made) = PROXIES.get_ptr_mut(&proxy) {
                // SAFETY: a value of the map. Another process of the proxy may find no owner yet, which has no room then.
                unsafe { (*made).owner = owner };
            }
            report(Event::ENTERED, pid, *process, 0, 0);
            return true;
        }
        shares::give_back(owner, Share::Proxies);
        if PROXIES.get_ptr(&proxy).is_some() {
            return true; // another process of it was first
        }
    }
    if process.standing != Process::REFUSED {
        count_loss(Loss::ProxyTableFull);
    }
    false
}

#[inline(always)]
pub(crate) fn find(pid: u32) -> Option<Process> {
    // SAFETY: copied at once. An entry is removed only when its process exits or executes, which no other thread of
    // it outlives, and the kernel hands its slot to another process at the earliest after that.
    PROCESSES.get_ptr(&pid).map(|process| unsafe { *process })
}

/// Enters a process that is not in the table; false where there is no room, which is counted.
#[inline(never)]
fn enter(pid: u32, process: Process) -> bool {
    if let Some(ended) = find(pid) {
        leave(pid, ended); // its end was missed
        forget_calls(pid);
    }
    if shares::take(process.owner, Share::Processes) {
        if PROCESSES.insert(&pid, &process, ONLY_NEW).is_ok() {
            return true;
        }
        shares::give_back(process.owner, Share::Processes);
    }
    count_loss(Loss::ProcessTableFull);
    false
}

/// Changes the entry of the current process.
#[inline(always)]
fn set(pid: u32, process: Process) {
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { *own = process };
    }
}

/// Takes a process out of the table; true for the one caller that did.
#[inline(always)]
fn leave(pid: u32, process: Process) -> bool {
    let is_first = PROCESSES.remove(&pid).is_ok();
    if is_first {
        shares::give_back(process.owner, Share::Processes);
    }
    is_first
}

/// What the first thread of a process keeps for its calls has a place because the process has, and goes with it. Where the process exits, that
/// thread's own exit takes it out: another thread may come first, and the first one still be in a call.
#[inline(always)]
fn forget_calls(pid: u32) {
    let _ = CALLS.remove(&((u64::from(pid) << 32) | u64::from(pid)));
}

/// The process and its proxy run a new configuration. Gives the generation.
#[inline(always)]
fn raise_generation(pid: u32, process: Process) -> u32 {
    let mut generation = process.generation + 1;
    if let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy) {
        let now_ns = now_ns();
        // SAFETY: a value of the map. Only a proxy's master comes here, so nothing races with the addition.
        unsafe {
            (*proxy).reloaded_ns = now_ns;
            (*proxy).generation += 1;
            generation = (*proxy).generation;
        }
    }
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe {
            (*own).generation = generation;
            (*own).reload_asked_ns = 0;
            (*own).flags &= !(Process::EXECUTED | Process::UPGRADES);
        }
    }
    report(Event::RELOADED, pid, Process { generation, ..process }, 0, process.reload_asked_ns);
    generation
}

/// The reload that was asked for last has not been accepted.
#[inline(always)]
fn reject(pid: u32, process: Process) {
    if let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy) {
        // SAFETY: a value of the map.
        add(unsafe { &raw mut (*proxy).rejected }, 1);
    }
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { (*own).reload_asked_ns = 0 };
    }
    report(Event::RELOAD_REJECTED, pid, process, 0, process.reload_asked_ns);
}

/// Reports something in the life of a process, that began at `since_ns` where it is not 0.
#[inline(always)]
fn report(kind: u32, pid: u32, process: Process, what: u32, since_ns: u64) {
    let time_ns = now_ns();
    let duration_ns = if since_ns == 0 { 0 } else { time_ns.saturating_sub(since_ns) };
    let Process { proxy, generation, .. } = process;
    events::report(Event { time_ns, proxy, duration_ns, generation, pid, kind, what, ..Event::ZERO });
}
