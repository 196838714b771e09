//! Whether the handshakes with an address take longer than they used to.

use jiff::Timestamp;
use proxytrace_ebpf::abi::{DURATION_BOUNDS_NS, DURATION_BUCKETS};

use crate::{findings::evidence::Streak, model::Counts};

/// So many handshakes make a past that others can be held against.
const MIN_PAST: u64 = 100;
/// The past halves when it has so many, so that it follows what changes over days.
const MAX_PAST: u64 = 8192;
/// Slow is what is at least so many buckets above where 99 of 100 handshakes were, with two in between: at least four times as long.
const BUCKETS_ABOVE: usize = 3;
/// What is quicker than this is nobody's trouble, however quick it was before. The bucket of 10 to 25 ms.
const MIN_SLOW_BUCKET: usize = 8;
/// Fewer slow handshakes in a row prove nothing: three lost SYNs at once look the same.
const MIN_SLOW: u64 = 10;

const _: () = assert!(DURATION_BOUNDS_NS[MIN_SLOW_BUCKET] == 25_000_000, "the bucket that the comment names");

/// How long the handshakes with one address take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes {
    past: [u64; DURATION_BUCKETS],
    /// The slow ones of the last tick that had others too. Slow times may begin with them, and then they are no past.
    held: [u64; DURATION_BUCKETS],
    streak: Streak,
    slow_sum_us: u64,
}

impl Handshakes {
    /// Takes in what was counted between two ticks.
    pub(super) fn add(&mut self, time: Timestamp, seen: &Counts) {
        let all = sum(&seen.durations);
        let Some(slow_from) = self.slow_from() else {
            // What makes the past is normal by it.
            self.streak.add(time, all, 0);
            self.remember(&seen.durations);
            return;
        };
        let slow = sum(&seen.durations[slow_from..]);
        let normal = all - slow;
        let was_slow = self.is_slow();
        self.streak.add(time, normal, slow);
        if normal > 0 {
            self.slow_sum_us = 0;
            let held = std::mem::take(&mut self.held);
            if !was_slow {
                self.remember(&held);
                self.held[slow_from..].copy_from_slice(&seen.durations[slow_from..]);
            }
            self.remember(&seen.durations[..slow_from]);
        } else {
            self.slow_sum_us = self.slow_sum_us.saturating_add(seen.duration_sum_us);
        }
    }

    /// Whether all of them are slow now.
    pub(crate) const fn is_slow(&self) -> bool {
        self.streak.is_proof() && self.streak.run() >= MIN_SLOW
    }

    /// The slow ones in a row.
    pub(crate) const fn slow(&self) -> &Streak {
        &self.streak
    }

    /// How long the slow ones took on average, in microseconds.
    pub(crate) fn slow_us(&self) -> u64 {
        self.slow_sum_us.checked_div(self.streak.run()).unwrap_or(0)
    }

    /// Within what 99 of 100 handshakes were completed before, in microseconds.
    pub(crate) fn usual_us(&self) -> u64 {
        self.usual().and_then(|bucket| DURATION_BOUNDS_NS.get(bucket)).map_or(0, |ns| ns / 1000)
    }

    /// The same, of however few handshakes.
    pub(super) fn known_us(&self) -> Option<u64> {
        self.percentile().map(|bucket| DURATION_BOUNDS_NS.get(bucket).map_or(u64::MAX, |ns| ns / 1000))
    }

    /// The bucket in which the 99th of 100 past handshakes is, where there are enough to tell.
    fn usual(&self) -> Option<usize> {
        self.percentile().filter(|_| self.past.iter().sum::<u64>() >= MIN_PAST)
    }

    fn percentile(&self) -> Option<usize> {
        let all: u64 = self.past.iter().sum();
        let mut above = all;
        let position = self.past.iter().position(|n| {
            above -= n;
            above * 100 <= all
        });
        position.filter(|_| all > 0)
    }

