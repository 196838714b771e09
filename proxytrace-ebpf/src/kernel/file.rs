//! From a descriptor or a file to the socket behind it.

use core::ffi::c_void;

use super::{
    memory::{Access, Direct, Probed, Start, offset},
    numbers::{AF_INET, AF_INET6, AF_UNIX, IPPROTO_MPTCP, IPPROTO_TCP, SOCK_STREAM, SS_UNCONNECTED},
    sock::Sock,
    task::Task,
};
use crate::helpers::setting;

/// Which kind of upstream socket a connect() was called on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    /// Another socket connects for it, one of TCP that no descriptor leads to.
    MultipathTcp,
    Unix,
}

/// The socket behind a file descriptor, about to connect.
#[derive(Clone, Copy)]
pub(crate) struct Unconnected {
    pub(crate) sock: u64,
    pub(crate) kind: Kind,
}

/// The `struct file` behind a descriptor of the current process.
#[inline(always)]
pub(super) fn file_of(descriptor: u32) -> Option<*const c_void> {
    // The other way takes four calls of a helper more.
    let (size, files) = if setting!(has_task_registers) != 0 {
        table_of(Task::<Direct>::current_typed())
    } else {
        table_of(Task::<Probed>::current())
    };
    if descriptor >= size {
        return None;
    }
    let file = Probed::read::<*const c_void>(files, descriptor.wrapping_mul(8));
    (!file.is_null()).then_some(file)
}

/// How many descriptors there are, and what they lead to.
#[inline(always)]
fn table_of<A: Access>(task: Task<A>) -> (u32, *const c_void) {
    let table = A::read::<*const c_void>(task.files(), offset!(files_table));
    (A::read(table, offset!(table_size)), A::read(table, offset!(table_files)))
}

/// The stream socket that a file is, if it is one and is not connecting or connected already.
#[inline(always)]
pub(super) fn unconnected_socket(file: *const c_void) -> Option<Unconnected> {
    let start = stream_socket(file)?;
    if start.read::<u32>(offset!(socket_state)) != SS_UNCONNECTED {
        return None;
    }
    let sock = start.read::<*const c_void>(offset!(socket_sock));
    let kind = match Probed::read::<u16>(sock, offset!(sock_protocol)) {
        // No other family has a stream of that protocol.
        IPPROTO_TCP => Kind::Tcp,
        protocol => match Probed::read::<u16>(sock, offset!(sock_family)) {
            AF_INET | AF_INET6 if protocol == IPPROTO_MPTCP => Kind::MultipathTcp,
            AF_UNIX => Kind::Unix,
            _ => return None,
        },
    };
    Some(Unconnected { sock: sock as u64, kind })
}

/// The socket of TCP that a file is, if it is one.
#[inline(always)]
pub(crate) fn tcp_socket(file: *const c_void) -> Option<Sock<Probed>> {
    let sock = Sock::new(stream_socket(file)?.read::<*const c_void>(offset!(socket_sock)));
    sock.is_tcp().then_some(sock)
}

/// The `struct socket` that a file is, if it is one that is a stream.
#[inline(always)]
fn stream_socket(file: *const c_void) -> Option<Start> {
    let socket = Probed::read::<*const c_void>(file, offset!(file_private));
    // Only a socket's private data points back to its file; other files have something else there, or nothing.
    if socket.is_null() {
        return None;
    }
    let start = Start::of(socket)?;
    let is_stream = start.read::<*const c_void>(offset!(socket_file)) == file
        && start.read::<u16>(offset!(socket_type)) == SOCK_STREAM;
    is_stream.then_some(start)
}
