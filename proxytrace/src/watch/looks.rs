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

use super::{
    Watch,
    rows::RowName,
    usual::{SHOWN, Usual},
};
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

/// So long a handshake of TLS may take, and what is like it: what comes within is no evidence that requests are answered.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// So many retransmission timeouts in a row, none of which anything was heard within, show that nobody is there.
const UNHEARD: u32 = 3;

/// An address has one record of it in so long.
const RECORD_INTERVAL: Duration = Duration::from_secs(60);

/// What looks have found.
#[derive(Debug)]
pub(super) struct Looks {
    last: Instant,
    /// When the last pass began, boot time in nanoseconds.
    last_ns: u64,
    /// Where the next pass begins, where one does not reach the end.
    next: usize,
    connections: HashMap<u64, Known>,
    /// Those on which a request waited, and that the last look did not find any more.
    gone: Vec<Known>,
    rows: HashMap<RowKey, AtRow>,
}

/// A connection as the last look has found it.
#[derive(Clone, Copy, Debug)]
struct Known {
    row: RowKey,
    established_ns: u64,
    received: u64,
    waiting_ns: u64,
    turns: u32,
    is_overdue: bool,
    is_late: bool,
}

impl Known {
    /// For how long a request had waited on it.
    const fn waited(&self) -> Duration {
        Duration::from_nanos(self.waiting_ns)
    }
}

/// What was found of the connections that count for a row.
#[derive(Debug, Default)]
struct AtRow {
    found: Found,
    /// When a look has last found an answer.
    answered: Option<Timestamp>,
    usual: Usual,
    recorded: Option<Instant>,
    /// How connections had ended by the last look, and by the one before.
    ended: Ended,
    ended_before: Ended,
}

/// How many connections of a row have ended, and how.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    /// With nothing waiting, after an answer.
    answered: u64,
    /// While a request waited.
    unanswered: u64,
    /// Of those, because the proxy did not wait any longer, before its read timeout: clients left.
    left: u64,
}

