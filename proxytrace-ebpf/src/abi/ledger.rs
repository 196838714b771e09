//! The ledger: what one generation of one proxy saw of one destination.

use super::{address::Address, record::abi};
use crate::outcome::{Broken, Outcome};

/// Upper bounds of the connect duration histogram in nanoseconds; what is above the last is counted in one bucket
/// more. Fine below a second, where healthy handshakes are; then where SYNs are sent again (1 s, 3 s, 7 s after the
/// first, tcp(7)), and at nginx's default `proxy_connect_timeout` of 60 s.
pub const DURATION_BOUNDS_NS: [u64; 19] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    3_000_000_000,
    7_000_000_000,
    15_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// The number of duration buckets, the one above the last bound included.
pub const DURATION_BUCKETS: usize = DURATION_BOUNDS_NS.len() + 1;

/// The slots for outcomes in a [`Row`]: a power of two, so that masking an index proves it in bounds to the verifier.
pub const OUTCOME_SLOTS: usize = 16;

const _: () = assert!(OUTCOME_SLOTS.is_power_of_two() && Outcome::ALL.len() <= OUTCOME_SLOTS);

/// A row that was used more recently, in nanoseconds, is not taken out while it can be used again. Then who uses it often need
/// not ask whether it is being taken out.
pub const RETIRES_AFTER_NS: u64 = 10_000_000_000;

abi! {
    /// The key of a ledger [`Row`].
    pub struct RowKey {
        /// The proxy.
        pub proxy: u64,
        /// Its generation.
        pub generation: u32,
        /// The destination.
        pub address: Address,
    }

    /// What one generation of one proxy saw of one destination.
    pub struct Row {
        /// Ended attempts by outcome, index [`Outcome`].
        pub outcomes: [u64; OUTCOME_SLOTS],
        /// Broken connections, index [`Broken`].
        pub broken: [u64; Broken::ALL.len()],
        /// Of those, the ones that were broken before an answer, and on which earlier requests had been answered.
        pub broken_kept: u64,
        /// Connections that the proxy has closed while a request waited, earlier than its read timeout: its client left.
        pub abandoned: u64,
        /// Connections that have ended with nothing waiting, after an answer had at least begun.
        pub answered: u64,
        /// About how many answers came over those, see [`super::Seen::turns`].
        pub turns: u64,
        /// SYNs sent again.
        pub syn_retransmits: u64,
        /// Segments of established connections sent again.
        pub data_retransmits: u64,
        /// When a handshake was last completed, boot time in nanoseconds; 0 for never.
        pub last_established_ns: u64,
        /// The sum of the durations of completed handshakes in nanoseconds.
        pub duration_sum_ns: u64,
        /// Completed handshakes by duration, not cumulative, see [`DURATION_BOUNDS_NS`].
        pub durations: [u64; DURATION_BUCKETS],
        /// The sum of the times in nanoseconds after which the proxy cancelled attempts.
        pub cancelled_sum_ns: u64,
        /// When an attempt last started, boot time in nanoseconds.
        pub last_attempt_ns: u64,
        /// Attempts started. Last, because the kernel copies a row from its start: see [`Row::balanced`].
        pub attempts: u64,
    }
}

impl Row {
    /// Adds the counts of another row.
    pub fn add(&mut self, row: &Self) {
        fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.attempts += row.attempts;
        add(&mut self.outcomes, &row.outcomes);
        add(&mut self.broken, &row.broken);
        add(&mut self.durations, &row.durations);
        self.broken_kept += row.broken_kept;
        self.abandoned += row.abandoned;
        self.answered += row.answered;
        self.turns += row.turns;
        self.syn_retransmits += row.syn_retransmits;
        self.data_retransmits += row.data_retransmits;
        self.duration_sum_ns += row.duration_sum_ns;
        self.cancelled_sum_ns += row.cancelled_sum_ns;
        self.last_established_ns = self.last_established_ns.max(row.last_established_ns);
        self.last_attempt_ns = self.last_attempt_ns.max(row.last_attempt_ns);
    }

    /// Attempts that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Attempts that ended in this way.
    #[must_use]
    pub const fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Attempts that did not end in an established connection.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.ended() - self.outcome(Outcome::Established)
    }

    /// Attempts under way: the ledger balances by this.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.attempts.saturating_sub(self.ended())
    }

    /// The row as a reader takes it: no attempt has ended that has not begun. The kernel copies a row while other CPUs add to it,
    /// and processors with weak memory ordering (arm64) need not keep the order: an end may be in the copy without its beginning.
    /// The next copy has at least as many of both.
    #[must_use]
    pub fn balanced(self) -> Self {
        let ended = self.outcomes.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        Self { attempts: self.attempts.max(ended), ..self }
    }
}

impl RowKey {
    /// Set in the generation of a spare row: where an attempt is counted that begins while userspace takes the other row of the
    /// same destination out of the ledger. Together they are one row.
    pub const SPARE: u32 = 1 << 31;

    /// Set in the generation of an attempt or a connection whose start was counted in its proxy's row `~other`: there the rest
    /// is counted as well, also when a row of its own would find room by then, or neither would balance.
    pub const IN_OTHER: u32 = 1 << 30;

    /// Whether [`super::Proxy::other`] is the row.
    #[must_use]
    pub const fn is_in_other(&self) -> bool {
        self.generation & Self::IN_OTHER != 0
    }

    /// The key of the other row of the same destination: of the spare one, or, of that, of the first.
    #[must_use]
    pub const fn other(self) -> Self {
        Self { generation: self.generation ^ Self::SPARE, ..self }
    }

    /// The key of the first row of the destination, whichever this is, and wherever it is counted.
    #[must_use]
    pub const fn first(self) -> Self {
        Self { generation: self.generation & !(Self::SPARE | Self::IN_OTHER), ..self }
    }

    /// Whether this is the spare row.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.generation & Self::SPARE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::Row;

    #[test]
    fn an_end_whose_beginning_was_copied_too_early_has_begun() {
        let check = |attempts: u64, ended: [u64; 2], expected: u64| {
            let mut row = Row { attempts, ..Row::ZERO };
            row.outcomes[..2].copy_from_slice(&ended);
            assert_eq!(row.balanced().attempts, expected, "{attempts} attempts, {ended:?} ended");
        };
        check(5, [2, 1], 5);
        check(5, [4, 2], 6);
        check(u64::MAX, [u64::MAX, 1], u64::MAX);
    }
}
