//! Takes rows out of the ledger that are not used any more, and loses no count.
//!
//! The kernel has no way to read and remove an entry in one step (hash maps have, from 5.14 on), and even that would not do: a
//! program may hold a pointer to the row and count there afterwards, in what is another row by then. So a row is removed only
//! when no program can hold such a pointer. Who counts in a row has its key from one of four places:
//!
//! * a traced process of the generation, whose attempt begins. Where there is none, none comes: only a process of the same
//!   generation forks one. Where there is one, the row is noted in the map of those that retire, and attempts begin in the spare
//!   row (`row_to_begin` in the kernel half).
//! * an attempt in flight, or a call that holds one: then the row has more attempts than ends.
//! * a watched connection, which may break: they are searched.
//! * a program that is running, and has taken the key from one of these before. It ends within microseconds. From 7.x on a process
//!   can be preempted in it, but hardly ever for as long as [`GRACE`].
//!
//! So a row that was found idle, and [`GRACE`] later is found idle again with the same counts, has nobody left who counts there.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::{Row, RowKey};

use super::{
    Error,
    maps::{LedgerMap, RetiringMap},
};

/// How long a row must be idle after it was found so for the first time.
const GRACE: Duration = Duration::from_millis(500);

/// A row that is to be taken out: of the first and the spare row, which count as one, neither has anything in flight or a watched
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The key of the first.
    pub row: RowKey,
    /// Whether there are processes whose attempts would be counted there.
    pub is_reachable: bool,
}

/// What rows are removed from.
pub(super) trait Rows {
    fn get(&self, row: &RowKey) -> Option<Row>;
    fn remove(&mut self, row: &RowKey) -> Result<(), Error>;
    /// No attempt begins there from now on, but for those whose program is running. Gives false where there is no capacity to note it.
    fn close(&mut self, row: &RowKey) -> bool;
    fn open(&mut self, row: &RowKey) -> Result<(), Error>;
}

/// The ledger, and the rows of it that retire.
pub(super) struct Tables<'a> {
    pub(super) ledger: &'a mut LedgerMap,
    pub(super) retiring: &'a mut RetiringMap,
}

impl Rows for Tables<'_> {
    fn get(&self, row: &RowKey) -> Option<Row> {
        self.ledger.get(row)
    }

    fn remove(&mut self, row: &RowKey) -> Result<(), Error> {
        self.ledger.remove(row).map(drop)
    }

    fn close(&mut self, row: &RowKey) -> bool {
        self.retiring.insert(row, &0).is_ok()
    }

    fn open(&mut self, row: &RowKey) -> Result<(), Error> {
        self.retiring.remove(row).map(drop)
    }
}

/// The rows that were found idle once.
#[derive(Debug, Default)]
pub(super) struct Retiring(HashMap<RowKey, Found>);

#[derive(Clone, Copy, Debug)]
struct Found {
    at: Instant,
    counts: Row,
    is_closed: bool,
}

impl Retiring {
    /// Whether the first or the spare row is one of them.
    pub(super) fn has(&self, row: &RowKey) -> bool {
        self.0.contains_key(&row.first()) || self.0.contains_key(&row.first().other())
    }

    /// Takes rows out that were found idle before and are found idle again, and notes the others. Gives what they counted, by the key
    /// of the first row.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        idle: &[Idle],
        rows: &mut impl Rows,
    ) -> Result<Vec<(RowKey, Row)>, Error> {
        let still: HashSet<_> = idle.iter().map(|idle| idle.row).collect();
        let mut taken = Vec::new();
        let is_due = |found: &Found| now.saturating_duration_since(found.at) >= GRACE;
        for (row, found) in self.0.extract_if(|_, found| is_due(found)) {
            if still.contains(&row.first()) && rows.get(&row) == Some(found.counts) {
                rows.remove(&row)?;
                taken.push((row.first(), found.counts));
            }
            if found.is_closed {
                rows.open(&row)?;
            }
        }
        for Idle { row: first, is_reachable } in idle {
            if self.has(first) {
                continue;
            }
            // One after the other: what begins while one retires is counted in the other.
            let present = [*first, first.other()].into_iter().find_map(|row| Some((row, rows.get(&row)?)));
            let Some((row, counts)) = present else { continue };
            if *is_reachable && !rows.close(&row) {
                break; // many retire already: the rest does later
            }
            self.0.insert(row, Found { at: now, counts, is_closed: *is_reachable });
        }
        Ok(taken)
    }
}

