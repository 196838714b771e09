//! The unsafe boundary: every read of kernel or user memory and every helper call that is not a map operation lives
//! here, behind small handles, so that the modules that decide are plain code.

#![expect(unsafe_code, reason = "it is where memory of the kernel and of processes is read")]

use core::{ffi::c_void, marker::PhantomData, mem::size_of, ptr};

use aya_ebpf::helpers::{self, generated};
use proxytrace_ebpf::{
    abi::{
        Address, FAMILY_INET, FAMILY_UNIX, Loss, Owner, Settings, Share, UNIX_PATH_MAX, UnixPath,
        is_name_service,
    },
    offsets::Offsets,
};

use crate::{events, maps};

const AF_INET: u16 = 2;
const AF_UNIX: u16 = 1;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;
const SS_UNCONNECTED: u32 = 1;
const ORIGIN_ICMP: u8 = 2; // SO_EE_ORIGIN_ICMP
const MSG_FASTOPEN: u64 = 0x2000_0000;

/// States of a TCP socket (include/net/tcp_states.h).
pub(crate) mod tcp {
    pub(crate) const ESTABLISHED: i32 = 1;
    pub(crate) const SYN_SENT: i32 = 2;
    pub(crate) const SYN_RECV: i32 = 3;
    pub(crate) const CLOSE: i32 = 7;
    pub(crate) const CLOSE_WAIT: i32 = 8;
}

/// One offset, read alone and volatile: loading the whole table at once would copy it to the stack at every use, and
/// a plain read would be folded to the poison that is compiled in.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a field of a static that nothing writes once the program runs.
        unsafe { ptr::read_volatile(&raw const maps::OFFSETS.$field) }
    }};
}

/// One setting, likewise.
macro_rules! setting {
    ($field:ident) => {{
        // SAFETY: a field of a static that nothing writes once the program runs.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SETTINGS.$field) }
    }};
}
pub(crate) use setting;

/// How many entries a table has that owners share.
#[inline(always)]
pub(crate) fn capacity(share: Share) -> u32 {
    // SAFETY: a static that nothing writes once the program runs; a member for each of them.
    unsafe {
        ptr::read_volatile(
            (&raw const maps::SETTINGS.capacity)
                .cast::<u32>()
                .add(masked::<{ Share::SLOTS - 1 }>(share as usize)),
        )
    }
}

const _: () = assert!(size_of::<Settings>() == 64 && size_of::<Offsets>().is_multiple_of(4));

/// How a program reaches kernel memory through a pointer that the kernel passed to it.
pub(crate) trait Access: Copy {
    /// Reads at `offset` bytes from `base`; zero where that is impossible.
    fn read<T: Copy>(base: *const c_void, offset: u32) -> T;
    /// The socket as a `struct tcp_sock`, null if it is none.
    fn tcp_sock(sock: *const c_void) -> *const c_void;
}

/// Plain loads. For BTF tracepoints and fentry: the verifier knows the pointer's type and that a load cannot fault.
#[derive(Clone, Copy)]
pub(crate) struct Direct;

/// The probe-read helper. For raw tracepoints and kprobes, whose arguments are mere numbers to the verifier.
#[derive(Clone, Copy)]
pub(crate) struct Probed;

impl Access for Direct {
    #[inline(always)]
    fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the verifier proves at load time that this is inside the structure that `base` points to.
        unsafe { ptr::read_volatile(base.byte_add(offset as usize).cast()) }
    }

    /// A load beyond `struct sock` is refused ("access beyond struct sock"); this helper leads on (kernel 5.9).
    #[inline(always)]
    fn tcp_sock(sock: *const c_void) -> *const c_void {
        // SAFETY: a helper call with the pointer that the kernel passed.
        unsafe { generated::bpf_skc_to_tcp_sock(sock.cast_mut()).cast() }
    }
}