    /// The first bucket whose handshakes are slow; none where there is no past, or nothing is above it.
    fn slow_from(&self) -> Option<usize> {
        self.usual()
            .map(|usual| (usual + BUCKETS_ABOVE).max(MIN_SLOW_BUCKET))
            .filter(|from| *from < DURATION_BUCKETS)
    }

    fn remember(&mut self, durations: &[u64]) {
        for (past, n) in self.past.iter_mut().zip(durations) {
            *past = past.saturating_add(*n.min(&MAX_PAST));
        }
        while self.past.iter().sum::<u64>() >= MAX_PAST {
            self.past.iter_mut().for_each(|n| *n /= 2);
        }
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().copied().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::{Counts, Handshakes, Timestamp};

    /// Ticks with their handshakes: how many, and in which bucket.
    fn handshakes(ticks: &[(u64, usize)]) -> Handshakes {
        let ticks: Vec<_> = ticks.iter().map(|tick| [*tick, (0, 0)]).collect();
        mixed(&ticks)
    }

    /// The same of ticks with handshakes of two kinds.
    fn mixed(ticks: &[[(u64, usize); 2]]) -> Handshakes {
        let mut handshakes = Handshakes::default();
        for (tick, kinds) in ticks.iter().enumerate() {
            let mut seen = Counts::default();
            for (n, bucket) in kinds {
                seen.durations[*bucket] += n;
                seen.duration_sum_us += n * 1_200_000;
            }
            handshakes.add(Timestamp::from_second(tick as i64).unwrap(), &seen);
        }
        handshakes
    }

    #[test]
    fn slow_is_held_against_the_past_of_the_address() {
        let check = |what: &str, ticks: &[(u64, usize)], expected: bool| {
            assert_eq!(handshakes(ticks).is_slow(), expected, "{what}");
        };
        check("no past", &[(20, 14)], false);
        check("a past too short", &[(99, 3), (20, 14)], false);
        check("seconds instead of milliseconds", &[(200, 3), (5, 14), (5, 14)], true);
        check("a few only", &[(200, 3), (9, 14)], false);
        check("a normal one in between", &[(200, 3), (9, 14), (1, 3), (9, 14)], false);
        check("it was over", &[(200, 3), (20, 14), (1, 3)], false);
        check("quicker than anybody cares for", &[(200, 0), (50, 6)], false);
        check("far away, and as far as ever", &[(200, 10), (50, 11)], false);
        check("far away, and a little farther", &[(200, 10), (50, 12)], false);
        check("far away, and much farther", &[(200, 10), (50, 13)], true);
        check("nothing is above the last bucket", &[(200, 19), (50, 19)], false);
    }

    #[test]
    fn slow_times_are_no_past_from_the_tick_that_they_begin_in() {
        let check = |what: &str, ticks: &[&[[(u64, usize); 2]]], expected: bool| {
            assert_eq!(mixed(&ticks.concat()).is_slow(), expected, "{what}");
        };
        let quick = &[[(200, 3), (0, 0)]][..];
        let (mixed, slow) = (&[[(100, 3), (100, 14)]][..], &[[(100, 14), (0, 0)]][..]);
        check("they begin within a tick", &[quick, mixed, slow], true);
        check("also the second time", &[quick, mixed, slow, mixed, quick, mixed, slow, slow, slow], true);
        check("one in twenty was always slow", &[&[[(95, 3), (5, 14)]; 50], &[[(20, 14), (0, 0)]]], false);
    }

    #[test]
    fn what_made_the_past_counts_as_normal() {
        let ticks =
            [[(120, 0), (0, 0)], [(1, 1), (1, 13)], [(4, 13), (0, 0)], [(4, 13), (0, 0)], [(4, 13), (0, 0)]];
        assert!(mixed(&ticks).is_slow(), "all that is known of was in one tick");
    }

    #[test]
    fn both_times_are_reported() {
        let handshakes = handshakes(&[(200, 3), (10, 14)]);
        assert_eq!((handshakes.usual_us(), handshakes.slow_us()), (500, 1_200_000));
    }
}
