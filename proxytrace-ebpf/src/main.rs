//! The programs that run in the kernel. [`programs`] lists them; what they do is in the modules below it. Each uses only modules that
//! come after it here: [`handshake`], [`connect`], [`stream`], [`attempt`], [`earlier`], [`look`], [`answer`], [`process`], [`ledger`], [`quota`], [`shares`], [`events`],
//! [`kernel`], [`counters`], [`handled`], [`helpers`], [`maps`].
//!
//! Functions are inlined, save the large ones that are called from several places: those are subprograms (`inline(never)`). Inlined
//! everywhere they took the object from 4 to 15 MB, and a program's stack beyond the 512 bytes
//! that 5.10 gives a chain of calls, counting 32 at least for each frame. `proxytrace/src/kernel/stack.rs` checks that.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_borrows_for_generic_args,
        reason = "from aya-ebpf 0.3 on, map keys are passed by reference"
    )
)]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod attempt;
#[cfg(target_arch = "bpf")]
mod connect;
#[cfg(target_arch = "bpf")]
mod earlier;
#[cfg(target_arch = "bpf")]
mod handshake;
#[cfg(target_arch = "bpf")]
mod look;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod stream;

#[cfg(target_arch = "bpf")]
mod ledger;
#[cfg(target_arch = "bpf")]
mod quota;
#[cfg(target_arch = "bpf")]
mod shares;

#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod handled;
#[cfg(target_arch = "bpf")]
mod helpers;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;

/// There is nothing to run outside the kernel; this lets the whole workspace be built for the host.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
