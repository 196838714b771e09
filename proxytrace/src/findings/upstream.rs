//! What was seen of one upstream of a proxy, and of each address that it was connected to at.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::AddAssign,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::Outcome;

use super::{
    evidence::{Streak, Trouble},
    finding::Fared,
    history::Epoch,
    pace::Pace,
    service::Service,
};
use crate::model::{Address, Counts};

/// How long a time is looked back on to say how much an upstream is used, and in what steps.
const SLOTS: usize = 30;
const SLOT_SECONDS: i64 = 10;
/// Where no configuration tells, so many connects of a new generation that all go elsewhere show that it has an address no
/// more: nginx tries a peer of its upstream within a few.
const GONE_AFTER: u64 = 10;

/// Failures of this host, which say nothing about the peer. Each has a finding of its own.
pub(super) const LOCAL: [Outcome; 3] =
    [Outcome::NoLocalPort, Outcome::BacklogFull, Outcome::PermissionDenied];
/// What shows that somebody is there.
const ANSWERS: [Outcome; 3] = [Outcome::Established, Outcome::Refused, Outcome::Reset];

/// What was seen of one upstream. Outcomes of old workers do not count, but for how the old workers fare.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    pub(super) peers: BTreeMap<Address, Peer>,
    /// Whether it can be reached at any address.
    pub(super) reach: Streak,
    /// The newest generation that connected to it.
    pub(super) epoch: Epoch,
    /// The newest generation that established a connection, and the newest before [`Upstream::epoch`].
    pub(super) worked: Option<Epoch>,
    worked_before: Option<Epoch>,
    /// Connects of the newest generation.
    connects: u64,
    /// Of the look that is going on: established, and not reached.
    now: (u64, u64),
    slots: VecDeque<(i64, u64)>,
    /// Not connected to since the reload.
    pub(super) silence: Option<Silence>,
    /// How it was used before the last reload.
    before: Used,
}

/// What was seen of one address of an upstream.
#[derive(Debug)]
pub(super) struct Peer {
    /// The newest generation that connected here.
    pub(super) epoch: Epoch,
    /// The generation with which the upstream came to this address.
    pub(super) entered: Epoch,
    /// Whether the upstream worked elsewhere before that.
    pub(super) is_newcomer: bool,
    /// Whether it was proven that traffic was sent here by mistake. Stays so until it works.
    pub(super) is_misrouted: bool,
    /// What was counted since it came here.
    pub(super) counts: Counts,
    /// What the newest generation has in flight.
    pub(super) in_flight: u64,
    /// How old workers have fared since the newest generation began.
    pub(super) old: Fared,
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

/// What a proxy knows of the workers and the address that a row is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    /// A newer generation has begun.
    pub(super) is_old: bool,
    /// The configuration with which the upstream last worked has the address as well.
    pub(super) was_declared: bool,
}

/// How much an upstream is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Connects within the last minutes.
    pub(super) connects: u64,
    /// In how many steps of time there were any.
    pub(super) slots: u64,
    /// Since when, in steps of time.
    pub(super) of_slots: u64,
}

/// An upstream that is not connected to since a reload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// The generation that does not connect to it.
    pub(super) epoch: Epoch,
    /// How it was used before that.
    pub(super) before: Used,
    /// Connects to the proxy's other upstreams in the same time.
    pub(super) others_before: u64,
    /// And since the reload.
    pub(super) others: u64,
}

impl Upstream {
    /// Takes in what was counted of an address between two looks, by the workers of one generation: the difference, and what is in
    /// flight.
    pub(super) fn row(
        &mut self,
        time: Timestamp,
        epoch: Epoch,
        address: &Address,
        (seen, in_flight): (&Counts, u64),
        Whose { is_old, was_declared }: Whose,
    ) {
        if epoch > self.epoch {
            self.worked_before = self.worked;
            self.epoch = epoch;
            self.connects = 0;
            self.now = (0, 0);
        }
        self.slot(time, seen.attempts);
        let worked_before = self.worked_before.filter(|worked| *worked < epoch);
        let is_newcomer = worked_before.is_some() && !was_declared;
        let known = self.peers.get(address).filter(|peer| {
            // Back after the upstream worked without it: that is another time, and its own history is of an earlier one.
            peer.epoch >= epoch || worked_before.is_none_or(|worked| worked <= peer.epoch) || was_declared
        });
        if known.is_none() {
            self.peers.insert(address.clone(), Peer::new(time, epoch, is_newcomer));
        }
        let Some(peer) = self.peers.get_mut(address) else {
            return;
        };
        if is_old {
            peer.old += fared(seen);
        }
        if epoch < self.epoch {
            return;
        }
        self.silence = self.silence.filter(|silence| epoch < silence.epoch);
        self.connects = self.connects.saturating_add(seen.attempts);
        self.now.0 = self.now.0.saturating_add(seen.established());
        self.now.1 = self.now.1.saturating_add(unreached(seen));
        if seen.established() > 0 {
            self.worked = Some(epoch);
        }
        peer.row(time, epoch, seen, in_flight);
    }

