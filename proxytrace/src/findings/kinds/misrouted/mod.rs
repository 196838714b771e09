//! `misrouted`: with a reload an upstream's traffic went elsewhere, and it fails there.

mod proof;

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::line,
};
use crate::{
    findings::{
        history::{Epoch, Peer},
        outcomes::{causes, fared},
    },
    model::{Address, Evidence, Fared, Finding, Kind},
};
use proof::{Case, proven};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::Misrouted,
    severity: Weight::OfAddress,
    explains: &[Kind::UpstreamDown, Kind::AddressDown],
    prove: Some(proven),
    detect,
    sentence: |sentence| {
        let Evidence { failed, of, from, reload, old_workers, .. } = sentence.evidence();
        let from = if from.is_empty() { String::new() } else { format!(" from {}", sentence.from()) };
        let reload = reload
            .map_or_else(String::new, |reload| format!(" with the reload at {}", sentence.time(reload)));
        let old_workers = old_workers.map_or_else(String::new, |Fared { failed, of }| {
            format!(" (old workers: {failed} of {of} failed)")
        });
        format!(
            "{} moved{from} to {}{reload}; {failed} of {of} connects since {}{old_workers}.",
            sentence.upstream(),
            sentence.to(),
            sentence.failed(),
        )
    },
    advice: |finding| match &finding.place {
        Some(_) => format!("Check {}.", line(finding)).into(),
        None => "Check what the reload changed, or go back to the configuration before it.".into(),
    },
    documentation: Documentation {
        raised_when: "an upstream moved with a reload, and fails where it moved to",
        goes_when: "a connect there succeeds",
    },
};

/// So many of the addresses that an upstream has left are evidence: thousands may have been left for thousands.
const MAX_LEFT: usize = 64;

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let proxy = facts.proxy;
    let mut findings = Vec::new();
    for (name, upstream) in &proxy.upstreams {
        let misrouted = upstream.peers().filter(|(_, peer)| peer.proven.has(Kind::Misrouted));
        let mut misrouted = misrouted.map(|(address, peer)| (name, address, peer)).peekable();
        if misrouted.peek().is_none() {
            continue;
        }
        let case = Case::of(proxy, name, upstream);
        let evidence_of = |peer: &Peer| {
            // Not known any more after so many reloads that its generation was forgotten: the finding stays all the same.
            let reload = proxy.generations.get(peer.entered).map(|begun| begun.at);
            let Fared { failed, of } = fared(&peer.counts);
            let evidence = Evidence {
                failed,
                of,
                causes: causes([&peer.causes]),
                from: case.left_for(peer).take(MAX_LEFT).map(|(address, _)| address.clone()).collect(),
                reload,
                old_workers: upstream.old_workers(peer.entered),
                in_flight: peer.in_flight,
                ..Evidence::default()
            };
            let since = reload.map_or(peer.first(), |reload| reload.max(peer.first()));
            Some((since, evidence))
        };
        if case.has_moved_as_a_whole() {
            findings.extend(as_a_whole(facts, name, misrouted, evidence_of));
        } else {
            findings.extend(facts.at_addresses(Kind::Misrouted, misrouted, evidence_of));
        }
    }
    findings
}

