//! Looks at the connections that live, once a second at most: which requests wait for an answer, and for how long. What that says about
//! an address goes to findings beside the counts of its row, and to the gauges.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use proxytrace_ebpf::{
    abi::{self, Asked, Connection, Loss, Row, RowKey, Seen, capacity},
    outcome::Broken,
};

use super::{Watch, rows::RowName};
use crate::{
    kernel::{Error, Snapshot, Tracer, boot_ns},
    model::{Address, Body, Counts, Record, Route, Unanswered, Waiting},
    naming::{Naming, of_row},
};

/// So often at the most; ticks come as often at the least.
const INTERVAL: Duration = Duration::from_millis(950);

/// No pass looks at more connections, or takes longer. The rest has its turn in the next.
const MOST: usize = 65_536;
const LONGEST: Duration = Duration::from_millis(20);

/// A request that has waited for so long shows in the gauges.
const SHOWN: Duration = Duration::from_secs(1);

/// A request has waited long after so much, or a quarter of the proxy's read timeout; and where it is not known how long answers take
/// at this address, after three quarters: a long poll is answered in its time.
const OVERDUE: Duration = Duration::from_secs(5);

/// So many retransmission timeouts in a row, none of which anything was heard within, show that nobody is there.
const UNHEARD: u32 = 3;

/// An address has one record of it in so long.
const RECORD_INTERVAL: Duration = Duration::from_secs(60);

/// How long it is remembered how long answers took: in so many parts, of which the oldest is forgotten at a time.
const MEMORY: Duration = Duration::from_secs(3600);
const PARTS: usize = 6;

/// What looks have found.
#[derive(Debug)]
pub(super) struct Looks {
    last: Instant,
    /// When the last pass began, boot time in nanoseconds.
    last_ns: u64,
    /// Where the next pass begins, where one does not reach the end.
    next: usize,
    connections: HashMap<u64, Known>,
    rows: HashMap<RowKey, AtRow>,
}

/// A connection as the last look has found it.
#[derive(Clone, Copy, Debug)]
struct Known {
    row: RowKey,
    established_ns: u64,
    received: u64,
    waiting_ns: u64,
    is_overdue: bool,
}

/// What was found of the connections that count for a row.
#[derive(Debug, Default)]
struct AtRow {
    found: Found,
    longest: Longest,
    /// Whether anything was answered since it is known.
    has_answered: bool,
    recorded: Option<Instant>,
    /// What had ended unanswered by the last look.
    ended: u64,
}

/// What findings are shown of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// How often a look has found that bytes had come since the look before.
    answered: u64,
    overdue: u64,
    unheard: u64,
    pub(super) waiting: Waiting,
}

impl Found {
    /// Adds it to what was counted.
    pub(super) const fn add_to(&self, counts: &mut Counts) {
        counts.answered = counts.answered.saturating_add(self.answered);
        counts.overdue = self.overdue;
        counts.unheard = self.unheard;
        counts.waiting = self.waiting;
    }
}

/// The longest time that a request waited which was answered, within [`MEMORY`].
#[derive(Debug, Default)]
struct Longest {
    parts: [Duration; PARTS],
    begun: Option<Instant>,
}

impl Longest {
    fn note(&mut self, now: Instant, waited: Duration) {
        self.forget(now);
        self.parts[0] = self.parts[0].max(waited);
    }

    fn get(&mut self, now: Instant) -> Duration {
        self.forget(now);
        self.parts.into_iter().max().unwrap_or_default()
    }

    fn forget(&mut self, now: Instant) {
        let part = MEMORY / PARTS as u32;
        let begun = *self.begun.get_or_insert(now);
        let parts = (now.saturating_duration_since(begun).as_secs() / part.as_secs()) as usize;
        if parts > 0 {
            self.parts.rotate_right(parts.min(PARTS));
            self.parts[..parts.min(PARTS)].fill(Duration::ZERO);
            self.begun = Some(now);
        }
    }
}

