//! The ledger: what is counted, for each generation of each proxy and each destination.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use core::ptr::NonNull;

use proxytrace_ebpf::{
    abi::{DURATION_BOUNDS_NS, Loss, OUTCOME_SLOTS, RETIRES_AFTER_NS, Row, RowKey, Share},
    outcome::{Broken, Outcome},
};

use crate::{
    counters::count_loss,
    helpers::{add, masked},
    maps::{EMPTY_ROW, LEDGER, ONLY_NEW, PROXIES, RETIRING},
    quota,
};

/// A row that can be counted in.
#[derive(Clone, Copy)]
pub(crate) struct Counts(NonNull<Row>);

/// The row in which the start of an attempt or a connection was counted, by the key that [`row_to_begin`] has given. It is not taken
/// out before all that has begun there has ended; if it were, the proxy's row `~other` counts what is left.
#[inline(always)]
pub(crate) fn row(key: &RowKey) -> Option<Counts> {
    if !key.is_in_other()
        && let Some(row) = LEDGER.get_ptr_mut(key)
    {
        return Counts::new(row);
    }
    other(key.proxy)
}

/// The row that a destination has to itself, made if there is none and the proxy may have another.
#[inline(never)]
fn own(key: &RowKey) -> Option<Counts> {
    if let Some(row) = LEDGER.get_ptr_mut(key) {
        return Counts::new(row);
    }
    if !quota::take(key.proxy, Share::Rows) {
        return None;
    }
    // Another CPU may make the row at the same time: then this fails and the look-up finds the other's.
    if LEDGER.insert(key, &EMPTY_ROW, ONLY_NEW).is_err() {
        quota::give_back(key.proxy, Share::Rows);
    }
    LEDGER.get_ptr_mut(key).and_then(Counts::new)
}

#[inline(always)]
fn other(proxy: u64) -> Option<Counts> {
    // SAFETY: a member of a map value. A proxy stays as long as an attempt or a connection of it does.
    PROXIES.get_ptr_mut(&proxy).and_then(|proxy| Counts::new(unsafe { &raw mut (*proxy).other }))
}

/// The row in which an attempt of `key` that begins now is counted; then `key` is the key of that row. All that is counted of
/// the attempt later goes by it.
///
/// Userspace takes rows out of the ledger that were not used for long. It reads such a row and then removes it, and whatever was
/// counted in between would be lost, or counted in the row that gets its place. So it notes the row in the map of those that
/// retire, and waits until every program has ended that may not have seen the note: nothing begins in the row from then on,
/// and who does not find anything in flight there can read and remove it. What begins meanwhile is counted in a spare row.
#[inline(always)]
pub(crate) fn row_to_begin(key: &mut RowKey, now_ns: u64) -> Option<Counts> {
    if let Some(row) = LEDGER.get_ptr_mut(&*key) {
        // SAFETY: a row of the map.
        let last_ns = unsafe { (&raw const (*row).last_attempt_ns).read() };
        if now_ns.saturating_sub(last_ns) < RETIRES_AFTER_NS || RETIRING.get_ptr(&*key).is_none() {
            return Counts::new(row);
        }
        *key = key.other();
    }
    let own = own(key);
    if own.is_some() {
        return own;
    }
    let other = other(key.proxy);
    count_loss(if other.is_some() { Loss::LedgerFull } else { Loss::ProxyTableFull });
    key.generation |= RowKey::IN_OTHER;
    other
}

impl Counts {
    #[inline(always)]
    fn new(row: *mut Row) -> Option<Self> {
        NonNull::new(row).map(Self)
    }

    #[inline(always)]
    pub(crate) fn attempt(self, now_ns: u64) {
        // SAFETY: a row of the map. Two CPUs may both store the time: either is right.
        unsafe { (&raw mut (*self.0.as_ptr()).last_attempt_ns).write(now_ns) };
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).attempts }, 1);
    }

    #[inline(always)]
    pub(crate) fn outcome(self, outcome: Outcome) {
        let slot = masked::<{ OUTCOME_SLOTS - 1 }>(outcome as usize);
        // SAFETY: in bounds by the mask.
        add(unsafe { (&raw mut (*self.0.as_ptr()).outcomes).cast::<u64>().add(slot) }, 1);
    }

    #[inline(always)]
    pub(crate) fn established(self, now_ns: u64, duration_ns: u64) {
        self.outcome(Outcome::Established);
        // SAFETY: a row of the map. Two CPUs may both store the time: either is right.
        unsafe { (&raw mut (*self.0.as_ptr()).last_established_ns).write(now_ns) };
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).duration_sum_ns }, duration_ns);
        // One for each bound that is less. Without a branch: the verifier would follow each to the program's end.
        let mut bucket = 0;
        for bound_ns in DURATION_BOUNDS_NS {
            bucket += bound_ns.wrapping_sub(duration_ns) >> 63;
        }
        // SAFETY: there is one bucket more than there are bounds.
        add(unsafe { (&raw mut (*self.0.as_ptr()).durations).cast::<u64>().add(bucket as usize) }, 1);
    }

    #[inline(always)]
    pub(crate) fn cancelled(self, duration_ns: u64) {
        self.outcome(Outcome::Cancelled);
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).cancelled_sum_ns }, duration_ns);
    }

    #[inline(always)]
    pub(crate) fn broken(self, broken: Broken) {
        // SAFETY: a slot for each of them.
        add(unsafe { (&raw mut (*self.0.as_ptr()).broken).cast::<u64>().add(broken as usize) }, 1);
    }

    /// Beside [`Counts::broken`].
    #[inline(always)]
    pub(crate) fn broken_kept(self) {
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).broken_kept }, 1);
    }

    #[inline(always)]
    pub(crate) fn abandoned(self) {
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).abandoned }, 1);
    }

    #[inline(always)]
    pub(crate) fn answered(self, turns: u32) {
        // SAFETY: a row of the map.
        unsafe {
            add(&raw mut (*self.0.as_ptr()).answered, 1);
            add(&raw mut (*self.0.as_ptr()).turns, u64::from(turns));
        }
    }

    #[inline(always)]
    pub(crate) fn syn_retransmits(self, n: u32) {
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).syn_retransmits }, u64::from(n));
    }

    #[inline(always)]
    pub(crate) fn data_retransmits(self, n: u32) {
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0.as_ptr()).data_retransmits }, u64::from(n));
    }
}
