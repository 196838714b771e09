//! What was counted of one destination since tracing began, as findings and recordings take it.

use std::{borrow::Cow, collections::BTreeMap, ops::AddAssign, sync::Arc};

use jiff::Timestamp;
use proxytrace_ebpf::{
    abi::{DURATION_BOUNDS_NS, DURATION_BUCKETS, Row},
    outcome::{Broken, Outcome},
};
use serde::{Deserialize, Serialize};

use super::{Address, Clock, Hint};

/// The counts of one row of the ledger, and whose they are. The body of a record of kind `counts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The proxy's first process: after a restart its name is the same, and its generations begin anew.
    pub pid: u32,
    /// The generation of the workers that were counted.
    pub generation: u32,
    /// The name in the proxy's configuration.
    pub upstream: Arc<str>,
    /// Where to.
    pub address: Address,
    /// What else is known of why connects fail there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts that only ever rise, from when tracing began.
///
/// As a record, what is zero is left out, causes go by their names and handshakes by the upper bound of their bucket in
/// microseconds; what a reader does not know it skips.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", from = "Written")]
pub struct Counts {
    /// Attempts started.
    pub attempts: u64,
    /// Ended attempts, index [`Outcome`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Broken connections, index [`Broken`].
    pub broken: [u64; Broken::ALL.len()],
    /// Of those, the ones that were broken before an answer, and on which earlier requests had been answered.
    pub broken_kept: u64,
    /// Connections that the proxy has closed while a request waited, earlier than its read timeout.
    pub abandoned: u64,
    /// Connections that have ended with nothing waiting, after an answer had at least begun.
    pub answered: u64,
    /// SYNs sent again.
    pub syn_retransmits: u64,
    /// Segments of established connections sent again.
    pub data_retransmits: u64,
    /// Requests that have waited for so long that it is a sign, see [`Waiting::overdue`].
    pub overdue: u64,
    /// How often a look has found a connection [`Waiting::unheard`].
    pub unheard: u64,
    /// What waits now.
    pub waiting: Waiting,
    /// Completed handshakes by duration, not cumulative, see [`DURATION_BOUNDS_NS`].
    pub durations: [u64; DURATION_BUCKETS],
    /// The sum of their durations, in microseconds.
    pub duration_sum_us: u64,
    /// The sum of the times after which the proxy cancelled attempts, in microseconds.
    pub cancelled_sum_us: u64,
    /// When a handshake was last completed.
    pub last_established: Option<Timestamp>,
}

/// What waits for an answer at an address, as the last look has found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Connections on which a request has waited for more than a second.
    pub connections: u32,
    /// Those on which it has waited far longer than is usual at this address, although it was acknowledged.
    pub overdue: u32,
    /// Those on which nothing was heard within three retransmission timeouts of what was sent.
    pub unheard: u32,
    /// Those on which it has waited far longer than answers took here, whether they ever came or not.
    pub late: u32,
    /// How long the oldest request has waited, in milliseconds; 0 where none has for more than a second.
    pub oldest_ms: u32,
}

impl Waiting {
    /// Adds what waits elsewhere.
    pub fn add(&mut self, more: &Self) {
        self.connections = self.connections.saturating_add(more.connections);
        self.overdue = self.overdue.saturating_add(more.overdue);
        self.unheard = self.unheard.saturating_add(more.unheard);
        self.late = self.late.saturating_add(more.late);
        self.oldest_ms = self.oldest_ms.max(more.oldest_ms);
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Counts {
    /// The counts of a row of the ledger.
    #[must_use]
    pub fn of(row: &Row, clock: &Clock) -> Self {
        Self {
            attempts: row.attempts,
            outcomes: Outcome::ALL.map(|outcome| row.outcomes[outcome as usize]),
            broken: row.broken,
            broken_kept: row.broken_kept,
            abandoned: row.abandoned,
            answered: row.answered,
            syn_retransmits: row.syn_retransmits,
            data_retransmits: row.data_retransmits,
            overdue: 0,
            unheard: 0,
            waiting: Waiting::default(),
            durations: row.durations,
            duration_sum_us: row.duration_sum_ns / 1000,
            cancelled_sum_us: row.cancelled_sum_ns / 1000,
            last_established: (row.last_established_ns > 0).then(|| clock.at(row.last_established_ns)),
        }
    }

    /// Attempts that ended in this way.
    #[must_use]
    pub const fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Attempts whose handshake was completed.
    #[must_use]
    pub const fn established(&self) -> u64 {
        self.outcome(Outcome::Established)
    }

    /// Attempts that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.outcomes.into_iter().fold(0, u64::saturating_add)
    }

    /// Attempts that failed, and connections that broke.
    #[must_use]
    pub fn gone_wrong(&self) -> u64 {
        let failed = self.ended().saturating_sub(self.established());
        self.broken.iter().fold(failed, |sum, n| sum.saturating_add(*n))
    }

    /// Attempts under way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.attempts.saturating_sub(self.ended())
    }

