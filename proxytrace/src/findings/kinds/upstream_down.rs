//! `upstream_down`: nothing that an upstream is connected to at accepts a connection any more.
//!
//! That hurts each request, so it is reported at once.

use std::sync::Arc;

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::{line, mend, no_answer},
};
use crate::{
    findings::{
        history::{Peer, Upstream},
        outcomes::{causes, definite, fared},
    },
    model::{Evidence, Finding, Kind, Severity, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::UpstreamDown,
    severity: Weight::Always(Severity::Critical),
    explains: &[Kind::AddressDown],
    prove: None,
    detect: |facts| {
        let upstreams = facts.proxy.upstreams.iter();
        upstreams.filter_map(|(name, upstream)| down(facts, name, upstream)).collect()
    },
    sentence: |sentence| {
        let Evidence { of, addresses, syn_retransmits, given_up, in_flight, .. } = sentence.evidence();
        let where_to =
            if *addresses > 1 { format!(" at any of its {addresses} addresses") } else { String::new() };
        let mut text =
            format!("{} cannot be reached{where_to} since {}", sentence.upstream(), sentence.since());
        match of {
            0 => text += "; nothing answers",
            1 => text += &format!("; the last connect {}", sentence.failed()),
            _ => text += &format!("; the last {of} connects all {}", sentence.failed()),
        }
        if *of == 0 {
            text += &no_answer(*syn_retransmits, *given_up, *in_flight);
        }
        text += sentence.because();
        if *addresses > 1 {
            text += ". nginx leaves each alone for its fail_timeout (unless max_fails is 0), and turns clients away itself meanwhile";
        }
        text + "."
    },
    advice: |finding| {
        let check = || format!("Check the service behind it, then {}.", line(finding)).into();
        mend(finding).unwrap_or_else(check)
    },
    documentation: Documentation {
        raised_when: "every recent connect to all addresses of an upstream failed, or nothing answers at any",
        goes_when: "one succeeds",
    },
};

/// So many addresses are evidence.
const MAX_NAMED: usize = 64;

/// Nothing that the upstream is connected to at can be reached: each address has failed since the last success. One where no connect
/// has ended yet proves neither.
fn down(facts: &Facts<'_>, name: &Arc<str>, upstream: &Upstream) -> Option<Finding> {
    if [UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM].contains(&&**name) {
        return None;
    }
    let has_failed = |peer: &Peer| peer.reach.run() > 0;
    let is_silent = Peer::is_silent;
    let tried = || upstream.live().map(|(_, peer)| peer).filter(|peer| !peer.is_untried() || is_silent(peer));
    let all_fail = tried().all(|peer| has_failed(peer) || is_silent(peer));
    let are_failures = upstream.reach.is_proof() || is_never_well(facts, name, upstream);
    let is_current = upstream.live().any(|(address, _)| facts.proxy.is_current(name, address));
    // Where nothing answers, it is known long before connects fail.
    let are_silent = tried().all(is_silent);
    if tried().next().is_none() || !all_fail || !is_current || !(are_failures || are_silent) {
        return None;
    }
    let silent_since =
        upstream.live().filter_map(|(_, peer)| peer.answers.since().or(peer.response.unheard_since())).min();
    let since = upstream.reach.since().or(silent_since)?;
    let sum = |of: fn(&Peer) -> u64| upstream.live().map(|(_, peer)| of(peer)).fold(0, u64::saturating_add);
    let evidence = Evidence {
        failed: upstream.reach.run(),
        of: upstream.reach.run(),
        causes: causes([&upstream.causes]),
        to: upstream.live().take(MAX_NAMED).map(|(address, _)| address.clone()).collect(),
        addresses: sum(|peer| u64::from(peer.reach.run() > 0 || peer.is_silent())),
        syn_retransmits: sum(|peer| peer.no_answer.resent),
        given_up: sum(|peer| peer.no_answer.given_up),
        in_flight: sum(|peer| peer.in_flight),
        hint: upstream.live().find_map(|(_, peer)| peer.hint),
        start_unseen: upstream.live().all(|(_, peer)| facts.is_start_unseen(Kind::UpstreamDown, peer)),
        ..Evidence::default()
    };
    Some(facts.at_upstream(Kind::UpstreamDown, name, upstream.epoch, since, evidence))
}

/// Whether each of several addresses was tried, all refuse for good, and none has ever worked: nginx tries none again before its
/// `fail_timeout`, so there will be no further failure to wait for.
fn is_never_well(facts: &Facts<'_>, name: &Arc<str>, upstream: &Upstream) -> bool {
    let declared = facts.proxy.generations.declared();
    let Some(declared) = declared.and_then(|declared| declared.upstreams.get(name)) else { return false };
    let refuses = |address| {
        upstream.peer(address).is_some_and(|peer| {
            let failed = fared(&peer.counts).failed;
            peer.worked.is_none() && failed > 0 && failed == definite(&peer.counts)
        })
    };
    declared.addresses.len() > 1 && declared.addresses.keys().all(refuses)
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn an_upstream_is_down_when_nothing_of_it_can_be_reached() {
        let scene = check(
            "the only peer dies and comes back",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             0 api 5:8080 refused 2
             =>
             0 api 5:8080 refused 1 cancelled 3
             => upstream_down api
             wait 86400
             20 x 0 api 5:8080 refused 1
             =>
             0 api 5:8080 established 1 refused 1
             => not upstream_down api
             4 x 0 api 5:8080 refused 1 timed_out 1
             =>
             wait 3600
             40 x 0 api 5:8080 established 3
             4 x 0 api 5:8080 refused 1 timed_out 1
             => upstream_down api",
        );
        assert_eq!(
            scene.sentence(),
            "upstream_down: upstream \"api\" cannot be reached since 15:30:22Z; the last 8 connects all failed (refused \
             4, timed_out 4). Check the service behind it, then the \"server\" line at /etc/nginx/nginx.conf:1."
        );
        let scene = check(
            "some connects are not allowed by this host: they are no failures of the upstream",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             0 api 5:8080 permission_denied 2 refused 2; 0 api 6:8080 refused 3
             => upstream_down api",
        );
        assert!(scene.sentence().contains("the last 5 connects all were refused"), "{}", scene.sentence());
        check(
            "a reload switches to another pool by hand, and back to the one that is dead",
            "config 0 blue 5:8080 | green- 6:8080
             20 x 0 blue 5:8080 established 1
             3 x 0 blue 5:8080 refused 1
             => upstream_down blue
             config 1 blue- 5:8080 | green 6:8080
             1 green 6:8080 established 1
             => not upstream_down blue
             4 x 0 blue 5:8080 refused 1
             60 x 1 green 6:8080 established 1
             =>
             config 2 blue 5:8080 | green- 6:8080
             3 x 2 blue 5:8080 refused 1
             => upstream_down blue
             config 3 +open blue- 5:8080 | green 6:8080
             10 x 3 green 6:8080 established 1
             =>",
        );
        check(
            "what is connected to is led to, whatever is understood of the configuration",
            "config 0 api- 5:8080
             20 x 0 api 5:8080 established 1
             3 x 0 api 5:8080 refused 1
             => upstream_down api",
        );
        check(
            "it never worked",
            "config 0 api 5:8080
             2 x 0 api 5:8080 refused 1
             =>
             0 api 5:8080 refused 1
             => upstream_down api",
        );
        check(
            "one success, then three failures",
            "config 0 api 5:8080
             0 api 5:8080 established 1
             3 x 0 api 5:8080 refused 1
             => upstream_down api",
        );
        check(
            "kept connections serve two hundred requests, and then it dies",
            "config 0 api 5:8080
             0 api 5:8080 established 1
             40 x 0 api 5:8080 answered 5
             3 x 0 api 5:8080 refused 1
             => upstream_down api
             0 api 5:8080 answered 1
             => not upstream_down api",
        );
        check(
            "it dies within the turn of its last success",
            "config 0 api 5:8080
             0 api 5:8080 established 10 refused 2
             =>
             0 api 5:8080 refused 1
             => upstream_down api",
        );
        check(
            "a connect to an address that was not tried yet is nothing to the contrary",
            "config 0 api 5:8080 5:9090
             20 x 0 api 5:8080 established 1
             3 x 0 api 5:8080 refused 1
             => upstream_down api
             0 api 5:9090 flying 1
             =>
             0 api 5:9090 established 1
             => not upstream_down api",
        );
        let scene = check(
            "no IPv6 address to connect from",
            "config 0 api [2001:db8::5]:80
             hint [2001:db8::5]:80 no_ipv6
             2 x 0 api [2001:db8::5]:80 no_local_port 1
             =>
             0 api [2001:db8::5]:80 no_local_port 1
             => upstream_down api",
        );
        assert_eq!(
            scene.sentence(),
            "upstream_down: upstream \"api\" cannot be reached since at least 14:30:00Z; the last 3 connects all failed \
             (no_local_port 3); there is no IPv6 address on this host. Have nginx use IPv4 only: `ipv6=off` in its \
             \"resolver\" line, or an IPv4 address in place of the name; or give this host an IPv6 address."
        );
        check(
            "it is known later that there is none",
            "config 0 api [2001:db8::5]:80
             5 x 0 api [2001:db8::5]:80 no_local_port 1
             => ports_exhausted api [2001:db8::5]:80
             hint [2001:db8::5]:80 no_ipv6
             0 api [2001:db8::5]:80 flying 0
             => not ports_exhausted api [2001:db8::5]:80, upstream_down api",
        );
        let scene = check(
            "wrong ports, and nginx tries none again before fail_timeout",
            "config 0 api 5:8081 6:8081
             0 api 5:8081 refused 1; 0 api 6:8081 refused 1
             => upstream_down api",
        );
        assert_eq!(
            scene.sentence(),
            "upstream_down: upstream \"api\" cannot be reached at any of its 2 addresses since at least 14:30:00Z; the last 2 connects \
             all were refused. nginx leaves each alone for its fail_timeout (unless max_fails is 0), and turns clients away itself meanwhile. Check the \
             service behind it, then the \"server\" line at /etc/nginx/nginx.conf:1."
        );
        check(
            "both peers, then one is back",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             0 api 5:8080 refused 1; 0 api 6:8080 refused 1
             =>
             wait 10
             0 api 5:8080 refused 1; 0 api 6:8080 refused 1
             => upstream_down api
             0 api 5:8080 refused 1; 0 api 6:8080 established 1
             => not upstream_down api",
        );
        check(
            "a reload without its address ends it",
            "config 0 api 5:8080 | web 7:80
             5 x 0 api 5:8080 refused 1; 0 web 7:80 established 1
             => upstream_down api
             config 1 web 7:80
             => not upstream_down api",
        );
        let scene = check(
            "a reload to another dead port",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             3 x 0 api 5:8080 refused 1
             => upstream_down api
             config 1 api 5:8081
             => not upstream_down api
             1 api 5:8081 refused 1
             => upstream_down api
             1 api 5:8081 refused 1
             =>",
        );
        assert!(scene.sentence().contains("the last 5 connects all were refused"), "{}", scene.sentence());
        check(
            "a name that the proxy follows moves to an address where nothing listens, and from there to one that serves",
            "config 0 +followed api 5:8080@5>
             20 x 0 api 5:8080 established 3
             config 0 +followed api 5:8080@6> 6:8080
             2 x 0 api 6:8080 refused 1
             =>
             0 api 6:8080 refused 1
             => upstream_down api
             0 api 5:8080 answered 1
             =>
             config 0 +followed api 5:8080@7> 6:8080 7:8080
             0 api 7:8080 established 3
             => not upstream_down api
             wait 100
             20 x 0 api 7:8080 established 3
             =>",
        );
        check(
            "its name has moved, and the proxy does not know that yet",
            "config 0 +followed api 5:8080@9> 6:8080 7:8080 8:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2; 0 api 7:8080 established 2; 0 api 8:8080 established 2
             20 x 0 api 8:8080 refused 2
             => ",
        );
        check(
            "what old workers reach is nothing to the contrary",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             config 1 api 5:8080
             1 api 5:8080 refused 3; 0 api 5:8080 established 3
             => upstream_down api
             20 x 1 api 5:8080 refused 3; 0 api 5:8080 established 3
             =>",
        );
        check(
            "one upstream is down, an upstream that shares its name in the label is not",
            "config 0 api 5:8080 | web 5:8080 6:8080
             10 x 0 api,web 5:8080 established 1; 0 web 6:8080 established 1
             4 x 0 api,web 5:8080 refused 1; 0 web 6:8080 established 1
             => upstream_down api",
        );
    }

    #[test]
    fn what_is_well_is_not_down() {
        check(
            "a rolling restart, each peer for half a minute",
            "config 0 api 5:8080 6:8080 7:8080
             50 x 0 api 5:8080 established 2; 0 api 6:8080 established 2; 0 api 7:8080 established 2
             120 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3; 0 api 7:8080 established 3
             120 x 0 api 5:8080 established 3; 0 api 6:8080 refused 1; 0 api 7:8080 established 3
             120 x 0 api 5:8080 established 3; 0 api 6:8080 established 3; 0 api 7:8080 refused 1
             50 x 0 api 5:8080 established 2; 0 api 6:8080 established 2; 0 api 7:8080 established 2
             =>",
        );
        check(
            "clients leave, and workers exit",
            "20 x 0 unknown 5:8080 cancelled 5
             20 x 0 unknown 5:8080 established 1 cancelled 5
             20 x 0 unknown 5:8080 cancelled 5
             =>",
        );
        check(
            "little traffic, and now and then a failure",
            "config 0 api 5:8080
             0 api 5:8080 established 1
             wait 600
             0 api 5:8080 refused 1
             wait 600
             0 api 5:8080 established 1
             wait 600
             0 api 5:8080 refused 2
             wait 600
             0 api 5:8080 established 1
             =>",
        );
        check(
            "scaled down",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             0 api 6:8080 refused 2; 0 api 5:8080 established 2
             config 1 api 5:8080
             400 x 1 api 5:8080 established 2; 0 api 6:8080 refused 1
             =>",
        );
        check(
            "clients that stick to one peer of two",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             40 x 0 api 5:8080 refused 1
             =>",
        );
    }
}
