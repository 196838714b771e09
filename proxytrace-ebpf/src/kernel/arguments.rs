//! What connect(), and a send that connects, is called with: the registers of the system call, or the arguments of the function
//! behind it.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::{EbpfContext as _, helpers::generated, programs::TracePointContext};
use proxytrace_ebpf::abi::{Address, UnixPath};

use super::{
    address::{NoAddress, address_in},
    file::{Unconnected, file_of, unconnected_socket},
    memory::{Access, Direct, Memory, Probed, offset, read_in},
};
use crate::helpers::setting;

const MSG_FASTOPEN: u64 = 0x2000_0000;

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

/// What a system call returns, by the tracepoint at its exit: the record's `format` in tracefs has it behind the number of the call.
#[inline(always)]
pub(crate) fn result_of_call(ctx: &TracePointContext) -> i64 {
    // SAFETY: each of these records has it there, which the kernel compares with what it knows when the program is attached.
    unsafe { ctx.as_ptr().byte_add(16).cast::<i64>().read_volatile() }
}

/// The registers at the entry or exit of a system call.
#[derive(Clone, Copy)]
pub(crate) struct Registers<A>(*const c_void, PhantomData<A>);

impl Registers<Direct> {
    /// Those of the system call that the current thread is in (5.15).
    #[inline(always)]
    pub(crate) fn of_current() -> Self {
        // SAFETY: the second takes what the first gives.
        Self::new(
            unsafe { generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) } as *const c_void
        )
    }
}

impl<A: Access> Registers<A> {
    #[inline(always)]
    pub(crate) fn new(pointer: *const c_void) -> Self {
        Self(pointer, PhantomData)
    }

    /// The number of the call: at exit nothing else shows which it is. On arm64 the member has four bytes, and a read
    /// beyond it is refused.
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        A::read(self.0, offset!(registers_number))
    }

    /// Which call it is, if it is one that opens connections.
    #[inline(always)]
    pub(crate) fn opening(self, number: u32) -> Option<Opening> {
        let is_fast = |flags: u64| flags & MSG_FASTOPEN != 0;
        if number == setting!(connect_syscall) {
            Some(Opening::Connect)
        } else if number == setting!(sendto_syscall) && is_fast(self.fourth()) {
            Some(Opening::SendTo)
        } else if number == setting!(sendmsg_syscall) && is_fast(self.third()) {
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
