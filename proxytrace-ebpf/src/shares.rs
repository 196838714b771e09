//! What each owner may hold of the tables that owners share.

use proxytrace_ebpf::abi::{Owner, Share, Usage};

use crate::{
    kernel,
    maps::{EMPTY_USAGE, OWNERS},
};

/// Counts another entry of `share` for `owner`; false where it may not have one, see [`Share`]. To be called before an
/// entry is made, and [`give_back`] when it could not be made or is removed, by who removed it.
///
/// The counts are read without a lock: as many entries more as there are CPUs may be given.
#[inline(always)]
pub(crate) fn take(owner: Owner, share: Share) -> bool {
    let (Some(own), Some(all)) = (usage(owner), usage(Owner::ALL)) else { return false };
    if owner != Owner::HOST_ROOT {
        // SAFETY: counters in values of the map.
        let (held, of_all) = unsafe { (counter(own, share).read(), counter(all, share).read()) };
        if held >= u64::from(kernel::capacity(share)).saturating_sub(of_all) {
            return false;
        }
    }
    kernel::add(counter(own, share), 1);
    kernel::add(counter(all, share), 1);
    true
}

/// An entry is gone that was taken.
#[inline(always)]
pub(crate) fn give_back(owner: Owner, share: Share) {
    for owner in [owner, Owner::ALL] {
        if let Some(usage) = OWNERS.get_ptr_mut(&owner) {
            let counter = counter(usage, share);
            // SAFETY: a counter in a value of the map. Not below zero: userspace may have forgotten this owner in between.
            if unsafe { counter.read() } > 0 {
                kernel::add(counter, u64::MAX);
            }
        }
    }
}

#[inline(always)]
fn usage(owner: Owner) -> Option<*mut Usage> {
    OWNERS.get_ptr_mut(&owner).or_else(|| {
        const ONLY_NEW: u64 = 1;
        // Another CPU may make it at the same time: then this fails and the look-up finds the other's.
        let _ = OWNERS.insert(&owner, &EMPTY_USAGE, ONLY_NEW);
        OWNERS.get_ptr_mut(&owner)
    })
}

#[inline(always)]
fn counter(usage: *mut Usage, share: Share) -> *mut u64 {
    // SAFETY: a member for each of them.
    unsafe { (&raw mut (*usage).held).cast::<u64>().add(share as usize) }
}
