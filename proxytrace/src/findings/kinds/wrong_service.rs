//! `wrong_service`: connections are established, and closed or reset unanswered.

use jiff::SignedDuration;

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::{has_name, line},
};
use crate::model::{Evidence, Finding, Kind, Severity, Subject};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::WrongService,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { failed, answered_before, .. } = sentence.evidence();
        let before =
            if *answered_before { "; it answered before, so this may be some requests only" } else { "" };
        format!(
            "{} accepts connections and does not answer; {failed} were closed or reset unanswered since {}{before}.",
            sentence.address_of_upstream(),
            sentence.since(),
        )
    },
    advice: |finding| {
        let line = if has_name(finding) { format!(", and {}", line(finding)) } else { String::new() };
        if finding.evidence.answered_before {
            format!("Check that service's log for crashes, whether something in front of it accepts while it is dead{line}.").into()
        } else {
            format!(
                "Check what listens there, whether TLS is spoken to a plain port or the reverse, whether something in front of it accepts \
                 for it (a balancer, docker-proxy){line}."
            )
            .into()
        }
    },
    documentation: Documentation {
        raised_when: "connections are accepted and closed unanswered",
        goes_when: "one is answered",
    },
};

/// What answered before pages only when so many fail in a row, over so long: it may be one request that crashes it, sent again and again
/// while nobody asks for anything else.
const NOT_ONE_REQUEST: (u64, SignedDuration) = (20, SignedDuration::from_mins(1));

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let peers = facts.proxy.peers();
    // In a stream, a server may have nothing to say.
    let peers =
        peers.filter(|(name, _, peer)| !(facts.proxy.is_stream(name) && peer.service.may_be_one_way()));
    let mut findings = facts.at_addresses(Kind::WrongService, peers, |peer| {
        let unanswered = peer.service.unanswered();
        let since = unanswered.since().filter(|_| peer.service.is_wrong())?;
        let answered_before = peer.service.has_answered();
        Some((
            since,
            Evidence {
                failed: unanswered.run(),
                of: unanswered.run(),
                answered_before,
                ..Evidence::default()
            },
        ))
    });
    for finding in &mut findings {
        if finding.evidence.answered_before && may_be_one_request(facts, finding) {
            finding.severity = finding.severity.min(Severity::Warning);
        }
    }
    findings
}

fn may_be_one_request(facts: &Facts<'_>, finding: &Finding) -> bool {
    let Subject { upstream: Some(upstream), address: Some(address), .. } = &finding.subject else {
        return false;
    };
    let upstream = facts.proxy.upstreams.get(upstream);
    let unanswered =
        upstream.and_then(|upstream| upstream.peer(address)).map(|peer| peer.service.unanswered());
    unanswered.is_some_and(|run| run.run() < NOT_ONE_REQUEST.0 || run.length() < NOT_ONE_REQUEST.1)
}

#[cfg(test)]
mod tests {
    use crate::{
        findings::scenes::{Scene, check},
        model::Severity,
    };

    #[test]
    fn a_service_that_hangs_up_unanswered_is_wrong() {
        let scene = check(
            "until connections are answered",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             config 1 api 5:9090
             4 x 1 api 5:9090 established 2 unanswered 2
             =>
             2 x 1 api 5:9090 established 2 unanswered 2
             => wrong_service api 5:9090
             wait 3600
             4 x 1 api 5:9090 established 2 unanswered 2
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "wrong_service: 10.0.0.5:9090 of upstream \"api\" accepts connections and does not answer; 20 were closed or \
             reset unanswered since 14:30:06Z. Check what listens there, whether TLS is spoken to a plain port or the \
             reverse, whether something in front of it accepts for it (a balancer, docker-proxy), and the \"server\" line at \
             /etc/nginx/nginx.conf:1."
        );
        check(
            "the right one listens there again",
            "20 x 0 unknown 5:9090 established 2 unanswered 2
             => wrong_service unknown 5:9090
             4 x 0 unknown 5:9090 established 2
             =>
             8 x 0 unknown 5:9090 established 2
             => not wrong_service unknown 5:9090",
        );
    }

    #[test]
    fn one_page_that_crashes_it_on_a_quiet_site_pages_nobody() {
        let severity = |scene: &Scene| scene.findings.active().map(|finding| finding.severity).next();
        let quiet = check(
            "a client asks for it again and again, and then nobody asks for anything",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 1 answered 1
             wait 3
             12 x 0 api 5:8080 established 1 unanswered 1
             => wrong_service api 5:8080
             wait 3600
             =>",
        );
        assert_eq!(severity(&quiet), Some(Severity::Warning));
        assert!(quiet.sentence().contains("this may be some requests only"), "{}", quiet.sentence());
        let dead = check(
            "something in front of it accepts for it",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 1 answered 1
             wait 3
             300 x 0 api 5:8080 established 1 unanswered 1
             => wrong_service api 5:8080",
        );
        assert_eq!(severity(&dead), Some(Severity::Critical));
    }

    #[test]
    fn a_service_that_dies_is_not_wrong() {
        check(
            "it takes its connections with it",
            "100 x 0 unknown 5:8080 established 5
             0 unknown 5:8080 established 2 unanswered 80
             20 x 0 unknown 6:8080 established 5
             100 x 0 unknown 5:8080 established 5
             =>",
        );
    }
}