    /// Established connections that the upstream ended and that never gave a byte of an answer.
    #[must_use]
    pub const fn unanswered(&self) -> u64 {
        let [reset, closed] = [Broken::ResetBeforeResponse, Broken::ClosedBeforeResponse];
        self.broken[reset as usize]
            .saturating_add(self.broken[closed as usize])
            .saturating_sub(self.broken_kept)
    }

    /// What was counted from `earlier` on. Where a count fell, its row was forgotten and has begun anew, and all of it is new.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let has_begun_anew = self.attempts < earlier.attempts;
        let earlier = if has_begun_anew { &Self::default() } else { earlier };
        Self {
            attempts: self.attempts - earlier.attempts,
            outcomes: difference(&self.outcomes, &earlier.outcomes),
            broken: difference(&self.broken, &earlier.broken),
            broken_kept: self.broken_kept.saturating_sub(earlier.broken_kept),
            abandoned: self.abandoned.saturating_sub(earlier.abandoned),
            answered: self.answered.saturating_sub(earlier.answered),
            syn_retransmits: self.syn_retransmits.saturating_sub(earlier.syn_retransmits),
            data_retransmits: self.data_retransmits.saturating_sub(earlier.data_retransmits),
            overdue: self.overdue.saturating_sub(earlier.overdue),
            unheard: self.unheard.saturating_sub(earlier.unheard),
            waiting: self.waiting,
            durations: difference(&self.durations, &earlier.durations),
            duration_sum_us: self.duration_sum_us.saturating_sub(earlier.duration_sum_us),
            cancelled_sum_us: self.cancelled_sum_us.saturating_sub(earlier.cancelled_sum_us),
            last_established: self.last_established,
        }
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, more: &Self) {
        self.attempts = self.attempts.saturating_add(more.attempts);
        add(&mut self.outcomes, &more.outcomes);
        add(&mut self.broken, &more.broken);
        self.broken_kept = self.broken_kept.saturating_add(more.broken_kept);
        self.abandoned = self.abandoned.saturating_add(more.abandoned);
        self.answered = self.answered.saturating_add(more.answered);
        self.syn_retransmits = self.syn_retransmits.saturating_add(more.syn_retransmits);
        self.data_retransmits = self.data_retransmits.saturating_add(more.data_retransmits);
        self.overdue = self.overdue.saturating_add(more.overdue);
        self.unheard = self.unheard.saturating_add(more.unheard);
        self.waiting = more.waiting;
        add(&mut self.durations, &more.durations);
        self.duration_sum_us = self.duration_sum_us.saturating_add(more.duration_sum_us);
        self.cancelled_sum_us = self.cancelled_sum_us.saturating_add(more.cancelled_sum_us);
        self.last_established = self.last_established.max(more.last_established);
    }
}

fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
}

fn difference<const N: usize>(now: &[u64; N], earlier: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|index| now[index].saturating_sub(earlier[index]))
}

/// Counts by name.
type Named = BTreeMap<Cow<'static, str>, u64>;

/// [`Counts`] as a record has them.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    established: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    failures: Named,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    broken: Named,
    #[serde(default, skip_serializing_if = "is_zero")]
    broken_kept: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    abandoned: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    answered: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    syn_retransmits: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    data_retransmits: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    overdue: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    unheard: u64,
    #[serde(default, skip_serializing_if = "Waiting::is_none")]
    waiting: Waiting,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    handshakes_us: Named,
    #[serde(default, skip_serializing_if = "is_zero")]
    handshakes_sum_us: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    cancelled_sum_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_established: Option<Timestamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The names of the buckets of durations.
fn buckets() -> impl Iterator<Item = Cow<'static, str>> {
    DURATION_BOUNDS_NS.into_iter().map(|ns| (ns / 1000).to_string().into()).chain(["more".into()])
}

fn named(names: impl Iterator<Item = Cow<'static, str>>, counts: &[u64]) -> Named {
    names.zip(counts.iter().copied()).filter(|(_, n)| *n > 0).collect()
}

fn read<const N: usize>(names: impl Iterator<Item = Cow<'static, str>>, named: &Named) -> [u64; N] {
    let mut counts = [0; N];
    for (count, name) in counts.iter_mut().zip(names) {
        *count = named.get(&name).copied().unwrap_or(0);
    }
    counts
}

fn outcomes() -> impl Iterator<Item = Cow<'static, str>> {
    Outcome::ALL.into_iter().map(|outcome| outcome.name().into())
}

fn ways_to_break() -> impl Iterator<Item = Cow<'static, str>> {
    Broken::ALL.into_iter().map(|broken| broken.name().into())
}

impl From<Counts> for Written {
    fn from(counts: Counts) -> Self {
        let established = counts.established();
        Self {
            attempts: counts.attempts,
            established,
            failures: named(outcomes().skip(1), &counts.outcomes[1..]),
            broken: named(ways_to_break(), &counts.broken),
            broken_kept: counts.broken_kept,
            abandoned: counts.abandoned,
            answered: counts.answered,
            syn_retransmits: counts.syn_retransmits,
            data_retransmits: counts.data_retransmits,
            overdue: counts.overdue,
            unheard: counts.unheard,
            waiting: counts.waiting,
            handshakes_us: named(buckets(), &counts.durations),
            handshakes_sum_us: counts.duration_sum_us,
            cancelled_sum_us: counts.cancelled_sum_us,
            last_established: counts.last_established,
        }
    }
}

