//! How long requests wait at an address, as far as looks have found out, and when one waits for longer than is usual there. Pure.

use std::time::{Duration, Instant};

/// A request that has waited for so long shows in the gauges.
pub(super) const SHOWN: Duration = Duration::from_secs(1);

/// A request has waited long after so much, or a quarter of the proxy's read timeout; and where it is not known how long answers take
/// at this address, after three quarters: a long poll is answered in its time.
const OVERDUE: Duration = Duration::from_secs(5);

/// So many answers show how long they take, as many as requests without one are proof: a single one says little of the next.
const KNOWN: u64 = 3;

/// So many requests that waited long, over the time of a read timeout in which none was answered, say as much as an answer would.
const IN_VAIN: u64 = 20;

/// How long it is remembered how long answers took: in so many parts, of which the oldest is forgotten at a time.
const MEMORY: Duration = Duration::from_secs(3600);
const PARTS: usize = 6;

/// What is usual at an address.
#[derive(Debug, Default)]
pub(super) struct Usual {
    longest: Longest,
    /// The same of requests that may as well have been left by their clients.
    possibly: Longest,
    /// How often something was answered since it is known, about.
    answers: u64,
    /// Requests that waited for longer than [`Usual::long_after`], while none was answered, and since when.
    slow: u64,
    slow_since: Option<Instant>,
    /// Requests whose clients left them after they had waited for longer than is usual, while none was answered, how many of them were
    /// shown to findings, and since when.
    left: u64,
    left_counted: u64,
    left_since: Option<Instant>,
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

impl Usual {
    /// After how long a request has waited for too long.
    pub(super) fn overdue_after(&mut self, now: Instant, read_timeout: Duration) -> Duration {
        if self.knows_answers() || self.has_been_asked_in_vain(now, read_timeout) {
            self.long_after(now, read_timeout)
        } else {
            read_timeout * 3 / 4
        }
    }

    /// Whether it is known how long answers take.
    const fn knows_answers(&self) -> bool {
        self.answers >= KNOWN
    }

    /// Notes answers.
    pub(super) fn note_answers(&mut self, answers: u64) {
        self.answers = self.answers.saturating_add(answers.max(1));
        (self.slow, self.slow_since) = (0, None);
        (self.left, self.left_counted, self.left_since) = (0, 0, None);
    }

    /// Notes requests that clients have left after they had waited for long; gives how many show by now that nothing answers.
    pub(super) fn note_left(&mut self, now: Instant, requests: u64) -> u64 {
        let since = *self.left_since.get_or_insert(now);
        self.left += requests;
        if self.left < IN_VAIN || now.saturating_duration_since(since) < OVERDUE {
            return 0;
        }
        self.left - std::mem::replace(&mut self.left_counted, self.left)
    }

    /// Whether a client that leaves after so long has waited for longer than is usual; where its request was overdue it is counted already.
    pub(super) fn is_left_late(&mut self, now: Instant, waited: Duration, was_overdue: bool) -> bool {
        !was_overdue && self.knows_answers() && waited >= SHOWN.max(self.longest.get(now) * 2)
    }

    /// Notes that a request which was answered had waited for so long at most.
    pub(super) fn note_wait(&mut self, now: Instant, waited: Duration) {
        self.longest.note(now, waited);
    }

    /// Notes that a request had waited for so long at most, and was answered or not.
    pub(super) fn note_possible_wait(&mut self, now: Instant, waited: Duration) {
        self.possibly.note(now, waited);
    }

    /// Notes how long requests had waited at most whose connections have ended, the shortest first, of which so many ended answered in that
    /// time and so many unanswered. Gives how many of them were answered at least.
    pub(super) fn note_gone(
        &mut self,
        now: Instant,
        waits: &[Duration],
        (ended_answered, ended_unanswered): (u64, u64),
    ) -> usize {
        let unanswered = usize::try_from(ended_unanswered).unwrap_or(usize::MAX);
        let mut answered = waits.len().saturating_sub(unanswered);
        if unanswered > 0 {
            answered = answered.min(usize::try_from(ended_answered).unwrap_or(usize::MAX));
        }
        // Which ones they were is not known: of so many the longest has waited at least as long as if they were the shortest.
        if let Some(waited) = answered.checked_sub(1).and_then(|last| waits.get(last)) {
            self.note_answers(answered as u64);
            self.note_wait(now, *waited);
        }
        if let Some(waited) = waits.last().filter(|_| ended_answered > 0) {
            self.note_possible_wait(now, *waited);
        }
        answered
    }

    /// Whether anything was answered.
    pub(super) const fn has_answered(&self) -> bool {
        self.answers > 0
    }

    /// Whether it is known how long answers take although there was none: clients left before the proxy would have.
    fn has_been_asked_in_vain(&self, now: Instant, read_timeout: Duration) -> bool {
        let is_long = |since| now.saturating_duration_since(since) >= read_timeout;
        self.slow >= IN_VAIN && self.slow_since.is_some_and(is_long)
    }