impl AtRow {
    /// After how long a request has waited for too long.
    fn overdue_after(&mut self, now: Instant, read_timeout: Duration) -> Duration {
        let usual = self.longest.get(now) * 2;
        if self.has_answered { OVERDUE.min(read_timeout / 4).max(usual) } else { read_timeout * 3 / 4 }
    }

    /// The same for a record, which is no finding.
    fn recorded_after(&mut self, now: Instant, read_timeout: Duration) -> Duration {
        OVERDUE.min(read_timeout / 4).max(self.longest.get(now) * 2)
    }
}

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            last: Instant::now(),
            last_ns: boot_ns(),
            next: 0,
            connections: HashMap::new(),
            rows: HashMap::new(),
        }
    }

    /// What was found of the connections of a row, where any was looked at.
    pub(super) fn found(&self, row: &RowKey) -> Option<&Found> {
        self.rows.get(row).map(|at| &at.found)
    }

    /// What waits, by row.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&RowKey, &Waiting)> {
        self.rows
            .iter()
            .map(|(row, at)| (row, &at.found.waiting))
            .filter(|(_, waiting)| waiting.connections > 0)
    }

    /// Looks at as many connections as fit into a pass; gives those that were looked at.
    fn pass(&mut self, tracer: &mut Tracer) -> Result<Vec<(u64, Connection, Seen)>, Error> {
        let all = tracer.connections()?;
        let begun = Instant::now();
        let most = all.len().min(MOST);
        let start = if self.next < all.len() { self.next } else { 0 };
        let order: Vec<_> = (0..most).map(|n| all[(start + n) % all.len()]).collect();
        let mut looked = Vec::with_capacity(most);
        for part in order.chunks(capacity::LOOKED_AT as usize) {
            // However long this thread had to wait for a processor, each pass gets on.
            if begun.elapsed() >= LONGEST && !looked.is_empty() {
                break;
            }
            let ids: Vec<_> = part.iter().map(|(id, _)| *id).collect();
            let seen = tracer.look(&ids)?;
            looked.extend(part.iter().zip(seen).map(|((id, connection), seen)| (*id, *connection, seen)));
        }
        let left = all.len() - looked.len();
        self.next = if left == 0 { 0 } else { start + looked.len() };
        tracer.count_loss(Loss::NotLookedAt, left as u64);
        tracing::trace!("looked at {} of {} connections in {:?}", looked.len(), all.len(), begun.elapsed());
        // Those that could not be looked at stay as they were known; those that are gone do not.
        if left == 0 {
            return Ok(looked);
        }
        let there: HashMap<u64, u64> =
            all.iter().map(|(id, connection)| (*id, connection.established_ns)).collect();
        self.connections.retain(|id, known| there.get(id) == Some(&known.established_ns));
        Ok(looked)
    }
}

/// The row that a connection counts for, as a snapshot has it.
fn row_of(connection: &Connection) -> RowKey {
    let row = connection.row.first();
    if connection.row.is_in_other() { RowKey { address: abi::Address::ZERO, ..row } } else { row }
}

impl Watch {
    /// Looks at the connections, if it is time to. Gives the first signs of requests without an answer.
    ///
    /// # Errors
    /// A map could not be read.
    pub(super) fn look_at_connections(&mut self, snapshot: &Snapshot) -> Result<Vec<Record>, Error> {
        if self.looks.last.elapsed() < INTERVAL || self.tracer.cannot_look().is_some() {
            return Ok(Vec::new());
        }
        self.looks.last = Instant::now();
        let before_ns = std::mem::replace(&mut self.looks.last_ns, boot_ns());
        let looked = self.looks.pass(&mut self.tracer)?;
        let is_whole = self.looks.next == 0;
        Ok(self.take_in(looked, before_ns, is_whole, &ended(snapshot)))
    }