impl Ended {
    /// What has ended since then.
    const fn since(&self, earlier: &Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(earlier.answered),
            unanswered: self.unanswered.saturating_sub(earlier.unanswered),
            left: self.left.saturating_sub(earlier.left),
        }
    }
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

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            last: Instant::now(),
            last_ns: boot_ns(),
            next: 0,
            connections: HashMap::new(),
            gone: Vec::new(),
            rows: HashMap::new(),
        }
    }

    /// What was found of the connections of a row, where any was looked at.
    pub(super) fn found(&self, row: &RowKey) -> Option<&Found> {
        self.rows.get(row).map(|at| &at.found)
    }

    /// When something was last answered, by row.
    pub(super) fn answered(&self) -> impl Iterator<Item = (&RowKey, Timestamp)> {
        self.rows.iter().filter_map(|(row, at)| Some((row, at.answered?)))
    }

    /// What waits, by row.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&RowKey, &Waiting)> {
        self.rows
            .iter()
            .map(|(row, at)| (row, &at.found.waiting))
            .filter(|(_, waiting)| waiting.connections > 0)
    }

    /// Notes what became of requests that waited at the last look, and whose connections are gone: by row, how many clients have left
    /// theirs late. What ends between the counting and a look is counted only before the next look, and judged then.
    fn note_gone(
        &mut self,
        now: Instant,
        before: &HashMap<u64, Known>,
        looked: &[(u64, Connection, Seen)],
        ended: &HashMap<RowKey, Ended>,
    ) -> HashMap<RowKey, u64> {
        let is_there =
            |connection: &Connection, seen: &Seen| seen.established_ns == connection.established_ns;
        let there: HashMap<u64, u64> = looked
            .iter()
            .filter(|(_, connection, seen)| is_there(connection, seen))
            .map(|(id, _, seen)| (*id, seen.established_ns))
            .collect();
        let is_gone = |(id, known): &(&u64, &Known)| {
            known.waiting_ns > 0 && there.get(*id) != Some(&known.established_ns)
        };
        let gone: Vec<_> = before.iter().filter(is_gone).map(|(_, known)| *known).collect();
        for known in &gone {
            let at = self.rows.entry(known.row).or_default();
            if ended.get(&known.row).is_some_and(|ended| ended.answered > at.ended.answered) {
                at.usual.note_possible_wait(now, known.waited() + INTERVAL);
            }
        }
        let mut waited: HashMap<RowKey, Vec<Known>> = HashMap::new();
        for known in std::mem::replace(&mut self.gone, gone) {
            waited.entry(known.row).or_default().push(known);
        }
        let mut left_late = HashMap::new();
        for (row, mut gone) in waited {
            let at = self.rows.entry(row).or_default();
            gone.sort_unstable_by_key(|known| known.waiting_ns);
            let since = ended.get(&row).map_or(Ended::default(), |ended| ended.since(&at.ended_before));
            let waits: Vec<_> = gone.iter().map(|known| known.waited() + INTERVAL).collect();
            let answered = at.usual.note_gone(now, &waits, (since.answered, since.unanswered));
            if answered == 0 {
                let is_late = |known: &&Known| at.usual.is_left_late(now, known.waited(), known.is_overdue);
                left_late.insert(row, gone.iter().filter(is_late).count() as u64);
            }
        }
        left_late
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
    let row = connection.attempt.row.first();
    if connection.attempt.row.is_in_other() { RowKey { address: abi::Address::ZERO, ..row } } else { row }
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
        ended: &HashMap<RowKey, Ended>,
    ) -> Vec<Record> {
        let (now, time) = (Instant::now(), Timestamp::now());
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
                note_waiting(&mut at.found.waiting, known.waiting_ns, known.is_overdue, false, known.is_late);
                self.looks.connections.insert(id, known);
            }
        }
        let left_late = self.looks.note_gone(now, &before, &looked, ended);
        for (id, connection, seen) in looked {
            let row = row_of(&connection);
            if seen.established_ns != connection.established_ns {
                continue; // gone meanwhile: below
            }
            let earlier = before.remove(&id).filter(|known| known.established_ns == seen.established_ns);
            let at = self.looks.rows.entry(row).or_default();
            let has_grown = |known: &Known| known.received < seen.received;
            let is_answer =
                || is_past_handshake(&seen, before_ns) || begins_with_an_answer(&self.naming, &row);
            if let Some(known) = earlier.filter(|known| has_grown(known) && is_answer()) {
                at.found.answered += 1;
                at.answered = Some(time);
                at.usual.note_answers(seen.turns.saturating_sub(known.turns).into());
                if known.waiting_ns > 0 {
                    at.usual.note_wait(now, Duration::from_nanos(known.waiting_ns) + INTERVAL);
                }
            }
            // One that was made since the look before, and may be kept for long without another request.
            let is_new = earlier.is_none() && seen.established_ns > before_ns;
            let has_answer = seen.received > 0 && seen.asked == Asked::Answered as u32;
            if is_new && has_answer && begins_with_an_answer(&self.naming, &row) {
                at.found.answered += 1;
                at.answered = Some(time);
                at.usual.note_answers(seen.turns.into());
            }
            let was_overdue =
                earlier.is_some_and(|known| known.is_overdue && known.received == seen.received);
            let is_unheard = seen.waiting_ns > 0 && seen.unheard >= UNHEARD;
            let (mut is_overdue, mut is_late) = (false, is_unheard);
            if seen.waiting_ns >= SHOWN.as_nanos() as u64 {
                let waited = Duration::from_nanos(seen.waiting_ns);
                let had_waited =
                    Duration::from_nanos(earlier.map_or(0, |known| known.waiting_ns).min(seen.waiting_ns));
                let mut has_sign = is_unheard;
                if let Some((shortest, longest)) = read_timeouts(&self.naming, &row) {
                    // Which route it is on is not known: it may be the most patient one.
                    is_overdue =
                        seen.unheard == 0 && (was_overdue || waited >= at.usual.overdue_after(now, longest));
                    let long_after = at.usual.long_after(now, longest);
                    if had_waited < long_after && waited >= long_after {
                        at.usual.note_slow(now);
                    }
                    // Where nothing was answered yet it may be a long poll.
                    is_late |= (is_overdue || at.usual.has_answered())
                        && waited >= at.usual.late_after(now, longest);
                    has_sign |= waited >= at.usual.late_after(now, shortest);
                }
                let is_due = at.recorded.is_none_or(|last| last.elapsed() >= RECORD_INTERVAL);
                if is_due && has_sign {
                    at.recorded = Some(now);
                    signs.push((row, connection, seen));
                }
            }
            at.found.overdue += u64::from(is_overdue && !was_overdue);
            at.found.unheard += u64::from(is_unheard);
            note_waiting(&mut at.found.waiting, seen.waiting_ns, is_overdue, is_unheard, is_late);
            let Seen { established_ns, received, waiting_ns, turns, .. } = seen;
            self.looks
                .connections
                .insert(id, Known { row, established_ns, received, waiting_ns, turns, is_overdue, is_late });
        }
        for (row, ended) in ended {
            if let Some(at) = self.looks.rows.get_mut(row) {
                let left = ended.since(&at.ended_before).left;
                let left = left_late.get(row).copied().unwrap_or(0).min(left);
                if left > 0 {
                    at.found.overdue += at.usual.note_left(now, left);
                }
                at.ended_before = std::mem::replace(&mut at.ended, *ended);
            }
        }
        signs.into_iter().filter_map(|(row, connection, seen)| self.sign(&row, &connection, &seen)).collect()
    }

    /// The record of a request without an answer.
    fn sign(&mut self, row: &RowKey, connection: &Connection, seen: &Seen) -> Option<Record> {
        let RowName::Destination(destination) = self.name_row(row).ok()? else { return None };
        let route = Route {
            proxy: destination.proxy,
            pid: connection.attempt.pid,
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

    /// Notes that requests were answered at a row, by what connections have counted that have ended: no look may have found any.
    pub(super) fn note_answered(&mut self, row: RowKey, answers: u64) {
        self.looks.rows.entry(row).or_default().usual.note_answers(answers);
    }

    /// Forgets the rows that are not there any more.
    pub(super) fn forget_looks(&mut self, is_there: impl Fn(&RowKey) -> bool) {
        let used: HashSet<RowKey> = self.looks.connections.values().map(|known| known.row).collect();
        self.looks.rows.retain(|row, _| used.contains(row) || is_there(row));
    }
}

/// How the connections of each row have ended.
fn ended(snapshot: &Snapshot) -> HashMap<RowKey, Ended> {
    let of = |row: &Row| {
        let broken = Broken::ALL.into_iter().filter(|broken| broken.is_unanswered());
        let broken: u64 = broken.map(|broken| row.broken[broken as usize]).sum();
        Ended { answered: row.answered, unanswered: row.abandoned + broken, left: row.abandoned }
    };
    snapshot.rows.iter().map(|(key, row)| (*key, of(row))).collect()
}

fn note_waiting(waiting: &mut Waiting, waiting_ns: u64, is_overdue: bool, is_unheard: bool, is_late: bool) {
    let is_shown = waiting_ns >= SHOWN.as_nanos() as u64;
    waiting.add(&Waiting {
        connections: is_shown.into(),
        overdue: is_overdue.into(),
        unheard: is_unheard.into(),
        late: is_late.into(),
        oldest_ms: if is_shown { u32::try_from(waiting_ns / 1_000_000).unwrap_or(u32::MAX) } else { 0 },
    });
}

/// Whether what has come since the look before can be none of the handshake of TLS, which is all that comes at first.
fn is_past_handshake(seen: &Seen, before_ns: u64) -> bool {
    seen.established_ns.saturating_add(HANDSHAKE.as_nanos() as u64) <= before_ns
}

fn begins_with_an_answer(naming: &Naming, row: &RowKey) -> bool {
    let address = Address::of_abi(&row.address, None);
    naming.peer_settings(of_row(row)).is_some_and(|settings| settings.begins_with_an_answer(&address))
}

fn read_timeouts(naming: &Naming, row: &RowKey) -> Option<(Duration, Duration)> {
    let address = Address::of_abi(&row.address, None);
    naming.peer_settings(of_row(row))?.read_timeouts(&address)
}

#[cfg(test)]
mod tests {
    use super::{Seen, is_past_handshake};

    #[test]
    fn what_comes_at_first_may_be_a_handshake() {
        let second = 1_000_000_000;
        let seen = Seen { established_ns: 5 * second, ..Seen::ZERO };
        // By when the look before was.
        let check =
            |before_ns, expected| assert_eq!(is_past_handshake(&seen, before_ns), expected, "{before_ns}");
        check(5 * second + second / 2, false);
        check(6 * second, true);
        check(4 * second, false);
    }
}
