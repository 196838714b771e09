//! Whether requests get answers at an address, on fresh and on kept connections.

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::Broken;

use crate::{
    findings::evidence::{MIN_FAILURES, Streak},
    model::{Counts, Waiting},
};

/// So many looks in a row that find a connection unheard, and nothing else heard in between, show that nobody is there: one resend is
/// lost now and then.
const LOOKS: u32 = 2;

/// Where an answer has refuted a proof, the next within so long has to stand out from how things went before: a page that hangs on a
/// quiet site must not have the finding come and go.
const WARY: SignedDuration = SignedDuration::from_hours(1);

/// More than a tick.
const TICKS: SignedDuration = SignedDuration::from_secs(2);

/// Requests that were answered and that were not, of one address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    answered: Streak,
    has_answered: bool,
    is_silent: bool,
    refuted: Option<Timestamp>,
    waiting: Waiting,
    /// Requests that were counted when they were overdue, and whose end was not seen; and those that a look has not found any more, whose end
    /// may be counted a tick later.
    overdue: u64,
    gone: u64,
    gone_since: Option<Timestamp>,
    /// Looks that have found a connection unheard since something was heard, and since when.
    unheard: u32,
    unheard_since: Option<Timestamp>,
}

impl Response {
    /// Takes in what was counted between two ticks; `is_heard` where the address has said anything to a connect.
    pub(super) fn add(&mut self, time: Timestamp, seen: &Counts, is_heard: bool) {
        let timeouts = self.timeouts(time, seen);
        self.waiting = seen.waiting;
        self.has_answered |= seen.answered > 0;
        self.answered.add(time, seen.answered, seen.overdue.saturating_add(timeouts));
        if seen.answered > 0 && std::mem::take(&mut self.is_silent) {
            self.refuted = Some(time);
        }
        // Each has waited for long: that nothing else was answered meanwhile is more than so many failures.
        let is_wary = self.refuted.is_some_and(|refuted| time.duration_since(refuted) < WARY);
        self.is_silent |= self.answered.is_proof() || (!is_wary && self.answered.run() >= MIN_FAILURES);
        if seen.answered > 0 || is_heard {
            (self.unheard, self.unheard_since) = (0, None);
        } else if seen.unheard > 0 {
            self.unheard = self.unheard.saturating_add(1);
            self.unheard_since.get_or_insert(time);
        }
    }

    /// How many requests timed out that had not been counted when they were overdue. A look and the count of timeouts come one after the
    /// other, in either order.
    fn timeouts(&mut self, time: Timestamp, seen: &Counts) -> u64 {
        let timeouts = seen.broken[Broken::ResponseTimeout as usize];
        if self.gone_since.is_none_or(|since| time.duration_since(since) > TICKS) {
            self.gone = 0;
        }
        let of_gone = timeouts.min(self.gone);
        self.gone -= of_gone;
        let overdue = self.overdue.saturating_add(seen.overdue);
        let of_overdue = (timeouts - of_gone).min(overdue);
        let left = overdue - of_overdue;
        self.overdue = left.min(seen.waiting.overdue.into());
        if left > self.overdue {
            self.gone = self.gone.saturating_add(left - self.overdue);
            self.gone_since = Some(time);
        }
        timeouts - of_gone - of_overdue
    }

    /// Requests in a row that got no answer.
    pub(crate) const fn unanswered(&self) -> &Streak {
        &self.answered
    }

    /// Whether a request was ever answered.
    pub(crate) const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether that is proof.
    pub(crate) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// What waits now.
    pub(crate) const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Since when nothing has acknowledged what is sent, where that is proven.
    pub(crate) fn unheard_since(&self) -> Option<Timestamp> {
        self.unheard_since.filter(|_| self.unheard >= LOOKS)
    }

    /// The same where it is a sign, and no proof yet.
    pub(super) fn first_unheard(&self) -> Option<Timestamp> {
        self.unheard_since.filter(|_| self.unheard > 0)
    }

    pub(super) fn is_proof(&self) -> bool {
        self.is_silent || self.unheard_since().is_some()
    }
}