/// Adds the counts of spare rows to those of the first.
pub(super) fn joined(rows: Vec<(RowKey, Row)>) -> Vec<(RowKey, Row)> {
    if !rows.iter().any(|(key, _)| key.is_spare()) {
        return rows;
    }
    let mut sums: HashMap<RowKey, Row> = HashMap::with_capacity(rows.len());
    for (key, row) in rows {
        sums.entry(key.first()).or_insert(Row::ZERO).add(&row);
    }
    sums.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        time::Instant,
    };

    use proxytrace_ebpf::abi::{Row, RowKey};

    use super::{Error, GRACE, Idle, Retiring, Rows, joined};

    /// A ledger without a kernel.
    #[derive(Default)]
    struct Ledger {
        rows: HashMap<RowKey, Row>,
        closed: HashSet<RowKey>,
        capacity: usize,
    }

    impl Ledger {
        fn of(attempts: &[(RowKey, u64)]) -> Self {
            let mut ledger = Self { capacity: 1, ..Self::default() };
            attempts.iter().for_each(|(key, attempts)| {
                ledger.rows.insert(*key, Row { attempts: *attempts, ..Row::ZERO });
            });
            ledger
        }

        /// As the kernel half does it.
        fn begin(&mut self, key: RowKey) {
            let is_closed = self.rows.contains_key(&key) && self.closed.contains(&key);
            let key = if is_closed { key.other() } else { key };
            self.rows.entry(key).or_insert(Row::ZERO).attempts += 1;
        }
    }

    impl Rows for Ledger {
        fn get(&self, row: &RowKey) -> Option<Row> {
            self.rows.get(row).copied()
        }

        fn remove(&mut self, row: &RowKey) -> Result<(), Error> {
            self.rows.remove(row);
            Ok(())
        }

        fn close(&mut self, row: &RowKey) -> bool {
            self.closed.len() < self.capacity && self.closed.insert(*row)
        }

        fn open(&mut self, row: &RowKey) -> Result<(), Error> {
            self.closed.remove(row);
            Ok(())
        }
    }

    fn key(generation: u32) -> RowKey {
        RowKey { generation, ..RowKey::ZERO }
    }

    fn idle(generation: u32) -> Idle {
        Idle { row: key(generation), is_reachable: true }
    }

    fn taken(rows: Vec<(RowKey, Row)>) -> Vec<(u32, u64)> {
        rows.into_iter().map(|(key, row)| (key.generation, row.attempts)).collect()
    }

    #[test]
    fn a_row_is_taken_when_it_is_found_idle_twice_with_the_same_counts() {
        let (mut retiring, mut ledger, now) =
            (Retiring::default(), Ledger::of(&[(key(1), 5)]), Instant::now());
        let mut turn = |after: u32, idle: &[Idle], ledger: &mut Ledger| {
            taken(retiring.turn(now + GRACE * after, idle, ledger).unwrap())
        };
        assert_eq!(turn(0, &[idle(1)], &mut ledger), []);
        assert!(ledger.closed.contains(&key(1)));
        // A program that had not seen the note yet.
        ledger.rows.get_mut(&key(1)).unwrap().attempts += 1;
        assert_eq!(turn(1, &[idle(1)], &mut ledger), [], "it has changed");
        assert_eq!(turn(2, &[], &mut ledger), [], "it is in use");
        assert!(ledger.closed.is_empty(), "attempts may begin there again");
        assert_eq!(turn(3, &[idle(1)], &mut ledger), []);
        assert_eq!(turn(4, &[idle(1)], &mut ledger), [(1, 6)]);
        assert!(ledger.rows.is_empty() && ledger.closed.is_empty());
    }

    #[test]
    fn what_begins_while_a_row_retires_is_counted_beside_it() {
        let (mut retiring, mut ledger, now) =
            (Retiring::default(), Ledger::of(&[(key(1), 5)]), Instant::now());
        let mut carried = 0;
        for after in 0..40 {
            let rows = ledger.rows.iter().map(|(key, row)| (*key, *row)).collect();
            assert_eq!(joined(rows).iter().map(|(_, row)| row.attempts).sum::<u64>() + carried, 5 + after);
            let rows = retiring.turn(now + GRACE * after as u32, &[idle(1)], &mut ledger).unwrap();
            carried += taken(rows)
                .into_iter()
                .map(|(generation, attempts)| attempts * u64::from(generation))
                .sum::<u64>();
            ledger.begin(key(1));
        }
        assert!(carried > 20, "{carried}");
    }

    #[test]
    fn a_row_that_nobody_reaches_takes_no_capacity_among_those_that_are_closed() {
        let mut ledger = Ledger::of(&[(key(1), 1), (key(2), 2), (key(3), 3)]);
        let (mut retiring, now) = (Retiring::default(), Instant::now());
        let unreachable = Idle { is_reachable: false, ..idle(1) };
        let all = [unreachable, idle(2), idle(3)];
        retiring.turn(now, &all, &mut ledger).unwrap();
        let mut first = taken(retiring.turn(now + GRACE, &all, &mut ledger).unwrap());
        first.sort_unstable();
        assert_eq!(first, [(1, 1), (2, 2)]);
        assert_eq!(taken(retiring.turn(now + GRACE * 2, &all, &mut ledger).unwrap()), [(3, 3)]);
    }
}
