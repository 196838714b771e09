//! The book: the kernel half's ledger as series, one for each proxy, upstream and address, over all generations.
//!
//! It keeps the ledger small without losing a count: rows that are not used any more are carried over into the book and forgotten
//! in the kernel, and a series goes away once all its rows have and it was not used for long.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proxytrace_ebpf::{
    abi::{Row, RowKey},
    outcome::Outcome,
};

/// Stands for the addresses that have no series of their own.
const OTHER: &str = "~other";

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The address.
    pub address: Arc<str>,
}

impl Key {
    /// What a proxy connected to without room in the kernel for the address.
    #[must_use]
    pub fn other(proxy: Arc<str>) -> Self {
        Self { proxy, upstream: OTHER.into(), address: OTHER.into() }
    }
}

/// What was counted of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series(Row);

impl From<Row> for Series {
    fn from(row: Row) -> Self {
        Self(row)
    }
}

impl Default for Series {
    fn default() -> Self {
        Self(Row::ZERO)
    }
}

impl Series {
    /// The counts, summed over the rows.
    #[must_use]
    pub const fn counts(&self) -> &Row {
        &self.0
    }

    /// Attempts that ended in this way.
    #[must_use]
    pub const fn outcome(&self, outcome: Outcome) -> u64 {
        self.0.outcomes[outcome as usize]
    }

    /// Attempts that did not end in an established connection.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.ended() - self.outcome(Outcome::Established)
    }

    /// Attempts under way: the ledger balances by this.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.0.attempts.saturating_sub(self.0.ended())
    }
}

/// All series, and the memory of what is no longer in the kernel.
#[derive(Debug)]
pub struct Book {
    most_addresses: usize,
    idle_ns: u64,
    known: HashMap<Key, Known>,
    /// How many of them have series of their own.
    own: usize,
    /// The rest of addresses that are gone, by the key that they were summed under.
    gone: BTreeMap<Key, Series>,
}

#[derive(Debug, Default)]
struct Known {
    /// What rows counted that the kernel has forgotten; only of one with a series of its own, else the rest has it.
    carried: Series,
    /// Whether it has a series of its own. Decided when the address is first seen and never changed, because a
    /// counter must not jump when an address moves in or out of the rest.
    is_own: bool,
    /// The rows of the kernel; `None` where it has none left.
    current: Option<Series>,
}

impl Book {
    /// A book with series of their own for at most so many addresses, which are kept until they have not been used for
    /// `idle_ns`.
    #[must_use]
    pub fn new(most_addresses: usize, idle_ns: u64) -> Self {
        Self { most_addresses, idle_ns, known: HashMap::new(), own: 0, gone: BTreeMap::new() }
    }

    /// The series as of `rows`, which are all that the kernel has, each with the key that it counts for. What is `declared` has a
    /// series before it is used, as far as what is used leaves room, and keeps it when it is idle.
    #[must_use]
    pub fn update(
        &mut self,
        now_ns: u64,
        rows: &[(RowKey, Row, Key)],
        declared: &[Key],
    ) -> BTreeMap<Key, Series> {
        for known in self.known.values_mut() {
            known.current = None;
        }
        for (_, row, key) in rows {
            self.known(key).current.get_or_insert_default().0.add(row);
        }
        for key in declared {
            if let Some(known) = self.known.get_mut(key) {
                known.current.get_or_insert_default();
            }
        }
        self.drop_idle(now_ns);
        let mut all = self.gone.clone();
        for (key, known) in &self.known {
            let series = all.entry(if known.is_own { key.clone() } else { rest_of(key) }).or_default();
            for part in [Some(&known.carried), known.current.as_ref()].into_iter().flatten() {
                series.0.add(part.counts());
            }
        }
        // Not remembered: a series of zeroes can make room for one that counts.
        let unused = declared.iter().filter(|key| !self.known.contains_key(*key));
        for key in unused.take(self.most_addresses.saturating_sub(self.own)) {
            all.entry(key.clone()).or_default();
        }
        all
    }

    /// Takes over what a row counted that the kernel has forgotten.
    pub fn carry(&mut self, key: &Key, row: &Row) {
        match self.known(key) {
            Known { is_own: true, carried, .. } => carried.0.add(row),
            Known { is_own: false, .. } => self.gone.entry(rest_of(key)).or_default().0.add(row),
        }
    }

    fn known(&mut self, key: &Key) -> &mut Known {
        self.known.entry(key.clone()).or_insert_with(|| {
            let is_own = self.own < self.most_addresses;
            self.own += usize::from(is_own);
            Known { is_own, ..Known::default() }
        })
    }

    /// Drops the addresses that have no row and were not used for long. What was summed under the rest stays in that sum.
    fn drop_idle(&mut self, now_ns: u64) {
        let Self { own, idle_ns, .. } = self;
        self.known.retain(|_, known| {
            let last_ns = known.carried.counts().last_attempt_ns;
            let is_recent = known.is_own && now_ns.saturating_sub(last_ns) < *idle_ns;
            let is_kept = known.current.is_some() || is_recent;
            *own -= usize::from(known.is_own && !is_kept);
            is_kept
        });
        if self.known.capacity() / 4 > self.known.len() {
            self.known.shrink_to_fit();
        }
    }
}

