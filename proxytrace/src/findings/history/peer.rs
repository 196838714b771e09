//! What was seen of one address of an upstream.

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::Outcome;

use super::{generations::Epoch, handshakes::Handshakes, response::Response, service::Service};
use crate::{
    findings::{
        evidence::{Streak, Trouble},
        outcomes::{ByOutcome, LOCAL, answers, is_failure, unreached},
    },
    model::{Counts, Kind},
};

/// What was seen of one address of an upstream.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The newest generation that connected here.
    pub(crate) epoch: Epoch,
    /// The generation with which the upstream came to this address.
    pub(crate) entered: Epoch,
    /// Whether the upstream worked elsewhere before that.
    came_later: bool,
    /// What kinds of finding have proven of it for good: until it works.
    pub(crate) proven: Proven,
    /// Whether a configuration took it out after that.
    pub(super) is_retired: bool,
    /// What was counted since it came here.
    pub(crate) counts: Counts,
    /// What the newest generation has in flight.
    pub(crate) in_flight: u64,
    /// The newest generation that established a connection.
    pub(crate) worked: Option<Epoch>,
    /// Whether it accepts connections.
    pub(crate) reach: Streak,
    /// The failures since the last success, by cause.
    pub(crate) causes: ByOutcome,
    /// Whether it answers at all: SYNs sent again are against it.
    pub(crate) answers: Streak,
    /// What this host keeps the proxy from, index as in [`LOCAL`].
    pub(crate) local: [Trouble; LOCAL.len()],
    /// Whether connections are answered.
    pub(crate) service: Service,
    /// Whether requests are answered.
    pub(crate) response: Response,
    /// Whether handshakes are as quick as ever.
    pub(crate) handshakes: Handshakes,
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
            proven: Proven::default(),
            is_retired: false,
            counts: Counts::default(),
            in_flight: 0,
            worked: None,
            reach: Streak::default(),
            causes: Default::default(),
            answers: Streak::default(),
            local: Default::default(),
            service: Service::default(),
            response: Response::default(),
            handshakes: Handshakes::default(),
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

    /// Takes in what the newest generation did between two ticks.
    pub(super) fn row(&mut self, time: Timestamp, epoch: Epoch, seen: &Counts, in_flight: u64) {
        let established = seen.established();
        self.epoch = epoch;
        self.last = time;
        self.in_flight = in_flight;
        self.counts += seen;
        self.reach.add(time, established, unreached(seen));
        for (sum, outcome) in self.causes.iter_mut().zip(Outcome::ALL) {
            let more = if is_failure(outcome) { seen.outcome(outcome) } else { 0 };
            *sum = if established > 0 { 0 } else { sum.saturating_add(more) };
        }
        if established > 0 {
            self.worked = Some(epoch);
            self.proven = Proven::default();
        }
        self.answers.add(time, answers(seen), seen.syn_retransmits);
        for (trouble, outcome) in self.local.iter_mut().zip(LOCAL) {
            trouble.add(time, established, seen.outcome(outcome));
        }
        self.service.add(time, seen);
        self.response.add(time, seen, answers(seen) > 0);
        self.handshakes.add(time, seen);
    }

    /// Whether the upstream came here from elsewhere, and no configuration has taken it away since.
    pub(crate) const fn is_newcomer(&self) -> bool {
        self.came_later && !self.is_retired
    }

    /// Whether the upstream came here from elsewhere, and it has never worked.
    pub(super) const fn is_astray(&self) -> bool {
        self.came_later && self.worked.is_none()
    }

    /// From when it was first connected to until it was last.
    pub(crate) fn age(&self) -> SignedDuration {
        self.last.duration_since(self.first)
    }

    /// When it was first connected to.
    pub(crate) const fn first(&self) -> Timestamp {
        self.first
    }

    /// Whether it has not been connected to for so long.
    pub(super) fn is_idle(&self, time: Timestamp, timeout: SignedDuration) -> bool {
        time.duration_since(self.last) >= timeout
    }

    /// Whether something may be proven of it, so that it must not be forgotten.
    pub(super) fn is_proof(&self) -> bool {
        !self.proven.is_empty()
            || self.reach.is_proof()
            || self.answers.is_proof()
            || self.service.is_wrong()
            || self.response.is_proof()
            || self.handshakes.is_slow()
            || self.local.iter().any(Trouble::is_proof)
    }
}

/// What kinds of finding have proven of an address. Kept here because it stands longer than what it was proven by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proven(u16);

const _: () = assert!(Kind::ALL.len() <= u16::BITS as usize, "a bit for each kind");

impl Proven {
    pub(super) const fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u16;
    }

    pub(crate) const fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
