//! What connects say of an upstream. Here, and nowhere else, it is decided what speaks for it and what against it.

use std::collections::BTreeMap;

use proxytrace_ebpf::outcome::{Broken, Outcome};

use crate::model::Counts;

/// How connects fared. Requests that get no answer count as connects that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Fared {
    /// Established, and not seen to be of no use.
    pub(in super::super) good: u64,
    /// Failed by no doing of the proxy's, or established and closed or reset unanswered.
    pub(in super::super) bad: u64,
    /// Under way, and their SYN was sent again; only where nothing was established.
    pub(in super::super) stuck: u64,
    /// Under way.
    pub(in super::super) in_flight: u64,
}

impl Fared {
    pub(in super::super) fn of(counts: &Counts) -> Self {
        let (established, unanswered) = (counts.established(), counts.unanswered());
        let cancelled = counts.outcome(Outcome::Cancelled);
        let failed = counts.ended().saturating_sub(established).saturating_sub(cancelled);
        let in_flight = counts.in_flight();
        Self {
            good: established.saturating_sub(unanswered),
            bad: failed.saturating_add(unanswered),
            stuck: if established == 0 { in_flight.min(counts.syn_retransmits) } else { 0 },
            in_flight,
        }
    }

    pub(super) fn is_dead(self) -> bool {
        self.good == 0 && self.bad + self.stuck > 0
    }

    /// Whether it may still turn out to be well.
    pub(super) fn is_open(self) -> bool {
        self.good == 0 && self.bad + self.stuck == 0 && self.in_flight > 0
    }

    /// The share of those that failed.
    pub(super) fn ratio(self) -> f64 {
        let bad = self.bad + self.stuck;
        if bad == 0 { 0.0 } else { bad as f64 / (self.good + bad) as f64 }
    }
}

/// The sum over addresses.
pub(in super::super) fn sum<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> Fared {
    counts.into_iter().map(Fared::of).fold(Fared::default(), |one, other| Fared {
        good: one.good + other.good,
        bad: one.bad + other.bad,
        stuck: one.stuck + other.stuck,
        in_flight: one.in_flight + other.in_flight,
    })
}

/// The causes of what failed, the most frequent first.
pub(in super::super) fn causes<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> String {
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    for counts in counts {
        let is_failure = |outcome: &Outcome| !matches!(outcome, Outcome::Established | Outcome::Cancelled);
        for outcome in Outcome::ALL.into_iter().filter(is_failure) {
            *causes.entry(outcome.name()).or_default() += counts.outcome(outcome);
        }
        for broken in Broken::ALL {
            *causes.entry(broken.name()).or_default() += counts.broken[broken as usize];
        }
        let Fared { stuck, .. } = Fared::of(counts);
        *causes.entry("no answer yet").or_default() += stuck;
    }
    let mut causes: Vec<_> = causes.into_iter().filter(|(_, n)| *n > 0).collect();
    causes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    causes.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}
