//! `upstream_down`: nothing that an upstream is connected to at accepts a connection any more.
//!
//! That hurts each request, so it is reported at once.

use std::sync::Arc;

use super::{
    definition::{Definition, Documentation, Facts},
    sentence::server_line,
};
use crate::{
    findings::{history::Upstream, outcomes::causes},
    model::{Evidence, Finding, Kind, UNDECLARED_UPSTREAM},
};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::UpstreamDown,
    explains: &[Kind::AddressDown],
    prove: None,
    detect: |facts| {
        let upstreams = facts.proxy.upstreams.iter();
        upstreams.filter_map(|(name, upstream)| down(facts, name, upstream)).collect()
    },
    sentence: |sentence| {
        format!(
            "{} cannot be reached since {}; the last {} connects all {}.",
            sentence.upstream(),
            sentence.since(),
            sentence.evidence().of,
            sentence.failed(),
        )
    },
    advice: |finding| format!("Check the service behind it, then {}.", server_line(finding)).into(),
    documentation: Documentation {
        raised_when: "every recent connect to all addresses of an upstream failed",
        goes_when: "one succeeds",
    },
};

/// Nothing that the upstream is connected to at can be reached: each address has failed since the last success.
fn down(facts: &Facts<'_>, name: &Arc<str>, upstream: &Upstream) -> Option<Finding> {
    let is_down = **name != *UNDECLARED_UPSTREAM
        && upstream.reach.is_proof()
        && upstream.live().all(|(_, peer)| peer.reach.run() > 0)
        && upstream.live().any(|(address, _)| facts.proxy.is_current(name, address));
    let since = upstream.reach.since().filter(|_| is_down)?;
    let evidence = Evidence {
        failed: upstream.reach.run(),
        of: upstream.reach.run(),
        causes: causes(upstream.live().map(|(_, peer)| &peer.causes)),
        in_flight: upstream.live().map(|(_, peer)| peer.in_flight).fold(0, u64::saturating_add),
        ..Evidence::default()
    };
    Some(facts.at_upstream(Kind::UpstreamDown, name, upstream.epoch, since, evidence))
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
        check(
            "it never worked",
            "2 x 0 unknown 5:8080 refused 1
             =>
             0 unknown 5:8080 refused 1
             => upstream_down unknown",
        );
        check(
            "what a script connects to can have no name, whatever is declared beside it",
            "config 0 +open shop 9:80
             3 x 0 unknown 5:8080 refused 1; 0 shop 9:80 established 1
             => upstream_down unknown",
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