    /// Notes that a request has waited for longer than is usual.
    pub(super) fn note_slow(&mut self, now: Instant) {
        self.slow += 1;
        self.slow_since.get_or_insert(now);
    }

    /// The same where how much is known of answers does not matter.
    pub(super) fn long_after(&mut self, now: Instant, read_timeout: Duration) -> Duration {
        OVERDUE.min(read_timeout / 4).max(self.longest.get(now) * 2)
    }

    /// The same for what is no finding: nothing is said of a request that waits no longer than those that may have been answered.
    pub(super) fn late_after(&mut self, now: Instant, read_timeout: Duration) -> Duration {
        self.long_after(now, read_timeout).max(self.possibly.get(now) * 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Longest, Usual};

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
        let check = |answers: u64, longest: u64, read_timeout: u64, expected_ms: (u64, u64)| {
            let mut at = Usual { answers, ..Usual::default() };
            at.longest.note(now, Duration::from_secs(longest));
            let read_timeout = Duration::from_secs(read_timeout);
            let overdue = at.overdue_after(now, read_timeout).as_millis() as u64;
            let long = at.long_after(now, read_timeout).as_millis() as u64;
            assert_eq!((overdue, long), expected_ms, "{answers} answers of {read_timeout:?}");
        };
        check(3, 0, 60, (5_000, 5_000));
        check(3, 0, 4, (1_000, 1_000));
        check(3, 30, 60, (60_000, 60_000));
        check(0, 0, 60, (45_000, 5_000));
        check(0, 0, 4, (3_000, 1_000));
        // One page, and then polls: how long those take is not known by it.
        check(1, 0, 60, (45_000, 5_000));
        check(2, 0, 60, (45_000, 5_000));
    }

    #[test]
    fn what_became_of_requests_is_known_by_how_many_connections_ended_in_which_way() {
        let now = Instant::now();
        // How long they had waited; ended answered, and unanswered; at least answered; when one is overdue, and late.
        let check = |waits: &[u64], ended: (u64, u64), expected: (usize, u64, u64)| {
            let mut at = Usual { answers: 3, ..Usual::default() };
            let gone: Vec<_> = waits.iter().map(|wait| Duration::from_secs(*wait)).collect();
            let answered = at.note_gone(now, &gone, ended);
            let (overdue, late) = (at.overdue_after(now, MINUTE), at.late_after(now, MINUTE));
            assert_eq!((answered, overdue.as_secs(), late.as_secs()), expected, "{waits:?} {ended:?}");
        };
        check(&[30, 30], (2, 0), (2, 60, 60));
        check(&[30, 30], (0, 0), (2, 60, 60));
        check(&[30, 30], (0, 2), (0, 5, 5));
        // Polls that were answered together, and clients that left after two seconds, in this second or the next.
        check(&[2, 2, 30, 30, 30, 30, 30], (5, 4), (3, 60, 60));
        // A poll, and clients that left within a second, most of which no look has found: it may have been one of those that was answered.
        check(&[1, 30], (1, 6), (0, 5, 60));
        // A page that hangs, while others are answered at once.
        check(&[30], (50, 1), (0, 5, 60));
    }

    #[test]
    fn requests_that_wait_in_vain_for_as_long_as_a_read_timeout_are_overdue_at_once() {
        let (begin, timeout) = (Instant::now(), MINUTE);
        let mut at = Usual::default();
        (0..20).for_each(|_| at.note_slow(begin));
        assert_eq!(at.overdue_after(begin + MINUTE / 2, timeout), MINUTE * 3 / 4);
        assert_eq!(at.overdue_after(begin + MINUTE, timeout), Duration::from_secs(5));
        assert_eq!(at.overdue_after(begin + MINUTE, timeout * 60), MINUTE * 45, "a long poll");
        at.note_answers(1);
        assert_eq!(at.overdue_after(begin + MINUTE, timeout), MINUTE * 3 / 4, "it was not in vain");
    }

    #[test]
    fn requests_that_clients_leave_one_after_the_other_are_in_vain() {
        let begin = Instant::now();
        let mut at = Usual::default();
        at.note_answers(2);
        let seconds = Duration::from_secs;
        assert!(!at.is_left_late(begin, seconds(2), false), "it is not known how long answers take");
        at.note_answers(1);
        assert!(at.is_left_late(begin, seconds(2), false));
        assert!(!at.is_left_late(begin, seconds(1) / 2, false), "that is soon");
        assert!(!at.is_left_late(begin, seconds(2), true), "it is counted already");
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(at.note_left(after(0), 30), 0, "a page that many had open at once");
        assert_eq!(at.note_left(after(6), 2), 32);
        assert_eq!(at.note_left(after(7), 2), 2);
        at.note_answers(1);
        assert_eq!(at.note_left(after(8), 19), 0, "something was answered");
        assert_eq!(at.note_left(after(14), 1), 20);
        at.longest.note(begin, Duration::from_secs(3));
        assert!(!at.is_left_late(begin, seconds(5), false), "answers take long as well");
    }
}
