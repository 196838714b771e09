//! Numbers of the kernel's interface that several readers of its structures compare with.

pub(super) const AF_UNIX: u16 = 1;
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
pub(super) const SOCK_STREAM: u16 = 1;
pub(super) const IPPROTO_TCP: u16 = 6;
pub(super) const IPPROTO_MPTCP: u16 = 262;
pub(super) const SS_UNCONNECTED: u32 = 1;