impl Access for Probed {
    #[inline(always)]
    fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        try_read(base, offset).unwrap_or_else(|| {
            events::lose(Loss::ReadFailed);
            // SAFETY: integers and pointers are all that is read, and zero is a value of each.
            unsafe { core::mem::zeroed() }
        })
    }

    #[inline(always)]
    fn tcp_sock(sock: *const c_void) -> *const c_void {
        sock
    }
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
        let error = offset!(packet_room) + offset!(room_error);
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

    #[inline(always)]
    pub(crate) fn bytes_sent(self) -> u64 {
        self.tcp(offset!(tcp_bytes_sent))
    }

    /// A FIN that has arrived counts as one byte.
    #[inline(always)]
    pub(crate) fn bytes_received(self) -> u64 {
        self.tcp(offset!(tcp_bytes_received))
    }

    /// Segments sent again: before the handshake is complete these are SYNs.
    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        self.tcp(offset!(tcp_retransmits))
    }

    /// Whether its timer has run out and is at work: before that it waits to send again what nobody has answered.
    #[inline(always)]
    pub(crate) fn has_timer_run_out(self) -> bool {
        self.tcp::<u8>(offset!(tcp_timer)) == 0
    }

    #[inline(always)]
    fn tcp<T: Copy + Default>(self, offset: u32) -> T {
        let tcp_sock = A::tcp_sock(self.0);
        if tcp_sock.is_null() { T::default() } else { A::read(tcp_sock, offset) }
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

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task<A>(*const c_void, PhantomData<A>);

impl<A: Access> Task<A> {
    #[inline(always)]
    pub(crate) fn new(pointer: *const c_void) -> Self {
        Self(pointer, PhantomData)
    }

    /// The thread's own number.
    #[inline(always)]
    pub(crate) fn thread(self) -> u32 {
        A::read(self.0, offset!(task_pid))
    }

    /// The process (thread group) that it belongs to.
    #[inline(always)]
    pub(crate) fn process(self) -> u32 {
        A::read(self.0, offset!(task_tgid))
    }

    /// How it ends, for a task that exits: a status as wait(2) gives it. All threads of a process that ends have the same.
    #[inline(always)]
    pub(crate) fn exit_status(self) -> u32 {
        A::read(self.0, offset!(task_exit_code))
    }

    /// How often it, and those it was forked by, have become another program; the lower half of it.
    #[inline(always)]
    pub(crate) fn exec_id(self) -> u32 {
        A::read(self.0, offset!(task_exec_id))
    }

    /// Whether it holds the signal back.
    #[inline(always)]
    pub(crate) fn blocks(self, signal: i32) -> bool {
        A::read::<u64>(self.0, offset!(task_blocked)) & bit_of(signal) != 0
    }

    /// Whether it will hold the signal back again when it no longer waits for signals. Right while one is delivered.
    #[inline(always)]
    pub(crate) fn will_block(self, signal: i32) -> bool {
        A::read::<u64>(self.0, offset!(task_saved_sigmask)) & bit_of(signal) != 0
    }

    /// Whether it has children: those that this thread has forked, ended ones that it has not waited for among them.
    #[inline(always)]
    pub(crate) fn has_children(self) -> bool {
        let list = self.0.wrapping_byte_add(offset!(task_children) as usize);
        // A ring: where it is empty, its head points to itself.
        try_read::<u64>(list, 0).is_some_and(|first| first != list as u64)
    }

    /// Whether no thread of its process is left, for a task that exits.
    #[inline(always)]
    pub(crate) fn is_last_of_process(self) -> bool {
        let signal = A::read::<*const c_void>(self.0, offset!(task_signal));
        A::read::<u32>(signal, offset!(signal_live)) == 0
    }
}

impl Task<Probed> {
    /// The current thread.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: a helper call without arguments.
        Self::new(unsafe { generated::bpf_get_current_task() } as *const c_void)
    }

    /// Whose it is.
    #[inline(always)]
    pub(crate) fn owner(self) -> Owner {
        let credentials = Probed::read::<*const c_void>(self.0, offset!(task_credentials));
        Owner::new(Probed::read(credentials, offset!(credentials_uid)), self.pid_namespace())
    }

    /// The inode number of the pid namespace that it is in: of the innermost that has a number for it.
    #[inline(always)]
    fn pid_namespace(self) -> u32 {
        let pid = Probed::read::<*const c_void>(self.0, offset!(task_pid_numbers));
        let level = Probed::read::<u32>(pid, offset!(pid_level));
        // A `struct upid` ends with the pointer to the namespace.
        let number = offset!(pid_numbers) + level * (offset!(number_namespace) + 8);
        let namespace = Probed::read::<*const c_void>(pid, number + offset!(number_namespace));
        Probed::read(namespace, offset!(pid_namespace_inode))
    }
}

