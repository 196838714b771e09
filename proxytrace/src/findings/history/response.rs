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

/// Requests that were answered and that were not, of one address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    answered: Streak,
    is_silent: bool,
    refuted: Option<Timestamp>,
    waiting: Waiting,
    /// Looks that have found a connection unheard since something was heard, and since when.
    unheard: u32,
    unheard_since: Option<Timestamp>,
}

impl Response {
    /// Takes in what was counted between two ticks; `is_heard` where the address has said anything to a connect.
    pub(super) fn add(&mut self, time: Timestamp, seen: &Counts, is_heard: bool) {
        // A request that was overdue, and then timed out, is one.
        let were = u64::from(self.waiting.overdue).saturating_add(seen.overdue);
        let left = were.saturating_sub(u64::from(seen.waiting.overdue));
        let timeouts = seen.broken[Broken::ResponseTimeout as usize].saturating_sub(left);
        self.waiting = seen.waiting;
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

    /// Requests in a row that got no answer.
    pub(crate) const fn unanswered(&self) -> &Streak {
        &self.answered
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

    pub(super) fn is_proof(&self) -> bool {
        self.is_silent || self.unheard_since().is_some()
    }
}
