//! Whether connections that an address accepts are answered.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::{
    findings::evidence::{MIN_FAILURES, Streak},
    model::Counts,
};

/// A connection that has not been broken for so long is taken for one that gets its answer: a wrong service closes sooner.
const ANSWER_TIMEOUT: SignedDuration = SignedDuration::from_secs(2);
/// A service that dies takes its open connections with it, all at once. A wrong one goes on closing what it accepts, and so
/// later than this.
const DEATH_TIMEOUT: SignedDuration = SignedDuration::from_secs(1);
/// A service that is not meant, or that crashes, closes so soon.
const AT_ONCE: SignedDuration = SignedDuration::from_millis(750);
/// How finely connections are distinguished by their time: enough for [`ANSWER_TIMEOUT`], and bounds what is kept.
const RESOLUTION: SignedDuration = SignedDuration::from_millis(100);

/// Connections that were answered and that were not, of one address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service {
    streak: Streak,
    /// Connections that may still be broken, by when they were established.
    young: VecDeque<(Timestamp, u64)>,
    /// Established since the streak began.
    established: u64,
    /// Broken of those.
    broken_later: u64,
    /// Broken within [`AT_ONCE`], since the streak began.
    broken_at_once: u64,
    /// Whether a connection was ever answered, and whether that was seen: one that is merely not broken may be of a protocol that
    /// has no answers.
    has_answered: bool,
    is_seen_to_answer: bool,
    is_wrong: bool,
}

impl Service {
    /// Takes in what was counted between two ticks.
    pub(super) fn add(&mut self, time: Timestamp, seen: &Counts) {
        self.mature(time);
        if seen.answered > 0 {
            self.is_seen_to_answer = true;
            self.note_answers(time, seen.answered);
        }
        let broken = seen.unanswered();
        let of_before = broken.saturating_sub(seen.established());
        let at_once = broken.min(seen.established()).saturating_add(self.take_young(time, of_before));
        self.broken_at_once = self.broken_at_once.saturating_add(at_once);
        if broken > 0 {
            let is_later =
                self.streak.since().is_some_and(|since| time.duration_since(since) >= DEATH_TIMEOUT);
            let of_these =
                if is_later { broken.min(self.established.saturating_add(seen.established())) } else { 0 };
            self.broken_later = self.broken_later.saturating_add(of_these);
            self.streak.add(time, 0, broken);
        }
        // Before the first could have been answered, that none was proves nothing; but that most were broken does.
        let most_are_broken = self.streak.run().saturating_mul(4) >= self.established.saturating_mul(3);
        self.is_wrong |= self.streak.is_proof() && self.broken_later >= MIN_FAILURES && most_are_broken;
        let survivors = seen.established().saturating_sub(broken);
        if self.streak.run() > 0 {
            self.established = self.established.saturating_add(seen.established());
        }
        if survivors > 0 {
            match self.young.back_mut() {
                Some((first, n)) if time.duration_since(*first) < RESOLUTION => {
                    *n = n.saturating_add(survivors);
                }
                _ => self.young.push_back((time, survivors)),
            }
        }
    }

    /// Lets time pass: what has not been broken until now counts as answered. What was established before the first was broken says nothing
    /// of how things are since.
    pub(super) fn mature(&mut self, time: Timestamp) {
        let mut answered = 0_u64;
        while let Some((established, n)) = self.young.front().copied()
            && time.duration_since(established) >= ANSWER_TIMEOUT
        {
            if self.streak.since().is_none_or(|since| established > since) {
                answered = answered.saturating_add(n);
            }
            self.has_answered = true;
            self.young.pop_front();
        }
        if answered > 0 {
            self.note_answers(time, answered);
        }
    }

    /// Whether this is no service that understands the proxy. Stays so until one connection is answered.
    pub(crate) const fn is_wrong(&self) -> bool {
        self.is_wrong
    }

    /// Whether a connection was ever answered here.
    pub(crate) const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether this may be a protocol that has no answers, where the other end closes what is idle.
    pub(crate) const fn may_be_one_way(&self) -> bool {
        !self.is_seen_to_answer && self.broken_at_once.saturating_mul(2) < self.streak.run()
    }