/// The bit of a signal in a `sigset_t`.
#[inline(always)]
const fn bit_of(signal: i32) -> u64 {
    1 << (signal - 1)
}

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

/// A system call that opens a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    Connect,
    SendTo,
    SendMessage,
}

/// What connect() was called with, as far as it can be seen where it was hooked.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    file: File,
    /// The `struct sockaddr`, and its length in bytes.
    pub(crate) address: u64,
    pub(crate) length: u32,
    /// Whether it is a send that connects.
    pub(crate) sends: bool,
}

#[derive(Clone, Copy)]
enum File {
    /// A descriptor of the current process; then the address is in the caller's memory.
    Descriptor(u32),
    /// A `struct file`; then the kernel has copied the address.
    Found(*const c_void),
}

/// Whose memory a pointer points into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Caller,
    Kernel,
}

impl Arguments {
    /// `None` where a message cannot be read: it is not in memory yet.
    #[inline(always)]
    pub(crate) fn of_syscall<A: Access>(opening: Opening, registers: Registers<A>) -> Option<Self> {
        let (address, length) = match opening {
            Opening::Connect => (registers.second(), registers.third() as u32),
            Opening::SendTo => (registers.fifth(), registers.sixth() as u32),
            // `struct user_msghdr` begins with both.
            Opening::SendMessage => {
                let message = registers.second();
                (read_in(Memory::Caller, message).ok()?, read_in(Memory::Caller, message + 8).ok()?)
            }
        };
        let file = File::Descriptor(registers.first() as u32);
        Some(Self { file, address, length, sends: opening != Opening::Connect })
    }

    #[inline(always)]
    pub(crate) fn of_function(file: *const c_void, address: *const c_void, length: i32) -> Self {
        Self { file: File::Found(file), address: address as u64, length: length as u32, sends: false }
    }

    /// Of the function behind a send that connects; `None` where the kernel itself sends.
    #[inline(always)]
    pub(crate) fn of_send(socket: *const c_void, address: *const c_void, length: i32) -> Option<Self> {
        let file = Probed::read::<*const c_void>(socket, offset!(socket_file));
        (!file.is_null() && !address.is_null())
            .then(|| Self { sends: true, ..Self::of_function(file, address, length) })
    }

    /// The stream socket that is to be connected, if it is one and is not connecting or connected already: a second
    /// connect() only asks for the result of the first.
    #[inline(always)]
    pub(crate) fn socket(self) -> Option<Unconnected> {
        match self.file {
            File::Descriptor(descriptor) => unconnected_socket(file_of(descriptor)?),
            File::Found(file) => unconnected_socket(file),
        }
    }

    /// Where to. A unix socket's path is put together in `path`, which is all zeroes.
    #[inline(always)]
    pub(crate) fn to(self, path: &mut UnixPath) -> Result<Address, NoAddress> {
        let memory = match self.file {
            File::Descriptor(_) => Memory::Caller,
            File::Found(_) => Memory::Kernel,
        };
        address_in(memory, self.address, self.length, path)
    }
}

/// The `struct file` behind a descriptor of the current process.
#[inline(always)]
fn file_of(descriptor: u32) -> Option<*const c_void> {
    let read = |base: *const c_void, offset: u32| Probed::read::<*const c_void>(base, offset);
    let table = read(read(Task::current().0, offset!(task_files)), offset!(files_table));
    if descriptor >= Probed::read::<u32>(table, offset!(table_size)) {
        return None;
    }
    let file = read(read(table, offset!(table_files)), descriptor.wrapping_mul(8));
    (!file.is_null()).then_some(file)
}

