//! The helper calls that are no map operations, and what every program needs of instructions that Rust does not offer. Nothing here
//! reads kernel memory: that is [`crate::kernel`].

#![expect(unsafe_code, reason = "the helpers of the kernel are functions of another language")]

use aya_ebpf::helpers::{self, generated};
use proxytrace_ebpf::abi::{Settings, Share};

use crate::maps;

const _: () = assert!(size_of::<Settings>() == 72);

/// One setting, read alone and volatile: loading all of them at once would copy them to the stack at every use, and a plain read
/// would be folded to what is compiled in.
macro_rules! setting {
    ($field:ident) => {{
        #[expect(unsafe_code, reason = "the settings are a static that userspace has filled")]
        // SAFETY: a field of a static that nothing writes once the program runs.
        let value = unsafe { core::ptr::read_volatile(&raw const $crate::maps::SETTINGS.$field) };
        value
    }};
}
pub(crate) use setting;

/// How many entries a table has that owners share.
#[inline(always)]
pub(crate) fn capacity(share: Share) -> u32 {
    // SAFETY: a static that nothing writes once the program runs; a member for each of them.
    unsafe {
        core::ptr::read_volatile((&raw const maps::SETTINGS.capacity).cast::<u32>().add(masked::<
            { Share::SLOTS - 1 },
        >(
            share as usize
        )))
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

/// The kernel's clock that sockets have their times of, in ticks (kernel 5.6).
#[inline(always)]
pub(crate) fn now_ticks() -> u32 {
    // SAFETY: a helper call without arguments.
    unsafe { generated::bpf_jiffies64() as u32 }
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
