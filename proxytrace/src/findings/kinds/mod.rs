//! The kinds of findings. Each has a file: how it is detected, what it explains away, what it says, what to do about it, and its line
//! in docs/findings.md. The table lists them once.
//!
//! A kind is a function over the history, which says what stands. Where a kind stores what it has proven in the history, that is by its name.

mod definition;
mod sentence;

mod address_down;
mod backlog_full;
mod black_hole;
mod denied;
mod local;
mod misrouted;
mod no_response;
mod no_workers;
mod overloaded;
mod ports_exhausted;
mod proxy_down;
mod proxy_fails;
mod reload_rejected;
mod silence;
mod silent_upstream;
mod slow_connect;
mod stale_name;
mod undeclared_destination;
mod upstream_down;
mod wrong_service;

#[cfg(test)]
mod docs;

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use jiff::{Timestamp, tz::TimeZone};

use super::history::Proxy;
use crate::model::{Change, Finding, Kind, State, Subject};
use definition::{Definition, Facts};
use sentence::Sentence;

/// Every kind, in the order of [`Kind`].
static TABLE: [Definition; Kind::ALL.len()] = [
    misrouted::DEFINITION,
    upstream_down::DEFINITION,
    address_down::DEFINITION,
    undeclared_destination::DEFINITION,
    silent_upstream::DEFINITION,
    black_hole::DEFINITION,
    wrong_service::DEFINITION,
    reload_rejected::DEFINITION,
    ports_exhausted::DEFINITION,
    backlog_full::DEFINITION,
    denied::DEFINITION,
    slow_connect::DEFINITION,
    overloaded::DEFINITION,
    no_workers::DEFINITION,
    proxy_down::DEFINITION,
    proxy_fails::DEFINITION,
    no_response::DEFINITION,
    stale_name::DEFINITION,
];

/// A kind that is missing from the table, or that is not in its place, does not compile.
const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].kind as usize == index, "the table is in the order of the kinds");
        index += 1;
    }
};

fn definition(kind: Kind) -> &'static Definition {
    &TABLE[kind as usize]
}

/// Stores what is newly proven of a proxy's addresses in its history.
pub(super) fn prove(proxy: &mut Proxy) {
    for definition in &TABLE {
        let proven = definition.prove.map_or_else(Vec::new, |prove| prove(proxy));
        for (upstream, address) in proven {
            proxy.note_proven(definition.kind, &upstream, &address);
        }
    }
}

/// What stands of a proxy, and whether others explain it: then it is not raised.
pub(super) fn standing(proxy: &Proxy, now: Timestamp) -> Vec<(Finding, bool)> {
    let facts = Facts { proxy, now };
    let findings: Vec<_> = TABLE.iter().flat_map(|definition| (definition.detect)(&facts)).collect();
    let explained = explained(&findings);
    // Not everything is used right when an outage begins, nor again at once when it is over.
    let begins = !findings.is_empty() && proxy.may_become_outage(now);
    let over = proxy.outage_just_over(now);
    let is_explained = |finding: Finding| {
        let is_of_outage = (begins || over.is_some_and(|over| finding.since < over))
            && definition(Kind::ProxyDown).explains.contains(&finding.subject.kind);
        let is_explained = is_of_outage || explained.contains(&finding.subject);
        (finding, is_explained)
    };
    findings.into_iter().map(is_explained).collect()
}

/// What is explained away by others, be they explained themselves. No finding is compared with each other one: an upstream may
/// have thousands.
fn explained(findings: &[Finding]) -> HashSet<Subject> {
    // By what is explained: its kind and upstream. An explanation without an address is one of all addresses.
    let mut explanations: HashMap<_, HashSet<_>> = HashMap::new();
    for Finding { subject, .. } in findings {
        for kind in definition(subject.kind).explains {
            let addresses: &mut HashSet<_> =
                explanations.entry((*kind, subject.upstream.as_ref())).or_default();
            addresses.insert(subject.address.as_ref());
        }
    }
    let subjects = findings.iter().map(|finding| &finding.subject);
    let explained = subjects.filter(|subject| {
        let address = subject.address.as_ref();
        explanations.contains_key(&(subject.kind, None))
            || explanations.get(&(subject.kind, subject.upstream.as_ref())).is_some_and(|addresses| {
                address.is_none() || addresses.contains(&None) || addresses.contains(&address)
            })
    });
    explained.cloned().collect()
}

impl fmt::Display for Finding {
    /// A sentence with its name and with what to do, times in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_zone(&TimeZone::UTC))
    }
}

impl Finding {
    /// What its `Display` says, with times as in a time zone.
    #[must_use]
    pub fn in_zone(&self, zone: &TimeZone) -> String {
        let Definition { kind, sentence, advice, .. } = definition(self.subject.kind);
        let sentence = sentence(&Sentence { finding: self, zone });
        format!("{}: {sentence} {}", kind.name(), advice(self))
    }
}

impl Change {
    /// What people read of it: the sentence of a finding that came; of one that went, how long it stood and why it does no more.
    #[must_use]
    pub fn in_zone(&self, zone: &TimeZone) -> String {
        if self.state == State::Raised {
            return self.finding.in_zone(zone);
        }
        let sentence = Sentence { finding: &self.finding, zone };
        let about = match (&self.finding.subject.address, &self.finding.subject.upstream) {
            (Some(_), _) => format!(" at {}", sentence.address_of_upstream()),
            (None, Some(_)) => format!(" of {}", sentence.upstream()),
            (None, None) => format!(" of {}", self.finding.subject.proxy),
        };
        let lasted =
            self.lasted_ms.map_or_else(String::new, |ms| format!(" after {}", sentence::duration(ms)));
        let because = self.because.as_ref().map_or_else(String::new, |because| format!(": {because}"));
        format!("{}{about}{lasted}{because}.", self.finding.subject.kind.name())
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Finding, Kind};

    #[test]
    fn a_sentence_says_which_proxy_where_there_are_several_and_that_a_beginning_was_not_seen() {
        let mut finding = Finding::sample();
        finding.several_proxies = true;
        assert!(finding.to_string().contains("upstream \"api\" of nginx.service moved from"), "{finding}");
        finding.subject.kind = Kind::AddressDown;
        finding.evidence.start_unseen = true;
        assert!(
            finding.to_string().contains("10.0.0.5:8081 of upstream \"api\" of nginx.service cannot be reached since at least 14:30:02Z"),
            "{finding}"
        );
    }

    #[test]
    fn a_sentence_says_what_is_known() {
        assert_eq!(
            Finding::sample().to_string(),
            "misrouted: upstream \"api\" moved from 10.0.0.5:8080 to 10.0.0.5:8081 with the reload at 14:30:02Z; 312 of 312 \
             connects since were refused (old workers: 0 of 41 failed). Check the \"server\" line at \
             /etc/nginx/conf.d/api.conf:4."
        );
    }
}