#[inline(always)]
fn unconnected_socket(file: *const c_void) -> Option<Unconnected> {
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

/// The address that the caller of a connect() gave which is about to return: by then the page that it is in is in
/// memory, as the kernel has just read it.
#[inline(always)]
pub(crate) fn callers_address(pointer: u64, length: u32, path: &mut UnixPath) -> Result<Address, NoAddress> {
    address_in(Memory::Caller, pointer, length, path)
}

/// The same of a connect() that is under way, on a socket of TCP.
#[inline(always)]
pub(crate) fn callers_internet_address(pointer: u64) -> Result<Address, NoAddress> {
    internet_address(Memory::Caller, pointer, read_in(Memory::Caller, pointer)?)
}

#[inline(always)]
fn address_in(memory: Memory, pointer: u64, length: u32, path: &mut UnixPath) -> Result<Address, NoAddress> {
    match read_in::<u16>(memory, pointer)? {
        AF_UNIX => unix_address(memory, pointer + 2, length.saturating_sub(2), path),
        family => internet_address(memory, pointer, family),
    }
}

/// What is in a `struct sockaddr_in` or `sockaddr_in6`.
#[inline(always)]
fn internet_address(memory: Memory, pointer: u64, family: u16) -> Result<Address, NoAddress> {
    let halves = match family {
        AF_INET => mapped(read_in(memory, pointer + 4)?),
        AF_INET6 => [read_in(memory, pointer + 8)?, read_in(memory, pointer + 16)?],
        _ => return Err(NoAddress::NotAnUpstream),
    };
    Ok(internet(halves, u16::from_be(read_in(memory, pointer + 2)?)))
}

/// Why there is no address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// The page is not in memory, or not the caller's.
    Unreadable,
    /// None of the families that upstreams have (AF_UNSPEC disconnects), or the socket of a name service.
    NotAnUpstream,
}

#[inline(never)]
fn unix_address(memory: Memory, pointer: u64, room: u32, path: &mut UnixPath) -> Result<Address, NoAddress> {
    let from = pointer as *const c_void;
    let into = path.bytes.as_mut_ptr().cast::<c_void>();
    if read_in::<u8>(memory, pointer)? == 0 {
        // An abstract name: as many bytes as the caller said, zero bytes among them.
        path.length = room.min(UNIX_PATH_MAX as u32);
        // SAFETY: at most the room that the buffer has.
        let failed = unsafe {
            match memory {
                Memory::Caller => generated::bpf_probe_read_user(into, path.length, from),
                Memory::Kernel => generated::bpf_probe_read_kernel(into, path.length, from),
            }
        };
        if failed != 0 {
            return Err(NoAddress::Unreadable);
        }
    } else {
        // No further than the caller said: the kernel puts the zero at the end only later, and what is behind it in its
        // copy is anything (seen on 5.10, which does not clear its stack).
        let size = room.min(UNIX_PATH_MAX as u32 - 1) + 1;
        // SAFETY: at most the room that the buffer has.
        let read = unsafe {
            match memory {
                Memory::Caller => generated::bpf_probe_read_user_str(into, size, from),
                Memory::Kernel => generated::bpf_probe_read_kernel_str(into, size, from),
            }
        };
        if read < 0 {
            return Err(NoAddress::Unreadable);
        }
        path.length = (read as u32).saturating_sub(1); // the zero at the end
        if is_name_service(&path.bytes) {
            return Err(NoAddress::NotAnUpstream);
        }
    }
    Ok(Address { bytes: digest(path), port: 0, family: FAMILY_UNIX })
}

/// The registers at the entry or exit of a system call.
#[derive(Clone, Copy)]
pub(crate) struct Registers<A>(*const c_void, PhantomData<A>);

impl<A: Access> Registers<A> {
    #[inline(always)]
    pub(crate) fn new(pointer: *const c_void) -> Self {
        Self(pointer, PhantomData)
    }

    /// The number of the call: at exit nothing else tells which it is. On arm64 the member has four bytes, and a read
    /// beyond it is refused.
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        A::read(self.0, offset!(registers_number))
    }

    /// Which call it is, if it is one that opens connections.
    #[inline(always)]
    pub(crate) fn opening(self, number: u32) -> Option<Opening> {
        let fast = |flags: u64| flags & MSG_FASTOPEN != 0;
        if number == setting!(connect_syscall) {
            Some(Opening::Connect)
        } else if number == setting!(sendto_syscall) && fast(self.fourth()) {
            Some(Opening::SendTo)
        } else if number == setting!(sendmsg_syscall) && fast(self.third()) {
            Some(Opening::SendMessage)
        } else {
            None
        }
    }

    #[inline(always)]
    fn first(self) -> u64 {
        A::read(self.0, offset!(registers_first))
    }

    #[inline(always)]
    fn second(self) -> u64 {
        A::read(self.0, offset!(registers_second))
    }

    #[inline(always)]
    fn third(self) -> u64 {
        A::read(self.0, offset!(registers_third))
    }

    #[inline(always)]
    fn fourth(self) -> u64 {
        A::read(self.0, offset!(registers_fourth))
    }

    #[inline(always)]
    fn fifth(self) -> u64 {
        A::read(self.0, offset!(registers_fifth))
    }

    #[inline(always)]
    fn sixth(self) -> u64 {
        A::read(self.0, offset!(registers_sixth))
    }
}

