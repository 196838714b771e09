//! What each owner may hold of the tables that owners share.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use proxytrace_ebpf::abi::{HELD_INSIDE, HELD_OUTSIDE, Owner, Share, Usage};

use crate::{
    helpers::{add, capacity, masked},
    maps::{EMPTY_USAGE, HELD, ONLY_NEW, OWNERS, OWNERS_OUTSIDE},
};

/// Counts another entry of `share` for `owner`; false where it may not have one, see [`Share`]. To be called before an
/// entry is made; [`give_back`] where it could not be made, and by who takes it out.
///
/// The counts are read without a lock: as many entries too many as there are CPUs may be given.
#[inline(always)]
pub(crate) fn take(owner: Owner, share: Share) -> bool {
    shares_take(owner.uid, owner.pid_namespace, share as u32) != 0
}

/// An entry is gone that was taken.
#[inline(always)]
pub(crate) fn give_back(owner: Owner, share: Share) {
    let _ = shares_give_back(owner.uid, owner.pid_namespace, share as u32);
}

/// Has external linkage and takes numbers alone, so that the verifier checks it once and not at each call: that would be most of
/// the time until a trace is ready. On 5.10 such a function has to give a number.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn shares_take(uid: u32, pid_namespace: u32, share: u32) -> u32 {
    Share::from_index(share).is_some_and(|share| try_take(Owner { uid, pid_namespace }, share)).into()
}

/// As [`shares_take`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn shares_give_back(uid: u32, pid_namespace: u32, share: u32) -> u32 {
    let owner = Owner { uid, pid_namespace };
    if let Some(share) = Share::from_index(share) {
        if is_limited(owner)
            && let Some(own) = usage(&owner)
        {
            add(counter(own, share), u64::MAX);
        }
        if let Some(all) = HELD.get_ptr_mut(HELD_INSIDE) {
            add(counter(all, share), u64::MAX);
        }
    }
    0
}

/// Whether it matters what an owner holds.
#[inline(always)]
fn is_limited(owner: Owner) -> bool {
    owner != Owner::HOST_ROOT
}

#[inline(always)]
fn try_take(owner: Owner, share: Share) -> bool {
    if is_limited(owner) {
        let Some(own) = usage(&owner) else { return false };
        if held(own, &owner, share) >= free(share) {
            return false;
        }
        add(counter(own, share), 1);
    }
    if let Some(all) = HELD.get_ptr_mut(HELD_INSIDE) {
        add(counter(all, share), 1);
    }
    true
}

/// How many entries of a table are free.
#[inline(always)]
pub(crate) fn free(share: Share) -> u64 {
    let (Some(inside), Some(outside)) = (HELD.get_ptr_mut(HELD_INSIDE), HELD.get_ptr_mut(HELD_OUTSIDE))
    else {
        return 0;
    };
    // SAFETY: counters in values of the map.
    let held = unsafe { counter(inside, share).read().wrapping_add(counter(outside, share).read()) };
    u64::from(capacity(share)).saturating_sub(not_negative(held))
}

/// What the programs and userspace have counted together.
#[inline(always)]
fn held(own: *mut Usage, owner: &Owner, share: Share) -> u64 {
    // SAFETY: counters in values of the maps.
    let (inside, outside) = unsafe {
        let outside = OWNERS_OUTSIDE.get_ptr_mut(owner).map_or(0, |usage| counter(usage, share).read());
        (counter(own, share).read(), outside)
    };
    not_negative(inside.wrapping_add(outside))
}

/// A count that two have added to, each wrapping.
#[inline(always)]
pub(crate) const fn not_negative(count: u64) -> u64 {
    if count.cast_signed() < 0 { 0 } else { count }
}

#[inline(always)]
fn usage(owner: &Owner) -> Option<*mut Usage> {
    if let Some(usage) = OWNERS.get_ptr_mut(owner) {
        return Some(usage);
    }
    // Another CPU may make it at the same time: then this fails and the look-up finds the other's.
    let _ = OWNERS.insert(owner, &EMPTY_USAGE, ONLY_NEW);
    OWNERS.get_ptr_mut(owner)
}

#[inline(always)]
fn counter(usage: *mut Usage, share: Share) -> *mut u64 {
    // SAFETY: a member for each of them.
    unsafe { (&raw mut (*usage).held).cast::<u64>().add(masked::<{ Share::SLOTS - 1 }>(share as usize)) }
}
