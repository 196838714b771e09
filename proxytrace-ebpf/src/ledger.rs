//! The ledger: what is counted, for each generation of each proxy and each destination.

use proxytrace_ebpf::{
    abi::{DURATION_BOUNDS_NS, Loss, OUTCOME_SLOTS, RETIRES_AFTER_NS, Row, RowKey},
    outcome::{Broken, Outcome},
};

use crate::{
    events,
    kernel::add,
    maps::{EMPTY_ROW, LEDGER, RETIRING},
};

/// A row that can be counted in.
#[derive(Clone, Copy)]
pub(crate) struct Counts(*mut Row);

/// The row of `key`, made if there is none; `None`, and a loss, if there is no room for it.
#[inline(always)]
pub(crate) fn row(key: &RowKey) -> Option<Counts> {
    if let Some(row) = LEDGER.get_ptr_mut(&*key) {
        return Some(Counts(row));
    }
    const ONLY_NEW: u64 = 1;
    // Another CPU may make the row at the same time: then this fails and the look-up finds the other's.
    let _ = LEDGER.insert(key, &EMPTY_ROW, ONLY_NEW);
    let row = LEDGER.get_ptr_mut(key);
    if row.is_none() {
        events::lose(Loss::LedgerFull);
    }
    row.map(Counts)
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
            return Some(Counts(row));
        }
        *key = key.other();
    }
    row(key)
}

impl Counts {
    #[inline(always)]
    pub(crate) fn attempt(self, now_ns: u64) {
        // SAFETY: a row of the map. Two CPUs may both store the time: either is right.
        unsafe { (&raw mut (*self.0).last_attempt_ns).write(now_ns) };
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0).attempts }, 1);
    }

    #[inline(always)]
    pub(crate) fn outcome(self, outcome: Outcome) {
        let slot = outcome as usize & (OUTCOME_SLOTS - 1);
        // SAFETY: in bounds by the mask.
        add(unsafe { (&raw mut (*self.0).outcomes).cast::<u64>().add(slot) }, 1);
    }

    #[inline(always)]
    pub(crate) fn established(self, now_ns: u64, duration_ns: u64) {
        self.outcome(Outcome::Established);
        // SAFETY: a row of the map. Two CPUs may both store the time: either is right.
        unsafe { (&raw mut (*self.0).last_established_ns).write(now_ns) };
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0).duration_sum_ns }, duration_ns);
        let mut bucket = 0;
        while bucket < DURATION_BOUNDS_NS.len() && duration_ns > DURATION_BOUNDS_NS[bucket] {
            bucket += 1;
        }
        // SAFETY: there is one bucket more than there are bounds.
        add(unsafe { (&raw mut (*self.0).durations).cast::<u64>().add(bucket) }, 1);
    }

    #[inline(always)]
    pub(crate) fn broken(self, broken: Broken) {
        // SAFETY: a slot for each of them.
        add(unsafe { (&raw mut (*self.0).broken).cast::<u64>().add(broken as usize) }, 1);
    }

    #[inline(always)]
    pub(crate) fn syn_retransmits(self, n: u32) {
        // SAFETY: a row of the map.
        add(unsafe { &raw mut (*self.0).syn_retransmits }, u64::from(n));
    }
}