    /// All rows of a look were taken in.
    pub(super) fn end_look(&mut self, time: Timestamp) {
        let (good, bad) = std::mem::take(&mut self.now);
        self.reach.add(time, good, bad);
        self.peers.values_mut().for_each(|peer| peer.service.mature(time));
    }

    /// The newest generation before this one in which it worked.
    pub(super) fn worked_before(&self, epoch: Epoch) -> Option<Epoch> {
        let newest = if epoch > self.epoch { self.worked } else { self.worked_before };
        newest.filter(|worked| *worked < epoch)
    }

    /// Whether the newest generation that connects to this upstream connects to this address, as far as that can be told.
    pub(super) fn is_current(&self, address: &Address) -> bool {
        self.peers.get(address).is_some_and(|peer| peer.epoch == self.epoch || self.connects < GONE_AFTER)
    }

    /// The addresses that the newest generation connects to.
    pub(super) fn live(&self) -> impl Iterator<Item = (&Address, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.epoch == self.epoch)
    }

    /// How much it has been used lately.
    pub(super) fn used(&self, time: Timestamp) -> Used {
        let now = time.as_second().div_euclid(SLOT_SECONDS);
        let lately = self.slots.iter().filter(|(slot, _)| now.saturating_sub(*slot) < SLOTS as i64);
        let of_slots =
            lately.clone().next().map_or(0, |(first, _)| now.saturating_sub(*first).max(0) as u64 + 1);
        let connects = lately.clone().fold(0, |sum, (_, n)| n.saturating_add(sum));
        Used { connects, slots: lately.count() as u64, of_slots }
    }

    /// A newer generation of the proxy began, which may or may not connect to it.
    pub(super) fn superseded(&mut self, (newest, epoch): (Epoch, Epoch), before: Used, others_before: u64) {
        self.before = before;
        self.peers.values_mut().for_each(|peer| peer.old = Fared::default());
        // Where it was silent already, it goes on being so.
        if self.epoch == newest {
            self.silence = Some(Silence { epoch, before, others_before, others: 0 });
        }
    }

    /// Whether it was used when the newest generation began.
    pub(super) const fn was_used_before(&self) -> bool {
        self.before.connects > 0
    }

    /// A generation connected to another upstream.
    pub(super) const fn others_connect(&mut self, epoch: Epoch, n: u64) {
        if let Some(silence) = &mut self.silence
            && epoch >= silence.epoch
        {
            silence.others = silence.others.saturating_add(n);
        }
    }

    fn slot(&mut self, time: Timestamp, n: u64) {
        let now = time.as_second().div_euclid(SLOT_SECONDS);
        match self.slots.back_mut() {
            _ if n == 0 => {}
            Some((slot, count)) if *slot >= now => *count = count.saturating_add(n),
            _ => self.slots.push_back((now, n)),
        }
        while self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
    }
}

impl Peer {
    fn new(time: Timestamp, epoch: Epoch, is_newcomer: bool) -> Self {
        Self {
            epoch,
            entered: epoch,
            is_newcomer,
            is_misrouted: false,
            counts: Counts::default(),
            in_flight: 0,
            old: Fared::default(),
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

    fn row(&mut self, time: Timestamp, epoch: Epoch, seen: &Counts, in_flight: u64) {
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
            || self.reach.run() > 0
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
fn unreached(counts: &Counts) -> u64 {
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

impl AddAssign for Fared {
    fn add_assign(&mut self, more: Self) {
        self.failed = self.failed.saturating_add(more.failed);
        self.of = self.of.saturating_add(more.of);
    }
}
