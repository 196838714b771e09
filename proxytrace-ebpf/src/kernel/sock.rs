//! A `struct sock`: what the kernel knows of a TCP connection.

use core::{ffi::c_void, marker::PhantomData, ptr};

use proxytrace_ebpf::abi::Address;

use crate::helpers::now_ticks;

use super::{
    address::{internet, mapped},
    memory::{Access, offset, try_read},
    numbers::{AF_INET, IPPROTO_TCP, SS_UNCONNECTED},
};

const ORIGIN_ICMP: u8 = 2; // SO_EE_ORIGIN_ICMP

/// States of a TCP socket (include/net/tcp_states.h).
pub(crate) mod tcp {
    pub(crate) const ESTABLISHED: i32 = 1;
    pub(crate) const SYN_SENT: i32 = 2;
    pub(crate) const SYN_RECV: i32 = 3;
    pub(crate) const CLOSE: i32 = 7;
    pub(crate) const CLOSE_WAIT: i32 = 8;
}

/// A `struct sock` of the internet family.
#[derive(Clone, Copy)]
pub(crate) struct Sock<A>(*const c_void, PhantomData<A>);

impl<A: Access> Sock<A> {
    /// No socket. Not an `Option`: half of one would be left unset, which the verifier lets nobody pass to a subprogram.
    pub(crate) const NONE: Self = Self(ptr::null(), PhantomData);