/// One finding about all addresses of an upstream.
fn as_a_whole<'p>(
    facts: &Facts<'_>,
    name: &Arc<str>,
    misrouted: impl Iterator<Item = (&'p Arc<str>, &'p Address, &'p Peer)>,
    evidence_of: impl Fn(&Peer) -> Option<(Timestamp, Evidence)>,
) -> Option<Finding> {
    let mut whole: Option<(Epoch, Timestamp, Evidence)> = None;
    for (_, address, peer) in misrouted.filter(|(name, address, _)| facts.proxy.is_current(name, address)) {
        let Some((since, evidence)) = evidence_of(peer) else { continue };
        let (_, first, sum) = whole.get_or_insert_with(|| {
            (
                peer.epoch,
                since,
                Evidence { failed: 0, of: 0, in_flight: 0, causes: Default::default(), ..evidence.clone() },
            )
        });
        *first = since.min(*first);
        sum.failed = sum.failed.saturating_add(evidence.failed);
        sum.of = sum.of.saturating_add(evidence.of);
        sum.in_flight = sum.in_flight.saturating_add(evidence.in_flight);
        for (cause, n) in evidence.causes {
            *sum.causes.entry(cause).or_default() += n;
        }
        if sum.to.len() < MAX_LEFT {
            sum.to.push(address.clone());
        }
    }
    let (epoch, since, evidence) = whole?;
    Some(facts.at_upstream(Kind::Misrouted, name, epoch, since, evidence))
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn it_stays_until_the_contrary_is_seen() {
        check(
            "another reload does not fix it, and the right one does",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 5:8081
             1 api 5:8081 refused 5
             => misrouted api 5:8081
             config 2 api 5:8081
             2 api 5:8081 refused 5
             wait 7200
             =>
             2 api 5:8081 established 1
             => not misrouted api 5:8081
             50 x 2 api 5:8081 established 1
             50 x 2 api 5:8081 established 1 refused 1
             =>",
        );
        let reloads = (2..12).map(|n| format!("config {n} api 5:8081\n{n} api 5:8081 refused 1\n"));
        let scene = check(
            "so many reloads do not fix it that the one to blame is forgotten",
            &format!(
                "config 0 api 5:8080
                 10 x 0 api 5:8080 established 1
                 config 1 api 5:8081
                 1 api 5:8081 refused 5
                 => misrouted api 5:8081
                 {}
                 =>",
                reloads.collect::<String>()
            ),
        );
        assert_eq!(
            scene.sentence(),
            "misrouted: upstream \"api\" moved from 10.0.0.5:8080 to 10.0.0.5:8081; 15 of 15 connects since were refused. \
             Check the \"server\" line at /etc/nginx/nginx.conf:1."
        );
        check(
            "the server is restarted with the right configuration",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 5:8081
             1 api 5:8081 refused 5
             => misrouted api 5:8081
             restart
             config 0 api 5:8080
             => not misrouted api 5:8081
             0 api 5:8080 established 5
             =>",
        );
        check(
            "taken out, and back in: judged anew",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 5:8081
             1 api 5:8081 refused 5
             => misrouted api 5:8081
             config 2 api 5:8080
             => not misrouted api 5:8081
             10 x 2 api 5:8080 established 1
             config 3 api 5:8081
             =>
             3 api 5:8081 refused 1
             => misrouted api 5:8081
             config 4 api 5:8080
             => not misrouted api 5:8081
             reload 5
             =>
             5 api 5:8081 refused 3
             => misrouted api 5:8081",
        );
        check(
            "back and forth between two colours, one of which is dead the second time",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 5:8081
             10 x 1 api 5:8081 established 1
             config 2 api 5:8080
             10 x 2 api 5:8080 established 1
             config 3 api 5:8081
             3 api 5:8081 refused 1
             => misrouted api 5:8081",
        );
    }

    #[test]
    fn old_workers_are_those_that_the_upstream_worked_with() {
        let check = |what: &str, history: &str, expected: &str| {
            let sentence = check(what, history).last_sentence;
            assert!(sentence.contains(expected), "{what}: {sentence}");
        };
        check(
            "the workers of the bad reload are old when it is corrected",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             config 1 api 5:8081
             1 api 5:8081 refused 3; 0 api 5:8080 established 41
             => misrouted api 5:8081
             reload 2
             1 api 5:8081 refused 4; 0 api 5:8080 established 2
             =>
             config 2 api 5:8080
             => not misrouted api 5:8081",
            "7 of 7 connects since were refused (old workers: 0 of 43 failed).",
        );
        check(
            "the same mistake again",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             config 1 api 5:8081
             1 api 5:8081 refused 3; 0 api 5:8080 established 41
             => misrouted api 5:8081
             config 2 api 5:8081
             2 api 5:8081 refused 3; 1 api 5:8081 refused 5; 0 api 5:8080 established 2
             =>
             2 api 5:8081 established 1
             => not misrouted api 5:8081",
            "11 of 11 connects since were refused (old workers: 0 of 43 failed).",
        );
        check(
            "another mistake",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             config 1 api 5:8081
             1 api 5:8081 refused 3; 0 api 5:8080 established 41
             => misrouted api 5:8081
             config 2 api 5:8082
             => not misrouted api 5:8081
             2 api 5:8082 refused 3; 1 api 5:8081 refused 5; 0 api 5:8080 established 2 refused 1
             => misrouted api 5:8082",
            "moved from 10.0.0.5:8080 to 10.0.0.5:8082 with the reload at 14:30:06Z; 3 of 3 connects since were refused (old \
             workers: 1 of 3 failed).",
        );
        check(
            "a mistake that was none for findings, and then one",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 3
             config 1 api 6:8080
             1 api 6:8080 refused 9
             => upstream_down api
             config 2 api 5:8082
             => not upstream_down api
             2 api 5:8082 refused 3; 1 api 6:8080 refused 5; 0 api 5:8080 established 2
             => misrouted api 5:8082",
            "(old workers: 0 of 2 failed)",
        );
        check(
            "two mistakes about one of two addresses",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 3; 0 api 6:8080 established 1
             config 1 api 5:8080 7:8080
             20 x 1 api 5:8080 established 3; 1 api 7:8080 refused 1
             config 2 api 5:8080 8:8080
             260 x 2 api 5:8080 established 3; 2 api 8:8080 refused 1; 1 api 7:8080 refused 1; 0 api 6:8080 established 1
             => misrouted api 8:8080",
            "(old workers: 0 of 2",
        );
        check(
            "they are few who know that it worked before",
            "config 0 api 5:8080
             0 api 5:8080 established 3
             config 1 api 5:8081
             1 api 5:8081 refused 3; 0 api 5:8080 refused 2
             => misrouted api 5:8081",
            "(old workers: 2 of 2 failed)",
        );
    }
}
