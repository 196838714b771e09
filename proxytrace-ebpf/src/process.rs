//! Who is traced: proxies, their processes and their generations.
//!
//! Kept in the kernel, so that no connect is missed between a fork and userspace noticing it.

use proxytrace_ebpf::abi::{Event, Loss, NAME_ENTERS, Place, Process, Proxy, proxy_id};

use crate::{
    connect, events,
    kernel::{self, Access, Task},
    maps::{NAMES, PROCESSES, PROXIES},
};

const SIGHUP: i32 = 1;

/// The current process, if it is traced.
#[inline(always)]
pub(crate) fn current() -> Option<(u32, Process)> {
    let pid = kernel::current_process();
    find(pid).map(|process| (pid, process))
}

/// A traced process forks: the child is of its proxy and its generation. Two programs see it, and the child does not run
/// before both have.
#[inline(always)]
pub(crate) fn forked<A: Access>(parent: Task<A>, child: Task<A>) {
    let (parent, pid) = (parent.process(), child.process());
    if pid != child.thread() {
        return; // a new thread
    }
    let Some(process) = find(parent) else { return };
    if find(pid).is_some_and(|known| known.parent == parent && known.generation == process.generation) {
        return;
    }
    events::seen(Place::Fork);
    enter(pid, Process { parent, children: 0, ..process });
    count_child(parent, 1);
}

/// The current process has become another program.
#[inline(always)]
pub(crate) fn executed() {
    let pid = kernel::current_process();
    // SAFETY: copied at once; userspace fills the map before this program is attached.
    let name = NAMES.get_ptr(&kernel::current_name()).map(|role| unsafe { *role });
    let process = find(pid);
    if process.is_some() {
        events::seen(Place::Exec);
    }
    match (process, name) {
        (None, Some(NAME_ENTERS)) => {
            let now_ns = kernel::now_ns();
            let proxy = proxy_id(pid, now_ns);
            if PROXIES.insert(&proxy, &Proxy::ZERO, 0).is_err() {
                events::lose(Loss::ProcessTableFull);
            }
            enter(pid, Process { proxy, flags: Process::NAMED, ..Process::ZERO });
            events::tell(Event { time_ns: now_ns, proxy, pid, kind: Event::ENTERED, ..Event::ZERO });
        }
        // nginx's binary upgrade (USR2), HAProxy's reload: the same program over again.
        (Some(process), Some(_)) if process.flags & Process::NAMED != 0 => raise_generation(pid, process),
        (Some(process), Some(_)) => enter(pid, Process { flags: process.flags | Process::NAMED, ..process }),
        (Some(process), None) if process.flags & Process::KEPT == 0 => leave(pid, process),
        (Some(process), None) => enter(pid, Process { flags: process.flags & !Process::NAMED, ..process }),
        _ => {}
    }
}

/// A signal is about to be handled by the current process. A SIGHUP to a proxy's master asks for a reload; new
/// workers are forked after this, so they are of the new generation from their first connect on.
#[inline(always)]
pub(crate) fn signalled(signal: i32) {
    if signal != SIGHUP {
        return;
    }
    let Some((pid, process)) = current() else { return };
    events::seen(Place::Signal);
    if process.children > 0 {
        raise_generation(pid, process);
    }
}

/// A thread exits, perhaps the last of its process.
#[inline(always)]
pub(crate) fn exited<A: Access>(task: Task<A>) {
    let pid = task.process();
    let Some(process) = find(pid) else { return };
    events::seen(Place::Exit);
    connect::thread_exited((u64::from(pid) << 32) | u64::from(task.thread()), task.was_killed());
    if task.is_last_of_process() {
        leave(pid, process);
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
    }
}

#[inline(always)]
fn raise_generation(pid: u32, process: Process) {
    let Some(proxy) = PROXIES.get_ptr_mut(&process.proxy) else { return };
    // SAFETY: a value of the map. Only a proxy's master comes here, so nothing races with the addition.
    let generation = unsafe {
        (*proxy).generation += 1;
        (*proxy).generation
    };
    if let Some(own) = PROCESSES.get_ptr_mut(&pid) {
        // SAFETY: a value of the map, of the process that runs this.
        unsafe { (*own).generation = generation };
    }
    let event = Event { time_ns: kernel::now_ns(), proxy: process.proxy, generation, pid, ..Event::ZERO };
    events::tell(Event { kind: Event::RELOADED, ..event });
}