    #[inline(always)]
    pub(crate) fn new(pointer: *const c_void) -> Self {
        Self(pointer, PhantomData)
    }

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.0.is_null()
    }

    /// What attempts and connections are keyed by.
    #[inline(always)]
    pub(crate) fn id(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        A::read::<u16>(self.0, offset!(sock_protocol)) == IPPROTO_TCP
    }

    #[inline(always)]
    pub(crate) fn state(self) -> i32 {
        i32::from(A::read::<u8>(self.0, offset!(sock_state)))
    }

    /// The error that ends the connection, 0 for none.
    #[inline(always)]
    pub(crate) fn error(self) -> u32 {
        A::read::<u32>(self.0, offset!(sock_error))
    }

    /// The error that an ICMP message reported without ending it, 0 for none.
    #[inline(always)]
    pub(crate) fn soft_error(self) -> u32 {
        A::read::<u32>(self.0, offset!(sock_soft_error))
    }

    /// The error in the newest ICMP message that waits for whoever wants to read it from the socket, 0 for none. It stays
    /// there when an error is asked for, which clears the other two. The kernel keeps them for IPv4 (tcp_v4_err), and for
    /// IPv6 only where it was asked to.
    #[inline(always)]
    pub(crate) fn queued_error(self) -> u32 {
        let queue = self.0.wrapping_byte_add(offset!(sock_error_queue) as usize);
        // A ring: where it is empty, the queue's head points to itself.
        let newest = try_read::<*const c_void>(queue, offset!(queue_newest)).unwrap_or(queue);
        if newest as u64 == queue as u64 {
            return 0;
        }
        let error = offset!(packet_cb) + offset!(cb_error);
        match try_read::<u8>(newest, error + offset!(error_origin)) {
            Some(ORIGIN_ICMP) => try_read(newest, error).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether a process works on it now, and not the kernel by itself, which answers packets and timers.
    #[inline(always)]
    pub(crate) fn is_owned(self) -> bool {
        A::read::<u32>(self.0, offset!(sock_owned)) != 0
    }

    /// Whether it was accepted. The kernel makes such a socket as a copy of the one that listens, with the length of its backlog, which a socket
    /// that connects has no use for (net/core/sock.c, `sk_clone_lock()`).
    #[inline(always)]
    pub(crate) fn was_accepted(self) -> bool {
        A::read::<u32>(self.0, offset!(sock_backlog)) != 0
    }

    /// Whether a `struct socket` has it. One that was accepted has none before accept() returns, as one whose descriptor is closed.
    #[inline(always)]
    pub(crate) fn is_held(self) -> bool {
        !A::read::<*const c_void>(self.0, offset!(sock_socket)).is_null()
    }

    /// Whether a handshake was never under way, as far as its `struct socket` knows: connect() marks it as connecting just
    /// before it waits or returns.
    #[inline(always)]
    pub(crate) fn is_unconnected(self) -> bool {
        let socket = A::read::<*const c_void>(self.0, offset!(sock_socket));
        !socket.is_null() && A::read::<u32>(socket, offset!(socket_state)) == SS_UNCONNECTED
    }

    /// Whether it is in a sockmap: then data goes from socket to socket, and TCP counts none of it. Its user data leads, with
    /// flags in the lowest bits, to a `struct sk_psock`, whose first member leads back (include/linux/skmsg.h).
    #[inline(always)]
    pub(crate) fn is_bypassed(self) -> bool {
        let data = A::read::<u64>(self.0, offset!(sock_user_data)) & !7;
        data != 0 && try_read::<u64>(data as *const c_void, 0) == Some(self.id())
    }

    #[inline(always)]
    pub(crate) fn remote(self) -> Address {
        let port = u16::from_be(A::read::<u16>(self.0, offset!(sock_remote_port)));
        self.address(offset!(sock_remote_v4), offset!(sock_remote_v6), port)
    }

    /// The proxy's own address. The port is `inet_sport`, which outlives the socket's unhashing: `skc_num` is
    /// already 0 when the transition to CLOSE is traced.
    #[inline(always)]
    pub(crate) fn local(self) -> Address {
        let port = self.tcp::<u16>(offset!(inet_local_port));
        self.address(offset!(sock_local_v4), offset!(sock_local_v6), u16::from_be(port))
    }

    /// What TCP knows of it. Looked up once: with plain loads that is a call.
    #[inline(always)]
    pub(crate) fn stream(self) -> Option<Stream<A>> {
        let tcp_sock = A::tcp_sock(self.0);
        (!tcp_sock.is_null()).then_some(Stream(tcp_sock, PhantomData))
    }

    /// Segments sent again: before the handshake is complete these are SYNs.
    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        self.tcp(offset!(tcp_retransmits))
    }

    /// Whether the other end has begun a connection: until then nothing is expected of it.
    #[inline(always)]
    pub(crate) fn has_heard(self) -> bool {
        self.tcp::<u32>(offset!(tcp_expected)) != 0
    }

    /// How long a segment and its acknowledgement take, in nanoseconds, as the kernel has measured it; 0 where it has not. It keeps eighths of
    /// a microsecond.
    #[inline(always)]
    pub(crate) fn round_trip_ns(self) -> u64 {
        u64::from(self.tcp::<u32>(offset!(tcp_round_trip))) * (1000 / 8)
    }

    /// Whether its timer has run out and is at work: before that it waits to send again what nobody has answered.
    #[inline(always)]
    pub(crate) fn has_timer_run_out(self) -> bool {
        self.tcp::<u8>(offset!(tcp_timer)) == 0
    }

    #[inline(always)]
    fn tcp<T: Copy + Default>(self, offset: u32) -> T {
        self.stream().map_or_else(T::default, |stream| stream.read(offset))
    }

    #[inline(always)]
    fn address(self, v4: u32, v6: u32, port: u16) -> Address {
        let bytes = if A::read::<u16>(self.0, offset!(sock_family)) == AF_INET {
            mapped(A::read::<u32>(self.0, v4))
        } else {
            [A::read::<u64>(self.0, v6), A::read::<u64>(self.0, v6 + 8)]
        };
        internet(bytes, port)
    }
}

/// A `struct tcp_sock`: what went over a connection, and when. Times are ticks of the kernel's clock, sequence numbers wrap.
#[derive(Clone, Copy)]
pub(crate) struct Stream<A>(*const c_void, PhantomData<A>);

