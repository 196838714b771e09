//! `address_down`: one address of several does not accept a connection any more.
//!
//! nginx asks the next one, so a restart is given the time that it takes.

use std::sync::Arc;

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::{has_name, line, list, mend},
};
use crate::{
    findings::{
        evidence::RESTART_TIMEOUT,
        history::Upstream,
        outcomes::{causes, of_peer},
    },
    model::{Address, Evidence, Finding, Kind, Severity, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::AddressDown,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { of, backups, .. } = sentence.evidence();
        let others = match &backups[..] {
            _ if !has_name(sentence.finding) => String::new(),
            // None of them serves.
            _ if sentence.finding.severity == Severity::Critical => String::new(),
            [] => ", other addresses can".to_owned(),
            backups => format!(", and only its backup {} is left", list(backups)),
        };
        format!(
            "{} cannot be reached since {}{others}; the last {of} connects there all {}{}.",
            sentence.address_of_upstream(),
            sentence.since(),
            sentence.failed(),
            sentence.because(),
        )
    },
    advice: |finding| {
        mend(finding).unwrap_or_else(|| match (has_name(finding), &finding.directive) {
            (true, None) => {
                format!("Check the service there; mark {} \"down\" until it is back.", line(finding)).into()
            }
            (true, Some(_)) => format!("Check the service there, and the name in {}.", line(finding)).into(),
            (false, _) => "Check the service there.".into(),
        })
    },
    documentation: Documentation {
        raised_when: "the same for one address of several, for a minute; at once where addresses have no names",
        goes_when: "one succeeds",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let is_meant = |name: &str, upstream: &Upstream| match name {
        UNDECLARED_UPSTREAM => false,
        UNKNOWN_UPSTREAM => true,
        _ => upstream.peers().count() > 1,
    };
    let upstreams = facts.proxy.upstreams.iter().filter(|(name, upstream)| is_meant(name, upstream));
    let mut findings = Vec::new();
    for (name, upstream) in upstreams {
        let peers = upstream.peers().map(|(address, peer)| (name, address, peer));
        // Nobody knows what stands in for an address without a name: it may be all that there is.
        let backups = backups_left(facts, name, upstream);
        let is_patient = **name != *UNKNOWN_UPSTREAM;
        findings.extend(facts.at_addresses(Kind::AddressDown, peers, |peer| {
            let is_over = !is_patient || peer.reach.length() >= RESTART_TIMEOUT;
            // One that its name has left is left by the proxy as well, within a few connects.
            let since = peer.reach.since().filter(|_| peer.reach.is_proof() && is_over && !peer.has_moved)?;
            let evidence = Evidence {
                failed: peer.reach.run(),
                of: peer.reach.run(),
                causes: causes([&of_peer(&peer.causes, peer.hint)]),
                in_flight: peer.in_flight,
                backups: backups.clone(),
                hint: peer.hint,
                ..Evidence::default()
            };
            Some((since, evidence))
        }));
    }
    findings
}

/// The backup servers, where they alone serve.
fn backups_left(facts: &Facts<'_>, name: &Arc<str>, upstream: &Upstream) -> Vec<Address> {
    let declared = facts.proxy.generations.declared();
    let Some(declared) = declared.and_then(|declared| declared.upstreams.get(name)) else {
        return Vec::new();
    };
    if declared.backups.is_empty() {
        return Vec::new();
    }
    let serving: Vec<_> =
        upstream.live().filter(|(_, peer)| peer.serves()).map(|(address, _)| address).collect();
    let are_backups = serving.iter().all(|address| declared.backups.contains(*address));
    if are_backups { serving.into_iter().cloned().collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn an_address_is_down_when_it_has_had_the_time_of_a_restart() {
        check(
            "one of two stays dead",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             230 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3
             =>
             20 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3
             => address_down api 5:8080
             wait 3600
             20 x 0 api 6:8080 established 3
             =>
             0 api 5:8080 established 1
             => not address_down api 5:8080",
        );
        check(
            "it is marked down, and back later",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             250 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3
             => address_down api 5:8080
             config 1 api 5:8080- 6:8080
             => not address_down api 5:8080
             config 2 api 5:8080 6:8080
             =>
             2 x 2 api 5:8080 refused 1; 2 api 6:8080 established 1
             =>",
        );
        check(
            "its name has other addresses, and the proxy follows it",
            "config 0 +followed api 5:8080@5> 6:8081
             20 x 0 api 5:8080 established 2; 0 api 6:8081 established 2
             250 x 0 api 5:8080 refused 1; 0 api 6:8081 established 3
             => address_down api 5:8080
             config 0 +followed api 5:8080@7> 7:8080 6:8081
             0 api 7:8080 established 1; 0 api 6:8081 established 2
             => not address_down api 5:8080",
        );
        check(
            "max_fails leaves few attempts",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             0 api 5:8080 refused 1; 0 api 6:8080 established 3
             wait 30
             0 api 5:8080 refused 1; 0 api 6:8080 established 3
             wait 30
             0 api 5:8080 refused 1; 0 api 6:8080 established 3
             => address_down api 5:8080",
        );
        check(
            "addresses that a script chooses have no names",
            "config 0 +open shop 9:80
             20 x 0 unknown 5:8080 established 2; 0 unknown 6:8080 established 2
             2 x 0 unknown 5:8080 refused 1; 0 unknown 6:8080 established 3
             =>
             0 unknown 5:8080 refused 1; 0 unknown 6:8080 established 3
             => address_down unknown 5:8080
             config 1 api 5:8080
             => not address_down unknown 5:8080",
        );
        let scene = check(
            "a proxy without a configuration",
            "12 x 0 unknown 5:8080 established 1; 0 unknown 6:8080 established 1
             3 x 0 unknown 5:8080 refused 1; 0 unknown 6:8080 established 1
             => address_down unknown 5:8080",
        );
        assert_eq!(
            scene.sentence(),
            "address_down: 10.0.0.5:8080 cannot be reached since 14:30:03Z; the last 3 connects there all were refused. Check \
             the service there."
        );
        let scene = check(
            "only the backup is left",
            "config 0 api 5:8080 6:8080~
             20 x 0 api 5:8080 established 2
             250 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3
             => address_down api 5:8080",
        );
        assert!(
            scene.sentence().contains(", and only its backup 10.0.0.6:8080 is left;"),
            "{}",
            scene.sentence()
        );
    }
}
