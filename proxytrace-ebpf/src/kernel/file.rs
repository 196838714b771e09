//! From a descriptor to the socket behind it that is about to connect.

use core::ffi::c_void;

use super::{
    memory::{Access as _, Probed, offset, try_read},
    numbers::{AF_INET, AF_INET6, AF_UNIX, IPPROTO_MPTCP, IPPROTO_TCP, SOCK_STREAM, SS_UNCONNECTED},
    task::Task,
};

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
    let read = |base: *const c_void, offset: u32| Probed::read::<*const c_void>(base, offset);
    let table = read(Task::current().files(), offset!(files_table));
    if descriptor >= Probed::read::<u32>(table, offset!(table_size)) {
        return None;
    }
    let file = read(read(table, offset!(table_files)), descriptor.wrapping_mul(8));
    (!file.is_null()).then_some(file)
}

/// The stream socket that a file is, if it is one and is not connecting or connected already.
#[inline(always)]
pub(super) fn unconnected_socket(file: *const c_void) -> Option<Unconnected> {
    let socket = Probed::read::<*const c_void>(file, offset!(file_private));
    // Only a socket's private data points back to its file; other files have something else there, or nothing.
    if socket.is_null() || try_read::<*const c_void>(socket, offset!(socket_file)) != Some(file) {
        return None;
    }
    if Probed::read::<u16>(socket, offset!(socket_type)) != SOCK_STREAM
        || Probed::read::<u32>(socket, offset!(socket_state)) != SS_UNCONNECTED
    {
        return None;
    }
    let sock = Probed::read::<*const c_void>(socket, offset!(socket_sock));
    let protocol = Probed::read::<u16>(sock, offset!(sock_protocol));
    let kind = match Probed::read::<u16>(sock, offset!(sock_family)) {
        AF_INET | AF_INET6 if protocol == IPPROTO_TCP => Kind::Tcp,
        AF_INET | AF_INET6 if protocol == IPPROTO_MPTCP => Kind::MultipathTcp,
        AF_UNIX => Kind::Unix,
        _ => return None,
    };
    Some(Unconnected { sock: sock as u64, kind })
}