/// The current thread, as maps are keyed: process in the high half.
#[inline(always)]
pub(crate) fn current_thread() -> u64 {
    helpers::bpf_get_current_pid_tgid()
}

/// The current process.
#[inline(always)]
pub(crate) fn current_process() -> u32 {
    (current_thread() >> 32) as u32
}

/// The name of the current program, zero-filled.
#[inline(always)]
pub(crate) fn current_name() -> [u8; 16] {
    helpers::bpf_get_current_comm().unwrap_or_default()
}

/// Nanoseconds since boot, suspended time included (kernel 5.8).
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper call without arguments.
    unsafe { generated::bpf_ktime_get_boot_ns() }
}

/// An index, in bounds by `MASK`. In assembly: the compiler knows the values that an enum has and leaves a mask out, which
/// the verifier, in a subprogram that an enum is passed to, does not know.
#[inline(always)]
pub(crate) fn masked<const MASK: usize>(mut index: usize) -> usize {
    // SAFETY: changes the one register that it is given.
    unsafe { core::arch::asm!("{index} &= {mask}", index = inout(reg) index, mask = const MASK) };
    index
}

/// Adds to a counter in a map that other CPUs add to as well. Written out, because the compiler offers no atomics for
/// this target; of this form, without a result, every kernel with BPF has it.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, n: u64) {
    // SAFETY: a pointer into a map value, aligned as the ABI's u64 fields are.
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {n}", counter = in(reg) counter, n = in(reg) n);
    }
}

/// A read that may well fail, and is then not a loss.
#[inline(always)]
fn try_read<T: Copy>(base: *const c_void, offset: u32) -> Option<T> {
    read_in(Memory::Kernel, base.wrapping_byte_add(offset as usize) as u64).ok()
}

#[inline(always)]
fn read_in<T: Copy>(memory: Memory, pointer: u64) -> Result<T, NoAddress> {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    let (into, from) = (value.as_mut_ptr().cast(), pointer as *const c_void);
    // SAFETY: the helpers check the address and write no more than the size; all bytes of an integer are valid.
    unsafe {
        let failed = match memory {
            Memory::Caller => generated::bpf_probe_read_user(into, size_of::<T>() as u32, from),
            Memory::Kernel => generated::bpf_probe_read_kernel(into, size_of::<T>() as u32, from),
        };
        if failed == 0 { Ok(value.assume_init()) } else { Err(NoAddress::Unreadable) }
    }
}

/// An IPv4 address as the two halves of its v4-mapped form, all in network order.
#[inline(always)]
fn mapped(v4: u32) -> [u64; 2] {
    [0, (u64::from(v4) << 32) | 0xffff_0000]
}

#[inline(always)]
fn internet(halves: [u64; 2], port: u16) -> Address {
    // SAFETY: the same 16 bytes.
    let bytes = unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(halves) };
    Address { bytes, port, family: FAMILY_INET }
}

/// A 128-bit digest of a path: two multiplicative hashes over its words. A proxy has a handful of unix upstreams and
/// nobody gains by making two of them collide, so speed and little code matter more than strength.
///
/// The length goes in first: abstract names may end in zero bytes, which nothing else tells from the zeroes behind them.
#[inline(always)]
fn digest(path: &UnixPath) -> [u8; 16] {
    let mut high: u64 = 0xcbf2_9ce4_8422_2325 ^ u64::from(path.length);
    let mut low: u64 = 0x9e37_79b9_7f4a_7c15;
    for index in 0..UNIX_PATH_MAX / 4 {
        // SAFETY: 27 words of 4 bytes are the 108 bytes.
        let word = u64::from(unsafe { path.bytes.as_ptr().cast::<u32>().add(index).read() });
        high = (high ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        low = (low ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }
    // SAFETY: the same 16 bytes.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([high, low]) }
}