fn rest_of(key: &Key) -> Key {
    Key { address: OTHER.into(), ..key.clone() }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::{
        abi::{Row, RowKey},
        outcome::Outcome,
    };

    use super::{Book, Key, Series};

    const HOUR: u64 = 3_600_000_000_000;

    fn key(address: &str) -> Key {
        Key { proxy: "nginx".into(), upstream: "unknown".into(), address: address.into() }
    }

    /// A row of `attempts`, of which `refused` were and the others are in flight.
    fn row(generation: u32, address: &str, attempts: u64, refused: u64, last_ns: u64) -> (RowKey, Row, Key) {
        let mut row = Row { attempts, last_attempt_ns: last_ns, ..Row::ZERO };
        row.outcomes[Outcome::Refused as usize] = refused;
        (RowKey { generation, ..RowKey::ZERO }, row, key(address))
    }

    fn attempts(series: &std::collections::BTreeMap<Key, Series>, address: &str) -> Option<u64> {
        series.get(&key(address)).map(|series| series.counts().attempts)
    }

    /// Carries the row over that is first, as if the kernel had forgotten it.
    fn carry_first(book: &mut Book, rows: &mut Vec<(RowKey, Row, Key)>) {
        let (_, row, key) = rows.remove(0);
        book.carry(&key, &row);
    }

    #[test]
    fn generations_are_summed_and_the_sum_balances() {
        let mut book = Book::new(10, HOUR);
        let series = book.update(5, &[row(0, "a", 7, 7, 1), row(1, "a", 3, 1, 2)], &[]);
        let a = &series[&key("a")];
        assert_eq!((a.counts().attempts, a.failures(), a.in_flight()), (10, 8, 2));
    }

    #[test]
    fn a_row_is_carried_over_and_its_series_goes_on_whoever_looks_meanwhile() {
        for looks in [true, false] {
            let mut book = Book::new(10, HOUR);
            let mut rows = vec![row(0, "a", 7, 7, 1), row(1, "a", 3, 3, HOUR)];
            if looks {
                assert_eq!(attempts(&book.update(2, &rows, &[]), "a"), Some(10));
            }
            carry_first(&mut book, &mut rows);
            assert_eq!(attempts(&book.update(HOUR + 1, &rows, &[]), "a"), Some(10));
            rows[0] = row(1, "a", 4, 4, HOUR);
            assert_eq!(attempts(&book.update(HOUR + 2, &rows, &[]), "a"), Some(11));
        }
    }

    #[test]
    fn a_series_goes_away_when_its_address_has_no_row_and_was_idle_for_long() {
        let mut book = Book::new(10, HOUR);
        let mut rows = vec![row(0, "a", 7, 7, 1), row(0, "b", 7, 6, 1)];
        carry_first(&mut book, &mut rows);
        let series = book.update(HOUR, &rows, &[]);
        assert_eq!(
            (attempts(&series, "a"), attempts(&series, "b")),
            (Some(7), Some(7)),
            "used within the hour"
        );
        let series = book.update(HOUR + 2, &rows, &[]);
        assert_eq!((attempts(&series, "a"), attempts(&series, "b")), (None, Some(7)));
    }

    #[test]
    fn the_rest_is_summed_and_never_decreases() {
        let mut book = Book::new(1, HOUR);
        let mut rows = vec![row(0, "b", 2, 2, 1), row(0, "a", 1, 1, HOUR), row(0, "c", 4, 4, HOUR)];
        rows.swap(0, 1);
        let series = book.update(HOUR + 1, &rows, &[]);
        assert_eq!((attempts(&series, "a"), attempts(&series, "~other")), (Some(1), Some(6)));
        rows.swap(0, 1);
        carry_first(&mut book, &mut rows);
        for _ in 0..2 {
            let series = book.update(HOUR + 2, &rows, &[]);
            assert_eq!((attempts(&series, "~other"), series.len()), (Some(6), 2));
        }
    }

    #[test]
    fn what_is_declared_has_a_series_before_and_long_after_it_is_used() {
        let mut book = Book::new(10, HOUR);
        let declared = [key("a")];
        let series = book.update(1, &[], &declared);
        assert_eq!(attempts(&series, "a"), Some(0));
        let mut rows = vec![row(0, "a", 3, 3, 1), row(0, "b", 1, 1, 1)];
        let series = book.update(HOUR + 1, &rows, &declared);
        assert_eq!(attempts(&series, "a"), Some(3));
        carry_first(&mut book, &mut rows);
        carry_first(&mut book, &mut rows);
        let series = book.update(HOUR + 2, &rows, &declared);
        assert_eq!((attempts(&series, "a"), attempts(&series, "b")), (Some(3), None));
        assert!(book.update(HOUR + 3, &rows, &[]).is_empty());
    }

    #[test]
    fn what_is_only_declared_takes_no_room_from_what_is_used() {
        let mut book = Book::new(2, HOUR);
        let declared = [key("a"), key("b"), key("c")];
        let series = book.update(1, &[], &declared);
        assert_eq!((series.len(), attempts(&series, "a"), attempts(&series, "c")), (2, Some(0), None));
        let rows = [row(0, "c", 3, 3, 1), row(0, "x", 1, 1, 1), row(0, "a", 2, 2, 1)];
        let series = book.update(2, &rows, &declared);
        let counts = ["c", "x", "~other", "a", "b"].map(|address| attempts(&series, address));
        assert_eq!(counts, [Some(3), Some(1), Some(2), None, None]);
    }
}