impl From<Written> for Counts {
    fn from(written: Written) -> Self {
        let mut outcomes = read(outcomes(), &written.failures);
        outcomes[Outcome::Established as usize] = written.established;
        Self {
            attempts: written.attempts,
            outcomes,
            broken: read(ways_to_break(), &written.broken),
            broken_kept: written.broken_kept,
            abandoned: written.abandoned,
            answered: written.answered,
            syn_retransmits: written.syn_retransmits,
            data_retransmits: written.data_retransmits,
            overdue: written.overdue,
            unheard: written.unheard,
            waiting: written.waiting,
            durations: read(buckets(), &written.handshakes_us),
            duration_sum_us: written.handshakes_sum_us,
            cancelled_sum_us: written.cancelled_sum_us,
            last_established: written.last_established,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use proxytrace_ebpf::{
        abi::{DURATION_BUCKETS, Row},
        outcome::{Broken, Outcome},
    };

    use super::{Address, Clock, Counted, Counts, Waiting};

    fn counted(counts: Counts) -> Counted {
        Counted {
            proxy: "nginx.service".into(),
            pid: 9694,
            generation: 2,
            upstream: "api".into(),
            address: Address::Internet("10.0.0.5:8080".parse().unwrap()),
            hint: None,
            counts,
        }
    }

    fn check(counts: Counts, expected: &str) {
        let line = serde_json::to_string(&counted(counts.clone())).unwrap();
        let whose = r#"{"proxy":"nginx.service","pid":9694,"generation":2,"upstream":"api","address":"10.0.0.5:8080""#;
        assert_eq!(line, format!("{whose}{expected}}}"));
        assert_eq!(serde_json::from_str::<Counted>(&line).unwrap(), counted(counts));
    }

    #[test]
    fn zeroes_are_left_out_and_causes_go_by_their_names() {
        check(Counts::default(), "");
        let mut row = Row {
            attempts: 9,
            syn_retransmits: 2,
            duration_sum_ns: 1_500_999,
            last_established_ns: 2_000_000_000,
            ..Row::ZERO
        };
        row.outcomes[Outcome::Established as usize] = 3;
        row.outcomes[Outcome::Refused as usize] = 5;
        row.broken[Broken::ClosedBeforeResponse as usize] = 1;
        row.durations[0] = 2;
        row.durations[DURATION_BUCKETS - 1] = 1;
        let counts = Counts::of(&row, &Clock::new(2_000_000_000, Timestamp::from_second(60).unwrap()));
        assert_eq!((counts.in_flight(), counts.established(), counts.unanswered()), (1, 3, 1));
        check(
            counts,
            r#","attempts":9,"established":3,"failures":{"refused":5},"broken":{"closed_before_response":1},"syn_retransmits":2,"handshakes_us":{"50":2,"more":1},"handshakes_sum_us":1500,"last_established":"1970-01-01T00:01:00Z""#,
        );
    }

    #[test]
    fn what_a_reader_does_not_know_is_skipped() {
        let line = r#"{"attempts":3,"failures":{"refused":1,"bewitched":2},"mood":"grim"}"#;
        let counts: Counts = serde_json::from_str(line).unwrap();
        assert_eq!((counts.attempts, counts.outcome(Outcome::Refused), counts.in_flight()), (3, 1, 2));
    }

    #[test]
    fn a_row_that_has_begun_anew_is_all_new() {
        let row = |attempts| Counts { attempts, syn_retransmits: attempts, ..Counts::default() };
        assert_eq!(row(7).since(&row(5)).attempts, 2);
        assert_eq!(row(4).since(&row(5)).attempts, 4);
        assert_eq!(row(4).since(&row(5)).syn_retransmits, 4);
    }

    proptest! {
        #[test]
        fn counts_are_read_as_they_were_written(
            attempts: u64,
            outcomes in prop::array::uniform14(any::<u64>()),
            broken in prop::array::uniform5(any::<u64>()),
            life in prop::array::uniform4(any::<u64>()),
            durations in prop::array::uniform20(any::<u64>()),
            sum: u64,
            seconds in prop::option::of(0..4_000_000_000_i64),
        ) {
            let last_established = seconds.map(|seconds| Timestamp::from_second(seconds).unwrap());
            let counts = Counts {
                attempts, outcomes, broken, broken_kept: life[0], abandoned: life[1], answered: life[2],
                syn_retransmits: sum, data_retransmits: life[3], overdue: sum, unheard: life[0],
                waiting: Waiting { connections: 3, overdue: 2, unheard: 1, late: 2, oldest_ms: 5000 }, durations, duration_sum_us: sum, cancelled_sum_us: sum, last_established,
            };
            let line = serde_json::to_string(&counted(counts.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Counted>(&line).unwrap().counts, counts);
        }
    }
}
