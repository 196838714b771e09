//! What was seen of one address of an upstream.

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::Outcome;

use super::{generations::Epoch, handshakes::Handshakes, load::Load, response::Response, service::Service};
use crate::{
    findings::{
        evidence::{Streak, Trouble},
        outcomes::{
            ByOutcome, LOCAL, answers, given_up_late, is_failure, is_local, successes, timeouts, unreached,
        },
    },
    model::{Counts, Hint, Kind},
};

/// After so long without an answer a SYN is sent again: what is answered less than that before one is says that it got lost, and not
/// that nobody is there.
const SYN_TIMEOUT: SignedDuration = SignedDuration::from_secs(1);

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
    /// Whether the name that it was an address of has others now; and whether the proxy connects to those.
    pub(crate) has_moved: bool,
    pub(super) has_left: bool,
    /// How often the upstream had been used where its names are now, when this address was last.
    pub(super) used_at: u64,
    /// Whether anything succeeded here since it came, or came back.
    has_served: bool,
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
    /// Whether it answers at all: SYNs sent again are against it, and connects that were given up late.
    pub(crate) answers: Streak,
    /// What is against it since the last answer.
    pub(crate) no_answer: NoAnswer,
    /// What this host keeps the proxy from, index as in [`LOCAL`].
    pub(crate) local: [Trouble; LOCAL.len()],
    /// Whether connections are answered.
    pub(crate) service: Service,
    /// Whether requests are answered.
    pub(crate) response: Response,
    /// Whether handshakes are as quick as ever.
    pub(crate) handshakes: Handshakes,
    /// Whether most handshakes come about as they should.
    pub(crate) load: Load,
    /// What else is known of why connects fail.
    pub(crate) hint: Option<Hint>,
    last_answer: Option<Timestamp>,
    first: Timestamp,
    last: Timestamp,
}