impl<A: Access> Stream<A> {
    /// Bytes sent, those that were sent again among them.
    #[inline(always)]
    pub(crate) fn bytes_sent(self) -> u64 {
        self.read(offset!(tcp_bytes_sent))
    }

    /// A FIN that has arrived counts as one byte.
    #[inline(always)]
    pub(crate) fn bytes_received(self) -> u64 {
        self.read(offset!(tcp_bytes_received))
    }

    /// When data was sent last, for the first time or again; before any was, when the connection was established.
    #[inline(always)]
    pub(crate) fn sent_at(self) -> u32 {
        self.read(offset!(tcp_sent_at))
    }

    /// When data was received last, likewise. A FIN is none.
    #[inline(always)]
    pub(crate) fn received_at(self) -> u32 {
        self.read(offset!(tcp_received_at))
    }

    /// When anything was heard last, be it an acknowledgement.
    #[inline(always)]
    pub(crate) fn heard_at(self) -> u32 {
        self.read(offset!(tcp_heard_at))
    }

    /// Since when there has been something to send or to be acknowledged, while there is; or since when the other end has had no
    /// room for it.
    #[inline(always)]
    pub(crate) fn busy_since(self) -> u32 {
        self.read(offset!(tcp_busy_since))
    }

    /// What the other end has confirmed.
    #[inline(always)]
    pub(crate) fn acknowledged(self) -> u32 {
        self.read(offset!(tcp_acknowledged))
    }

    /// What was sent.
    #[inline(always)]
    pub(crate) fn sent(self) -> u32 {
        self.read(offset!(tcp_sent))
    }

    /// What the process has written; not all of it may be sent.
    #[inline(always)]
    pub(crate) fn written(self) -> u32 {
        self.read(offset!(tcp_written))
    }

    /// Where the segment began that was heard last, but for those that say nothing new.
    #[inline(always)]
    pub(crate) fn heard_from(self) -> u32 {
        self.read(offset!(tcp_window_from))
    }

    /// What is expected next of the other end. A FIN counts as one byte.
    #[inline(always)]
    pub(crate) fn expected(self) -> u32 {
        self.read(offset!(tcp_expected))
    }

    /// Up to where the process has read what came.
    #[inline(always)]
    pub(crate) fn read_up_to(self) -> u32 {
        self.read(offset!(tcp_read))
    }

    /// The same when a segment was last sent to the other end, which confirmed it.
    #[inline(always)]
    pub(crate) fn confirmed(self) -> u32 {
        self.read(offset!(tcp_confirmed))
    }

    /// How many bytes fit into a segment.
    #[inline(always)]
    pub(crate) fn segment(self) -> u32 {
        self.read(offset!(tcp_segment))
    }

    /// Segments with data that were sent, for the first time or again.
    #[inline(always)]
    pub(crate) fn data_segments(self) -> u32 {
        self.read(offset!(tcp_data_segments))
    }

    /// How often it was one end's turn and then the other's, about: each end sends at least one segment of data each time.
    #[inline(always)]
    pub(crate) fn turns(self) -> u32 {
        self.data_segments().min(self.read(offset!(tcp_data_segments_in)))
    }

    /// Segments sent again, SYNs among them.
    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        self.read(offset!(tcp_retransmits))
    }

    /// Segments that came.
    #[inline(always)]
    pub(crate) fn segments_received(self) -> u32 {
        self.read(offset!(tcp_segments_received))
    }

    /// Whether the time has come at which its timer was to run out when it was last set. The kernel lets that stand when it stops the timer.
    #[inline(always)]
    pub(crate) fn has_timer_ended(self) -> bool {
        let ends = self.read::<u64>(offset!(tcp_timer_ends)) as u32;
        now_ticks().wrapping_sub(ends) as i32 >= 0
    }

    /// How often in a row its retransmission timer has run out.
    #[inline(always)]
    pub(crate) fn timeouts(self) -> u32 {
        u32::from(self.read::<u8>(offset!(tcp_timeouts)))
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> T {
        A::read(self.0, offset)
    }
}
