//! Reads of kernel and user memory, at offsets that userspace has looked up.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated;
use proxytrace_ebpf::{abi::Loss, offsets::Offsets};

use crate::counters;

const _: () = assert!(size_of::<Offsets>().is_multiple_of(4));

/// One offset, read alone and volatile: loading the whole table at once would copy it to the stack at every use, and
/// a plain read would be folded to the poison that is compiled in.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a field of a static that nothing writes once the program runs.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::OFFSETS.$field) }
    }};
}
pub(super) use offset;

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
            counters::count_loss(Loss::ReadFailed);
            // SAFETY: integers and pointers are all that is read, and zero is a value of each.
            unsafe { core::mem::zeroed() }
        })
    }

    #[inline(always)]
    fn tcp_sock(sock: *const c_void) -> *const c_void {
        sock
    }
}

/// The beginning of a structure, read at once: each read takes as long as a look-up in a table.
pub(super) struct Start {
    base: *const c_void,
    bytes: [u64; 4],
}

impl Start {
    /// `None` where it cannot be read.
    #[inline(always)]
    pub(super) fn of(base: *const c_void) -> Option<Self> {
        Some(Self { base, bytes: try_read(base, 0)? })
    }

    /// What lies behind the beginning is read by itself.
    #[inline(always)]
    pub(super) fn read<T: Copy>(&self, offset: u32) -> T {
        if offset as usize + size_of::<T>() > size_of_val(&self.bytes) {
            return Probed::read(self.base, offset);
        }
        // SAFETY: inside, as just checked, and a value of integers and pointers.
        unsafe { ptr::read_volatile(self.bytes.as_ptr().byte_add(offset as usize).cast()) }
    }
}

/// Whose memory a pointer points into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Caller,
    Kernel,
}

/// The memory could not be read: the page is not there, or not the caller's.
pub(super) struct Unreadable;

/// A read that may well fail, and is then not a loss.
#[inline(always)]
pub(super) fn try_read<T: Copy>(base: *const c_void, offset: u32) -> Option<T> {
    read_in(Memory::Kernel, base.wrapping_byte_add(offset as usize) as u64).ok()
}

/// A read of whoever's memory.
#[inline(always)]
pub(super) fn read_in<T: Copy>(memory: Memory, pointer: u64) -> Result<T, Unreadable> {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    let (into, from) = (value.as_mut_ptr().cast(), pointer as *const c_void);
    // SAFETY: the helpers check the address and write no more than the size; all bytes of an integer are valid.
    unsafe {
        let failed = match memory {
            Memory::Caller => generated::bpf_probe_read_user(into, size_of::<T>() as u32, from),
            Memory::Kernel => generated::bpf_probe_read_kernel(into, size_of::<T>() as u32, from),
        };
        if failed == 0 { Ok(value.assume_init()) } else { Err(Unreadable) }
    }
}