    /// The connections in a row that were not answered.
    pub(crate) const fn unanswered(&self) -> &Streak {
        &self.streak
    }

    /// The broken ones are no longer young. Which they were is not known: the youngest, since a wrong service closes soon. If they
    /// were the oldest, so that one half were closed and one half answered, none would ever count as answered.
    ///
    /// Gives how many of them were established a moment ago.
    fn take_young(&mut self, time: Timestamp, mut broken: u64) -> u64 {
        let mut at_once = 0_u64;
        while broken > 0
            && let Some((established, n)) = self.young.back_mut()
        {
            let taken = broken.min(*n);
            if time.duration_since(*established) < AT_ONCE {
                at_once = at_once.saturating_add(taken);
            }
            *n -= taken;
            broken -= taken;
            if *n == 0 {
                self.young.pop_back();
            }
        }
        at_once
    }

    fn note_answers(&mut self, time: Timestamp, answered: u64) {
        if !self.is_wrong {
            // However many connections it had open, it died once.
            let is_death =
                self.broken_later == 0 && self.broken_at_once.saturating_mul(2) < self.streak.run();
            self.streak.dismiss(if is_death { 1 } else { u64::MAX });
        }
        self.streak.add(time, answered, 0);
        self.has_answered = true;
        (self.established, self.broken_later, self.broken_at_once, self.is_wrong) = (0, 0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::outcome::{Broken, Outcome};

    use super::{Counts, Service, Timestamp};

    /// What is established and what is broken unanswered at each tick, a quarter of a second apart.
    fn check(what: &str, ticks: &[(usize, u64, u64)], expected: bool) {
        let mut service = Service::default();
        let each = ticks
            .iter()
            .flat_map(|(times, established, broken)| std::iter::repeat_n((*established, *broken), *times));
        for (tick, (established, broken)) in each.enumerate() {
            let mut seen = Counts { attempts: established, ..Counts::default() };
            seen.outcomes[Outcome::Established as usize] = established;
            seen.broken[Broken::ClosedBeforeResponse as usize] = broken;
            service.add(Timestamp::from_millisecond(250 * tick as i64).unwrap(), &seen);
        }
        assert_eq!(service.is_wrong(), expected, "{what}");
    }

    #[test]
    fn what_dies_with_its_connections_and_is_wrong_when_it_is_back_is_found_as_soon() {
        // Each is closed from then on, for two seconds.
        let is_wrong = [(8, 1, 1)];
        check("it was well before", &[&[(40, 1, 0), (20, 1, 0)], &is_wrong[..]].concat(), true);
        check("it died", &[&[(40, 1, 0), (1, 0, 20), (20, 1, 0)], &is_wrong[..]].concat(), true);
        // It was wrong, and is on probation.
        check("it was wrong", &[&[(40, 1, 0), (8, 1, 1), (20, 1, 0)], &is_wrong[..]].concat(), false);
    }

    #[test]
    fn a_service_is_wrong_that_goes_on_closing_what_it_accepts() {
        check("each is closed at once", &[(8, 2, 2)], true);
        // The first ones are taken for answered, so it takes longer.
        check("each is closed a second later", &[(4, 2, 0), (200, 2, 2)], true);
        check(
            "a few requests, one a second",
            &[(1, 1, 1), (3, 0, 0), (1, 1, 1), (3, 0, 0), (1, 1, 1), (3, 0, 0), (1, 1, 1)],
            true,
        );
        check("it was well before", &[(100, 2, 0), (20, 2, 2)], true);
        check(
            "it was well a moment before, and answers come a tick later",
            &[(100, 1, 0), (1, 1, 0), (8, 1, 1)],
            true,
        );
        check("all are answered", &[(100, 2, 0)], false);
        check("half are answered", &[(200, 2, 1)], false);
        check(
            "it dies with its connections and comes back",
            &[(40, 5, 0), (1, 5, 100), (20, 0, 0), (40, 5, 0)],
            false,
        );
        check("and has not accepted anything since", &[(40, 5, 0), (1, 5, 100), (20, 0, 0)], false);
        check("it was wrong and is well again", &[(40, 2, 2), (20, 2, 0)], false);
    }
}