/// What a row says besides what was counted since the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct More {
    /// What is in flight now.
    pub(super) in_flight: u64,
    /// How often it was used since.
    pub(super) uses: u64,
    /// What else is known of why connects fail.
    pub(super) hint: Option<Hint>,
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
            has_moved: false,
            has_left: false,
            used_at: 0,
            has_served: false,
            counts: Counts::default(),
            in_flight: 0,
            worked: None,
            reach: Streak::default(),
            causes: Default::default(),
            answers: Streak::default(),
            no_answer: NoAnswer::default(),
            local: Default::default(),
            service: Service::default(),
            response: Response::default(),
            handshakes: Handshakes::default(),
            load: Load::default(),
            hint: None,
            last_answer: None,
            first: time,
            last: time,
        }
    }

    /// Forgets what is proven of it. Where the upstream was connected to before is still known.
    pub(super) fn retire(&mut self) {
        let Self {
            epoch,
            entered,
            came_later,
            counts,
            in_flight,
            worked,
            has_moved,
            has_left,
            used_at,
            first,
            last,
            ..
        } = self;
        *self = Self {
            entered: *entered,
            counts: std::mem::take(counts),
            in_flight: *in_flight,
            worked: *worked,
            has_moved: *has_moved,
            has_left: *has_left,
            used_at: *used_at,
            last: *last,
            is_retired: true,
            ..Self::new(*first, *epoch, *came_later)
        };
    }

    /// Takes in what the newest generation did between two ticks.
    pub(super) fn row(&mut self, time: Timestamp, epoch: Epoch, seen: &Counts, more: More) {
        let More { in_flight, hint, .. } = more;
        let was_silent = self.is_silent();
        let good = successes(seen);
        self.epoch = epoch;
        self.last = time;
        self.in_flight = in_flight;
        self.hint = hint;
        self.counts += seen;
        self.reach.add_turning(time, good, unreached(seen, hint));
        for (sum, outcome) in self.causes.iter_mut().zip(Outcome::ALL) {
            let more = if is_failure(outcome) { seen.outcome(outcome) } else { 0 };
            // Those of the tick of the last success may be part of the run that follows.
            let before = if good > 0 { 0 } else { *sum };
            *sum = if good > 0 && self.reach.run() == 0 { 0 } else { before.saturating_add(more) };
        }
        if good > 0 {
            self.worked = Some(epoch);
            self.has_served = true;
            self.proven = Proven::default();
        }
        self.note_answers(time, seen);
        for (trouble, outcome) in self.local.iter_mut().zip(LOCAL) {
            let of_this_host = if is_local(outcome, hint) { seen.outcome(outcome) } else { 0 };
            trouble.add(time, seen.established(), of_this_host);
        }
        self.service.add(time, seen);
        self.response.add(time, seen, answers(seen) > 0);
        self.handshakes.add(time, seen);
        self.load.add(time, seen, was_silent);
    }

    /// What was taken for a failure of this host until it was known better: from now on it is one of the address. Gives how many.
    pub(super) fn take_for_unreached(&mut self, time: Timestamp, hint: Option<Hint>) -> u64 {
        if hint == self.hint {
            return 0;
        }
        let mut taken = 0_u64;
        for (trouble, outcome) in self.local.iter_mut().zip(LOCAL) {
            if is_local(outcome, self.hint) && !is_local(outcome, hint) && trouble.seen() > 0 {
                let trouble = std::mem::take(trouble);
                self.reach.add(trouble.since().unwrap_or(time), 0, trouble.seen());
                taken = taken.saturating_add(trouble.seen());
            }
        }
        taken
    }

    /// Takes in what shows that nobody answers, or that somebody does.
    fn note_answers(&mut self, time: Timestamp, seen: &Counts) {
        let given_up = given_up_late(seen, self.handshakes.known_us());
        let good = answers(seen).saturating_add(seen.answered);
        // A timeout without a SYN sent again is one that is shorter than a second.
        let unanswered = seen.syn_retransmits.max(timeouts(&seen.outcomes)).saturating_add(given_up);
        let is_stray =
            self.last_answer.is_some_and(|answer| time.duration_since(answer) < SYN_TIMEOUT) && good == 0;
        if is_stray && given_up == 0 {
            self.answers.add_stray(unanswered);
            return;
        }
        if good > 0 {
            self.last_answer = Some(time);
        }
        self.answers.add(time, good, unanswered);
        if good > 0 {
            self.no_answer = NoAnswer::default();
        } else {
            self.no_answer.resent = self.no_answer.resent.saturating_add(seen.syn_retransmits);
            self.no_answer.given_up = self.no_answer.given_up.saturating_add(given_up);
        }
    }

    /// Whether it is known to serve: the last that was seen of it is a success.
    pub(crate) fn serves(&self) -> bool {
        self.is_reached() && !self.service.is_wrong() && !self.response.is_silent()
    }

    /// Whether it is known to accept connections, whatever becomes of requests.
    pub(crate) fn is_reached(&self) -> bool {
        self.has_served && self.reach.run() == 0 && !self.is_silent()
    }

    /// Whether it is proven that nothing answers here: neither connects nor what is sent on connections.
    pub(crate) fn is_silent(&self) -> bool {
        self.answers.is_proof() || self.response.unheard_since().is_some()
    }

    /// Whether the last that was seen of it is a failure, whatever of.
    pub(crate) fn fails(&self) -> bool {
        self.causes.iter().any(|n| *n > 0)
    }

    /// The same, or that a SYN had to be sent again, or that nothing acknowledges what is sent.
    pub(crate) fn fails_or_is_silent(&self) -> bool {
        self.fails() || self.first_silent().is_some() || self.is_silent()
    }

    /// When the first of the signs was seen that nothing answers, where nothing has since.
    pub(super) fn first_silent(&self) -> Option<Timestamp> {
        let connects = self.answers.since().filter(|_| self.answers.run() > 0);
        connects.into_iter().chain(self.response.first_unheard()).min()
    }

    /// Whether it has answered anything since then.
    pub(super) fn has_answered_since(&self, time: Timestamp) -> bool {
        self.last_answer.is_some_and(|answer| answer > time)
    }

    /// When it was connected to last.
    pub(crate) const fn last(&self) -> Timestamp {
        self.last
    }

    /// Whether nothing is known of it: no connect there has ended yet.
    pub(crate) const fn is_untried(&self) -> bool {
        !self.has_served && self.reach.run() == 0
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
            || self.load.is_overloaded()
            || self.local.iter().any(Trouble::is_proof)
    }
}

/// What shows that nobody answers at an address, since the last answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoAnswer {
    /// SYNs sent again.
    pub(crate) resent: u64,
    /// Connects that were given up before that, and late.
    pub(crate) given_up: u64,
}

/// What kinds of finding have proven of an address. Kept here because it stands longer than what it was proven by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proven(u32);

const _: () = assert!(Kind::ALL.len() <= u32::BITS as usize, "a bit for each kind");

impl Proven {
    pub(super) const fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u32;
    }

    pub(crate) const fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u32 != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
