//! What each proxy may hold of the tables that proxies share, beside what all of its owner's may ([`shares`]): a proxy of
//! the host's root, which as an owner is not limited, must leave room for the next as well.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use proxytrace_ebpf::abi::{Owner, Proxy, Share};

use crate::{
    helpers::{add, masked},
    maps::{PROXIES, PROXY_ROWS_OUTSIDE},
    shares,
};

/// A proxy gets another entry while it holds fewer than so many times what is free: alone, eight ninths of a table.
const TIMES_FREE: u64 = 8;

/// Counts another entry of `share` for a proxy; false where it may not have one. To be called before an entry is made, and
/// [`give_back`] when it could not be made or is removed, by who removed it.
#[inline(always)]
pub(crate) fn take(proxy: u64, share: Share) -> bool {
    quota_take(proxy, share as u32) != 0
}

/// An entry is gone that was taken.
#[inline(always)]
pub(crate) fn give_back(proxy: u64, share: Share) {
    let _ = quota_give_back(proxy, share as u32);
}

/// An entry that was taken as one of `from` becomes one of `to`; false where the proxy may have no more of those, and then it is neither.
#[inline(always)]
pub(crate) fn turn(proxy: u64, from: Share, to: Share) -> bool {
    quota_turn(proxy, from as u32, to as u32) != 0
}

/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn quota_turn(proxy: u64, from: u32, to: u32) -> u32 {
    let (Some(from), Some(to), Some(known)) =
        (Share::from_index(from), Share::from_index(to), PROXIES.get_ptr_mut(&proxy))
    else {
        return 0;
    };
    give_back_of(known, from);
    take_of(known, proxy, to).into()
}

/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn quota_take(proxy: u64, share: u32) -> u32 {
    Share::from_index(share).is_some_and(|share| try_take(proxy, share)).into()
}

/// As [`quota_take`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn quota_give_back(proxy: u64, share: u32) -> u32 {
    let (Some(share), Some(known)) = (Share::from_index(share), PROXIES.get_ptr_mut(&proxy)) else {
        return 0;
    };
    give_back_of(known, share);
    0
}

#[inline(always)]
fn give_back_of(known: *mut Proxy, share: Share) {
    add(counter(known, share), u64::MAX);
    // SAFETY: a member of a map value.
    shares::give_back(unsafe { (*known).owner }, share);
}

#[inline(always)]
fn try_take(proxy: u64, share: Share) -> bool {
    PROXIES.get_ptr_mut(&proxy).is_some_and(|known| take_of(known, proxy, share))
}

#[inline(always)]
fn take_of(known: *mut Proxy, proxy: u64, share: Share) -> bool {
    // SAFETY: a member of a map value.
    let owner = unsafe { (&raw const (*known).owner).read() };
    // Without an owner it is being made by another thread of its process.
    if owner == Owner::ZERO
        || held(known, proxy, share) >= shares::free(share).saturating_mul(TIMES_FREE)
        || !shares::take(owner, share)
    {
        return false;
    }
    add(counter(known, share), 1);
    true
}

/// What the programs and userspace have counted together.
#[inline(always)]
fn held(known: *mut Proxy, proxy: u64, share: Share) -> u64 {
    // SAFETY: a counter in a value of the map.
    let inside = unsafe { counter(known, share).read() };
    if !matches!(share, Share::Rows) {
        return inside;
    }
    // SAFETY: a value of the map, copied at once.
    let outside = PROXY_ROWS_OUTSIDE.get_ptr(&proxy).map_or(0, |count| unsafe { *count });
    shares::not_negative(inside.wrapping_add(outside))
}

#[inline(always)]
fn counter(known: *mut Proxy, share: Share) -> *mut u64 {
    // SAFETY: a member for each of them.
    unsafe { (&raw mut (*known).held.held).cast::<u64>().add(masked::<{ Share::SLOTS - 1 }>(share as usize)) }
}
