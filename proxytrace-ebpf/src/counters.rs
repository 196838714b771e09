//! Counters by place: what could not be followed, and what the hooks have seen.

use proxytrace_ebpf::{abi::Loss, hooks::Place};

use crate::{
    helpers::{add, setting},
    maps::{LOSSES, SEEN},
};

/// Counts something that could not be followed.
#[inline(always)]
pub(crate) fn count_loss(loss: Loss) {
    if let Some(counter) = LOSSES.get_ptr_mut(loss as u32) {
        add(counter, 1);
    }
}

/// Counts that a hook has seen a traced process at work. Where nobody asks for it, it is no instruction at all: the
/// verifier takes out what a frozen setting rules out.
#[inline(always)]
pub(crate) fn seen(place: Place) {
    if setting!(count_seen) != 0
        && let Some(counter) = SEEN.get_ptr_mut(place as u32)
    {
        add(counter, 1);
    }
}
