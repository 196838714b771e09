//! What was seen of one address of an upstream.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::Outcome;

use super::{
    evidence::{Streak, Trouble},
    pace::Pace,
    proxy::Epoch,
    service::Service,
};
use crate::model::{Counts, Fared};

/// Failures of this host, which say nothing about the peer. Each has a finding of its own.
pub(super) const LOCAL: [Outcome; 3] =
    [Outcome::NoLocalPort, Outcome::BacklogFull, Outcome::PermissionDenied];
/// What shows that somebody is there.
const ANSWERS: [Outcome; 3] = [Outcome::Established, Outcome::Refused, Outcome::Reset];

/// What was seen of one address of an upstream.
#[derive(Debug)]
pub(super) struct Peer {
    /// The newest generation that connected here.
    pub(super) epoch: Epoch,
    /// The generation with which the upstream came to this address.
    pub(super) entered: Epoch,
    /// Whether the upstream worked elsewhere before that.
    came_later: bool,
    /// Whether it was proven that traffic was sent here by mistake. Stays so until it works.
    pub(super) is_misrouted: bool,
    /// Whether a configuration took it out after that.
    pub(super) is_retired: bool,
    /// What was counted since it came here.
    pub(super) counts: Counts,
    /// What the newest generation has in flight.
    pub(super) in_flight: u64,
    /// The newest generation that established a connection.
    pub(super) worked: Option<Epoch>,
    /// Whether it accepts connections.
    pub(super) reach: Streak,
    /// The failures since the last success, by cause.
    pub(super) causes: [u64; Outcome::ALL.len()],
    /// Whether it answers at all: SYNs sent again are against it.
    pub(super) answers: Streak,
    /// What this host keeps the proxy from, index as in [`LOCAL`].
    pub(super) local: [Trouble; LOCAL.len()],
    /// Whether connections are answered.
    pub(super) service: Service,
    /// Whether handshakes are as quick as ever.
    pub(super) pace: Pace,
    first: Timestamp,
    last: Timestamp,
}

impl Peer {
    /// Not seen before.
    pub(super) fn new(time: Timestamp, epoch: Epoch, came_later: bool) -> Self {
        Self {
            epoch,
            entered: epoch,
            came_later,
            is_misrouted: false,
            is_retired: false,
            counts: Counts::default(),
            in_flight: 0,
            worked: None,
            reach: Streak::default(),
            causes: Default::default(),
            answers: Streak::default(),
            local: Default::default(),
            service: Service::default(),
            pace: Pace::default(),
            first: time,
            last: time,
        }
    }

    /// Forgets what is proven of it. Where the upstream was connected to before is still known.
    pub(super) fn retire(&mut self) {
        let Self { epoch, entered, came_later, counts, in_flight, worked, first, last, .. } = self;
        *self = Self {
            entered: *entered,
            counts: std::mem::take(counts),
            in_flight: *in_flight,
            worked: *worked,
            last: *last,
            is_retired: true,
            ..Self::new(*first, *epoch, *came_later)
        };
    }

    /// Takes in what the newest generation did between two looks.
    pub(super) fn row(&mut self, time: Timestamp, epoch: Epoch, seen: &Counts, in_flight: u64) {
        let established = seen.established();
        self.epoch = epoch;
        self.last = time;
        self.in_flight = in_flight;
        self.counts += seen;
        self.reach.add(time, established, unreached(seen));
        for (sum, outcome) in self.causes.iter_mut().zip(Outcome::ALL) {
            let is_failure = !matches!(outcome, Outcome::Established | Outcome::Cancelled);
            let more = if is_failure { seen.outcome(outcome) } else { 0 };
            *sum = if established > 0 { 0 } else { sum.saturating_add(more) };
        }
        if established > 0 {
            self.worked = Some(epoch);
            self.is_misrouted = false;
        }
        let answers = sum(seen, ANSWERS);
        self.answers.add(time, answers, seen.syn_retransmits);
        for (trouble, outcome) in self.local.iter_mut().zip(LOCAL) {
            trouble.add(time, established, seen.outcome(outcome));
        }
        self.service.add(time, seen);
        self.pace.add(time, seen);
    }

    /// Whether the upstream came here from elsewhere, and no configuration has taken it away since.
    pub(super) const fn is_newcomer(&self) -> bool {
        self.came_later && !self.is_retired
    }

    /// Whether the upstream came here from elsewhere, and it has never worked.
    pub(super) const fn is_astray(&self) -> bool {
        self.came_later && self.worked.is_none()
    }

    /// From when it was first connected to until it was last.
    pub(super) fn age(&self) -> SignedDuration {
        self.last.duration_since(self.first)
    }

    /// When it was first connected to.
    pub(super) const fn first(&self) -> Timestamp {
        self.first
    }

    pub(super) fn is_idle(&self, time: Timestamp, idle: SignedDuration) -> bool {
        time.duration_since(self.last) >= idle
    }

    /// Whether something may be proven of it, so that it must not be forgotten.
    pub(super) fn is_proof(&self) -> bool {
        self.is_misrouted
            || self.reach.is_proof()
            || self.answers.is_proof()
            || self.service.is_wrong()
            || self.pace.is_slow()
            || self.local.iter().any(Trouble::is_proof)
    }
}

/// Attempts that ended, and failures, those aside that the proxy cancelled: a client left, or a worker exits.
pub(super) fn fared(counts: &Counts) -> Fared {
    let of = counts.ended().saturating_sub(counts.outcome(Outcome::Cancelled));
    Fared { failed: of.saturating_sub(counts.established()), of }
}

/// Attempts that failed by the network's or the peer's doing.
pub(super) fn unreached(counts: &Counts) -> u64 {
    fared(counts).failed.saturating_sub(sum(counts, LOCAL))
}

/// Attempts that ended in one of these ways.
pub(super) fn sum<const N: usize>(counts: &Counts, outcomes: [Outcome; N]) -> u64 {
    outcomes.into_iter().map(|outcome| counts.outcome(outcome)).fold(0, u64::saturating_add)
}

/// Failures by the names of their causes, summed over addresses.
pub(super) fn causes<'a>(
    of_peers: impl IntoIterator<Item = &'a [u64; Outcome::ALL.len()]>,
) -> BTreeMap<Arc<str>, u64> {
    let mut sums = BTreeMap::new();
    for causes in of_peers {
        for (outcome, n) in Outcome::ALL.into_iter().zip(causes).filter(|(_, n)| **n > 0) {
            let sum: &mut u64 = sums.entry(outcome.name().into()).or_default();
            *sum = sum.saturating_add(*n);
        }
    }
    sums
}
