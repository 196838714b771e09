//! What findings take from an outcome. Every list of outcomes that they go by follows from the class that is declared with each.

use std::{collections::BTreeMap, sync::Arc};

use proxytrace_ebpf::outcome::{Class, Outcome};

use crate::model::{Counts, Fared, Hint};

/// A number for each outcome.
pub(super) type ByOutcome = [u64; Outcome::ALL.len()];

/// Whether it is a failure of this host, which says nothing about the peer. That this host has no address to connect from says that it
/// does not reach that one, and never will.
pub(super) const fn is_local(outcome: Outcome, hint: Option<Hint>) -> bool {
    match outcome.class() {
        Class::Denied => true,
        Class::Exhausted => !(matches!(outcome, Outcome::NoLocalPort) && matches!(hint, Some(Hint::NoIpv6))),
        _ => false,
    }
}

/// Whether it shows that somebody is there.
const fn is_answer(outcome: Outcome) -> bool {
    matches!(outcome.class(), Class::Established | Class::Answer)
}

/// Whether it is a failure that a repetition hardly changes.
const fn is_definite(outcome: Outcome) -> bool {
    matches!(outcome.class(), Class::Answer | Class::Unreachable | Class::Denied)
}

const fn is_silence(outcome: Outcome) -> bool {
    matches!(outcome.class(), Class::Silence)
}

const fn is_own_doing(outcome: Outcome) -> bool {
    matches!(outcome.class(), Class::Proxy)
}

/// Whether the connect failed, and not by the proxy's own doing.
pub(super) const fn is_failure(outcome: Outcome) -> bool {
    !matches!(outcome.class(), Class::Established | Class::Proxy)
}

/// The failures of this host. Each has a kind of finding of its own.
pub(super) const LOCAL: [Outcome; 3] = Outcome::of_class(&[Class::Exhausted, Class::Denied]);

/// Those of failures that are not of this host.
pub(super) fn of_peer(causes: &ByOutcome, hint: Option<Hint>) -> ByOutcome {
    let mut causes = *causes;
    for (n, outcome) in causes.iter_mut().zip(Outcome::ALL) {
        *n = if is_local(outcome, hint) { 0 } else { *n };
    }
    causes
}

/// Far longer than a handshake takes: so many times what 99 of 100 take, and at least so long; where none is known, longer than to
/// any other continent.
const LATE_FACTOR: u64 = 10;
const LATE_US: u64 = 100_000;
const LATE_UNKNOWN_US: u64 = 200_000;

/// Attempts that ended, and failures, those aside that the proxy cancelled.
pub(super) fn fared(counts: &Counts) -> Fared {
    let of = counts.ended().saturating_sub(sum(&counts.outcomes, is_own_doing));
    Fared { failed: of.saturating_sub(counts.established()), of }
}

/// Attempts that failed by the network's or the peer's doing.
pub(super) fn unreached(counts: &Counts, hint: Option<Hint>) -> u64 {
    let local = sum(&counts.outcomes, |outcome| is_local(outcome, hint));
    fared(counts).failed.saturating_sub(local)
}

/// Attempts that show that somebody is there.
pub(super) fn answers(counts: &Counts) -> u64 {
    sum(&counts.outcomes, is_answer)
}

/// Failures that a repetition hardly changes.
pub(super) fn definite(counts: &Counts) -> u64 {
    sum(&counts.outcomes, is_definite)
}

/// What shows that an address works: handshakes, and signs of life of connections that are open.
pub(super) fn successes(counts: &Counts) -> u64 {
    counts.established().saturating_add(counts.answered)
}

/// How often an address was used in all: connects, or where connections are kept, how often they were seen to be answered. A connection
/// that is not kept is both.
pub(super) fn uses(counts: &Counts) -> u64 {
    counts.attempts.max(counts.answered)
}

/// Attempts that the proxy gave up on its own account after they had waited far longer than a handshake there takes: its clients, or its
/// own timeout, are quicker than the first SYN sent again. Those of a tick are taken together.
pub(super) fn given_up_late(counts: &Counts, usual_us: Option<u64>) -> u64 {
    let cancelled = sum(&counts.outcomes, is_own_doing);
    let late_us =
        usual_us.map_or(LATE_UNKNOWN_US, |usual_us| usual_us.saturating_mul(LATE_FACTOR).max(LATE_US));
    let is_late = cancelled > 0 && counts.cancelled_sum_us / cancelled >= late_us;
    if is_late { cancelled } else { 0 }
}

/// Attempts that ended because nobody said anything.
pub(super) fn timeouts(outcomes: &ByOutcome) -> u64 {
    sum(outcomes, is_silence)
}

fn sum(outcomes: &ByOutcome, is_meant: impl Fn(Outcome) -> bool) -> u64 {
    let meant = Outcome::ALL.into_iter().zip(outcomes).filter(|(outcome, _)| is_meant(*outcome));
    meant.fold(0, |sum, (_, n)| sum.saturating_add(*n))
}

/// Failures by the names of their causes, summed over addresses.
pub(super) fn causes<'a>(of_addresses: impl IntoIterator<Item = &'a ByOutcome>) -> BTreeMap<Arc<str>, u64> {
    let mut sums = BTreeMap::new();
    for causes in of_addresses {
        for (outcome, n) in Outcome::ALL.into_iter().zip(causes).filter(|(_, n)| **n > 0) {
            let sum: &mut u64 = sums.entry(outcome.name().into()).or_default();
            *sum = sum.saturating_add(*n);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::{Hint, Outcome, is_answer, is_definite, is_failure, is_local, is_silence};

    fn check(is_meant: fn(Outcome) -> bool, expected: &str) {
        let meant: Vec<_> =
            Outcome::ALL.into_iter().filter(|outcome| is_meant(*outcome)).map(Outcome::name).collect();
        assert_eq!(meant.join(" "), expected);
    }

    #[test]
    fn each_list_has_the_outcomes_that_say_so() {
        check(|outcome| is_local(outcome, None), "permission_denied no_local_port backlog_full");
        check(|outcome| is_local(outcome, Some(Hint::NoIpv6)), "permission_denied backlog_full");
        check(is_answer, "established refused reset");
        // Forbidden by this host, and the next attempt will be as well.
        check(
            is_definite,
            "refused host_unreachable network_unreachable reset permission_denied no_such_socket",
        );
        check(is_silence, "timed_out proxy_timeout given_up");
        check(|outcome| !is_failure(outcome), "established cancelled");
    }
}
