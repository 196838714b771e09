//! Connections that were established before tracing began: a proxy that keeps connections may make no other for a long time. They are found among
//! the open files of traced processes, once, and are watched like all others from then on. No attempt of theirs is counted.

#![expect(unsafe_code, reason = "the context of a program is a pointer")]

use core::ffi::c_void;

use proxytrace_ebpf::abi::{Attempt, Connection, Loss, Process, RowKey, Share};

use crate::{
    counters::count_loss,
    helpers::now_ns,
    kernel::{self, Direct, Probed, Sock, Task, tcp},
    ledger,
    maps::{CONNECTIONS, ONLY_NEW},
    process, quota,
};

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c): an open file of a task. The last run is for none.
#[repr(C)]
pub(crate) struct OpenFile {
    meta: *const c_void,
    task: *const c_void,
    descriptor: u64,
    file: *const c_void,
}

/// The kernel holds the file meanwhile, so its socket is not destroyed.
#[inline(always)]
pub(crate) fn found(context: *const OpenFile) {
    // SAFETY: the context that the kernel passes to programs of this kind.
    let (task, file) = unsafe { ((*context).task, (*context).file) };
    if task.is_null() || file.is_null() {
        return;
    }
    let pid = Task::<Direct>::new(task).process();
    let Some(process) = process::find(pid) else { return };
    let Some(sock) = kernel::tcp_socket(file) else { return };
    if process.standing != Process::STANDS || !is_upstream(sock) || CONNECTIONS.get_ptr(&sock.id()).is_some()
    {
        return;
    }
    let mut row = RowKey { proxy: process.proxy, generation: process.generation, address: sock.remote() };
    let now_ns = now_ns();
    if ledger::row_to_begin(&mut row, now_ns).is_none() {
        return;
    }
    if !quota::take(row.proxy, Share::Connections) {
        return count_loss(Loss::ConnectionTableFull);
    }
    let attempt =
        Attempt { row, started_ns: now_ns, pid, syn_retransmits: sock.retransmits(), ..Attempt::ZERO };
    let connection =
        Connection { attempt, established_ns: now_ns, state: Connection::EARLIER, ..Connection::ZERO };
    let is_new = CONNECTIONS.insert(&sock.id(), &connection, ONLY_NEW).is_ok();
    // No lock is held: if it has ended meanwhile, who saw that may have found nothing to take out.
    if !is_new || (!is_upstream(sock) && CONNECTIONS.remove(&sock.id()).is_ok()) {
        quota::give_back(row.proxy, Share::Connections);
    }
}

/// Whether a process has connected it, and has used it. One that was never used may have been made in advance; nothing is known of it.
#[inline(always)]
fn is_upstream(sock: Sock<Probed>) -> bool {
    sock.state() == tcp::ESTABLISHED
        && !sock.was_accepted()
        && sock.stream().is_some_and(|stream| stream.bytes_sent() != 0 || stream.bytes_received() != 0)
}
