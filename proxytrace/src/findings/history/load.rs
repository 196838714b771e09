//! Whether most handshakes with an address come about as they should: without a SYN sent again, and at all.

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::abi::DURATION_BOUNDS_NS;

use crate::{findings::outcomes::timeouts, model::Counts};

/// A handshake of this bucket or above took more than a second, and so a SYN or its answer was sent again.
const RESENT_BUCKET: usize = 14;
const _: () = assert!(DURATION_BOUNDS_NS[RESENT_BUCKET - 1] == 1_000_000_000, "the bucket above a second");

/// So many of the last handshakes are looked at to find trouble, and to find that it is over.
const RECENT: f64 = 32.0;
const LONG: f64 = 256.0;
/// Trouble is so large a share of the recent ones, at least so many, and it is over when it is so small a share of the long run.
const RAISED_SHARE: f64 = 0.3;
const MIN_TROUBLED: f64 = 8.0;
/// Some succeed.
const MIN_SUCCEEDED: u64 = 2;
const CLEARED_SHARE: f64 = 0.05;

/// Where nothing answers for so long there is no load to speak of.
const HOLE_TIMEOUT: SignedDuration = SignedDuration::from_secs(10);
/// What ends so long after a silence began later, however long it took: the default of nginx's connect timeouts and of most others, and
/// the time in which the kernel gives up (`tcp_syn_retries` 6: 127 s).
const FAILED_WITHIN: SignedDuration = SignedDuration::from_secs(60);
const ENDED_WITHIN: SignedDuration = SignedDuration::from_secs(130);

/// How the last handshakes came about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    recent: Window,
    long: Window,
    is_proof: bool,
    since: Option<Timestamp>,
    seen: Seen,
    silence: Silence,
}

/// A time in which nothing answered. That is another trouble: what began then ends late or fails, whatever the load is afterwards.
#[derive(Clone, Copy, Debug, Default)]
enum Silence {
    #[default]
    Never,
    Since(Timestamp),
    Until(Timestamp),
}

/// What was seen since the trouble began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Handshakes that took over a second, and connects that nothing answered.
    pub(crate) troubled: u64,
    /// All that ended.
    pub(crate) all: u64,
    /// Those that were established: where none is, the address is a black hole.
    succeeded: u64,
    /// SYNs sent again.
    pub(crate) resent: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    good: f64,
    /// Slow ones: they were answered.
    slow: f64,
    failed: f64,
}

impl Window {
    fn add(&mut self, good: u64, slow: u64, failed: u64, capacity: f64) {
        self.good += good as f64;
        self.slow += slow as f64;
        self.failed += failed as f64;
        let excess = self.all() / capacity;
        if excess > 1.0 {
            self.good /= excess;
            self.slow /= excess;
            self.failed /= excess;
        }
    }

    fn all(&self) -> f64 {
        self.good + self.slow + self.failed
    }

    fn troubled(&self) -> f64 {
        self.slow + self.failed
    }

    fn share(&self) -> f64 {
        if self.all() > 0.0 { self.troubled() / self.all() } else { 0.0 }
    }
}

/// How long a handshake of a bucket took at most.
fn took_at_most(bucket: usize) -> SignedDuration {
    let bound = DURATION_BOUNDS_NS.get(bucket);
    bound.map_or(ENDED_WITHIN, |ns| SignedDuration::from_nanos(ns.cast_signed()))
}

impl Load {
    /// Takes in what was counted between two ticks. By what was known before, nothing answered where it `was_silent`.
    pub(super) fn add(&mut self, time: Timestamp, seen: &Counts, was_silent: bool) {
        self.note_silence(time, was_silent, seen.durations.iter().any(|n| *n > 0));
        let began_later = |after: SignedDuration| match self.silence {
            Silence::Never => true,
            Silence::Since(_) => false,
            Silence::Until(until) => time.duration_since(until) > after,
        };
        let slow = (RESENT_BUCKET..seen.durations.len()).filter(|bucket| began_later(took_at_most(*bucket)));
        let slow = slow.map(|bucket| seen.durations[bucket]).fold(0, u64::saturating_add);
        let failed = if began_later(FAILED_WITHIN) { timeouts(&seen.outcomes) } else { 0 };
        let good = seen.durations[..RESENT_BUCKET].iter().copied().fold(0, u64::saturating_add);
        if good == 0 && slow == 0 && failed == 0 {
            self.seen.resent = self.seen.resent.saturating_add(seen.syn_retransmits);
            return;
        }
        self.recent.add(good, slow, failed, RECENT);
        self.long.add(good, slow, failed, LONG);
        let is_trouble = slow.saturating_add(failed) > 0;
        if self.since.is_none() && is_trouble && self.recent.share() > CLEARED_SHARE {
            (self.since, self.seen) = (Some(time), Seen { resent: self.seen.resent, ..Seen::default() });
        }
        self.seen.troubled = self.seen.troubled.saturating_add(slow.saturating_add(failed));
        self.seen.succeeded = self.seen.succeeded.saturating_add(good.saturating_add(slow));
        self.seen.all = self.seen.all.saturating_add(slow.saturating_add(failed).saturating_add(good));
        self.seen.resent = self.seen.resent.saturating_add(seen.syn_retransmits);
        self.is_proof |= self.is_raised();
        // Where it is not proven, a recent past that is well is enough.
        let is_well = if self.is_proof { self.long.share() } else { self.recent.share() } < CLEARED_SHARE;
        if is_well {
            (self.since, self.is_proof, self.seen) = (None, false, Seen::default());
        }
    }

    fn note_silence(&mut self, time: Timestamp, was_silent: bool, is_answered: bool) {
        self.silence = match self.silence {
            Silence::Since(since) if was_silent && !is_answered => {
                if time.duration_since(since) >= HOLE_TIMEOUT {
                    *self = Self::default();
                }
                Silence::Since(since)
            }
            _ if was_silent && !is_answered => Silence::Since(time),
            _ if was_silent => Silence::Until(time),
            Silence::Since(_) => Silence::Until(time),
            Silence::Until(until) if time.duration_since(until) > ENDED_WITHIN => Silence::Never,
            silence => silence,
        };
    }

    fn is_raised(&self) -> bool {
        self.recent.share() >= RAISED_SHARE
            && self.recent.troubled() >= MIN_TROUBLED
            && self.seen.succeeded >= MIN_SUCCEEDED
            && self.seen.resent.saturating_mul(2) >= self.seen.troubled
    }

    /// Whether the listener, or the way there, is overloaded.
    pub(crate) const fn is_overloaded(&self) -> bool {
        self.is_proof
    }

    /// Since when, where it is.
    pub(crate) const fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// What was seen since then.
    pub(crate) const fn seen(&self) -> Seen {
        self.seen
    }
}