    fn take_in(
        &mut self,
        looked: Vec<(u64, Connection, Seen)>,
        before_ns: u64,
        is_whole: bool,
        ended: &HashMap<RowKey, u64>,
    ) -> Vec<Record> {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.looks.connections);
        let mut signs: Vec<(RowKey, Connection, Seen)> = Vec::new();
        for at in self.looks.rows.values_mut() {
            at.found.waiting = Waiting::default();
        }
        if !is_whole {
            // What has no turn in this pass is as it was.
            let has_turn: HashSet<u64> = looked.iter().map(|(id, ..)| *id).collect();
            let (turn, rest): (HashMap<_, _>, HashMap<_, _>) =
                before.into_iter().partition(|(id, _)| has_turn.contains(id));
            before = turn;
            for (id, known) in rest {
                let at = self.looks.rows.entry(known.row).or_default();
                note_waiting(&mut at.found.waiting, known.waiting_ns, known.is_overdue, false);
                self.looks.connections.insert(id, known);
            }
        }
        for (id, connection, seen) in looked {
            let row = row_of(&connection);
            if seen.established_ns != connection.established_ns {
                continue; // gone meanwhile: below
            }
            let earlier = before.remove(&id).filter(|known| known.established_ns == seen.established_ns);
            let at = self.looks.rows.entry(row).or_default();
            if let Some(known) = earlier.filter(|known| known.received < seen.received) {
                at.found.answered += 1;
                at.has_answered = true;
                if known.waiting_ns > 0 {
                    at.longest.note(now, Duration::from_nanos(known.waiting_ns) + INTERVAL);
                }
            }
            // One that was made since the look before, and may be kept for long without another request.
            let is_new = earlier.is_none() && seen.established_ns > before_ns;
            let has_answer = seen.received > 0 && seen.asked == Asked::Answered as u32;
            if is_new && has_answer && begins_with_an_answer(&self.naming, &row) {
                at.found.answered += 1;
                at.has_answered = true;
            }
            let was_overdue =
                earlier.is_some_and(|known| known.is_overdue && known.received == seen.received);
            let is_unheard = seen.waiting_ns > 0 && seen.unheard >= UNHEARD;
            let mut is_overdue = false;
            if seen.waiting_ns >= SHOWN.as_nanos() as u64 {
                let read_timeout = read_timeout(&self.naming, &row);
                let waited = Duration::from_nanos(seen.waiting_ns);
                let after = read_timeout.map(|timeout| at.overdue_after(now, timeout));
                is_overdue = seen.unheard == 0 && (was_overdue || after.is_some_and(|after| waited >= after));
                let sign_after = read_timeout.map(|timeout| at.recorded_after(now, timeout));
                let is_due = at.recorded.is_none_or(|last| last.elapsed() >= RECORD_INTERVAL);
                if is_due && (is_unheard || sign_after.is_some_and(|after| waited >= after)) {
                    at.recorded = Some(now);
                    signs.push((row, connection, seen));
                }
            }
            at.found.overdue += u64::from(is_overdue && !was_overdue);
            at.found.unheard += u64::from(is_unheard);
            note_waiting(&mut at.found.waiting, seen.waiting_ns, is_overdue, is_unheard);
            let Seen { established_ns, received, waiting_ns, .. } = seen;
            self.looks
                .connections
                .insert(id, Known { row, established_ns, received, waiting_ns, is_overdue });
        }
        // A request that waited on a connection that is gone was answered, where none of the row has ended otherwise.
        for known in before.into_values().filter(|known| known.waiting_ns > 0) {
            let at = self.looks.rows.entry(known.row).or_default();
            if ended.get(&known.row).is_none_or(|ended| *ended == at.ended) {
                at.has_answered = true;
                at.longest.note(now, Duration::from_nanos(known.waiting_ns) + INTERVAL);
            }
        }
        for (row, ended) in ended {
            if let Some(at) = self.looks.rows.get_mut(row) {
                at.ended = *ended;
            }
        }
        signs.into_iter().filter_map(|(row, connection, seen)| self.sign(&row, &connection, &seen)).collect()
    }

    /// The record of a request without an answer.
    fn sign(&mut self, row: &RowKey, connection: &Connection, seen: &Seen) -> Option<Record> {
        let RowName::Destination(destination) = self.name_row(row).ok()? else { return None };
        let route = Route {
            proxy: destination.proxy,
            pid: connection.pid,
            generation: row.generation,
            upstream: destination.upstream,
            address: destination.address,
            local: None,
            backend: None,
        };
        let unanswered =
            Unanswered { route, duration_us: seen.waiting_ns / 1000, acknowledged: seen.unheard == 0 };
        Some(Record { time: Timestamp::now(), body: Body::Unanswered(unanswered) })
    }

    /// Notes that requests were answered at a row, by what connections have counted that have ended.
    pub(super) fn note_answered(&mut self, row: &RowKey) {
        if let Some(at) = self.looks.rows.get_mut(row) {
            at.has_answered = true;
        }
    }

    /// Forgets the rows that are not there any more.
    pub(super) fn forget_looks(&mut self, is_there: impl Fn(&RowKey) -> bool) {
        let used: HashSet<RowKey> = self.looks.connections.values().map(|known| known.row).collect();
        self.looks.rows.retain(|row, _| used.contains(row) || is_there(row));
    }
}

/// How many connections of each row have ended while a request waited.
fn ended(snapshot: &Snapshot) -> HashMap<RowKey, u64> {
    let unanswered = |row: &Row| {
        let broken = Broken::ALL.into_iter().filter(|broken| broken.is_unanswered());
        row.abandoned + broken.map(|broken| row.broken[broken as usize]).sum::<u64>()
    };
    snapshot.rows.iter().map(|(key, row)| (*key, unanswered(row))).collect()
}

fn note_waiting(waiting: &mut Waiting, waiting_ns: u64, is_overdue: bool, is_unheard: bool) {
    let is_shown = waiting_ns >= SHOWN.as_nanos() as u64;
    waiting.add(&Waiting {
        connections: is_shown.into(),
        overdue: is_overdue.into(),
        unheard: is_unheard.into(),
        oldest_ms: if is_shown { u32::try_from(waiting_ns / 1_000_000).unwrap_or(u32::MAX) } else { 0 },
    });
}

fn begins_with_an_answer(naming: &Naming, row: &RowKey) -> bool {
    let address = Address::of_abi(&row.address, None);
    naming.peer_settings(of_row(row)).is_some_and(|settings| settings.begins_with_an_answer(&address))
}

fn read_timeout(naming: &Naming, row: &RowKey) -> Option<Duration> {
    let address = Address::of_abi(&row.address, None);
    naming.peer_settings(of_row(row))?.read_timeout(&address)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{AtRow, Longest};

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_longest_wait_is_remembered_for_an_hour() {
        let begin = Instant::now();
        let mut longest = Longest::default();
        let seconds = |n: u64| Duration::from_secs(n);
        longest.note(begin, seconds(30));
        longest.note(begin + MINUTE * 20, seconds(7));
        assert_eq!(longest.get(begin + MINUTE * 21), seconds(30));
        assert_eq!(longest.get(begin + MINUTE * 75), seconds(7));
        assert_eq!(longest.get(begin + MINUTE * 200), Duration::ZERO);
    }

    #[test]
    fn a_request_is_overdue_when_it_waits_longer_than_is_usual() {
        let now = Instant::now();
        let check = |answered: Option<u64>, read_timeout: u64, expected_ms: (u64, u64)| {
            let mut at = AtRow { has_answered: answered.is_some(), ..AtRow::default() };
            at.longest.note(now, Duration::from_secs(answered.unwrap_or(0)));
            let read_timeout = Duration::from_secs(read_timeout);
            let overdue = at.overdue_after(now, read_timeout).as_millis() as u64;
            let recorded = at.recorded_after(now, read_timeout).as_millis() as u64;
            assert_eq!((overdue, recorded), expected_ms, "{answered:?} of {read_timeout:?}");
        };
        check(Some(0), 60, (5_000, 5_000));
        check(Some(0), 4, (1_000, 1_000));
        check(Some(30), 60, (60_000, 60_000));
        check(None, 60, (45_000, 5_000));
        check(None, 4, (3_000, 1_000));
    }
}
