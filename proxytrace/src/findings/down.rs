//! `upstream_down` and `address_down`: nothing accepts a connection any more.
//!
//! An upstream that is down hurts each request, so it is told of at once. One address of several does not, as nginx asks the
//! next: there a restart must be given the time that it takes.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{
    black_hole, misrouted,
    peer::{Peer, causes},
    proxy::Proxy,
    upstream::Upstream,
};
use crate::model::{Address, Evidence, Finding, Kind, UNDECLARED_UPSTREAM};

/// From the first failure to the last of an address whose neighbours are well. A restart is over by then; nginx, which leaves it alone for
/// `fail_timeout` (10 s) at a time, has tried it about six times.
pub(super) const NOT_A_RESTART: SignedDuration = SignedDuration::from_mins(1);

pub(super) fn upstreams(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, upstream) in &proxy.upstreams {
        if is_down(proxy, name, upstream) && misrouted::peers(proxy, name, upstream).next().is_none() {
            let evidence = Evidence {
                failed: upstream.reach.run(),
                of: upstream.reach.run(),
                causes: causes(upstream.live().map(|(_, peer)| &peer.causes)),
                in_flight: upstream.live().map(|(_, peer)| peer.in_flight).fold(0, u64::saturating_add),
                generation: proxy.number(upstream.epoch),
                ..Evidence::default()
            };
            let since = upstream.reach.since();
            found.extend(since.map(|since| proxy.finding(Kind::UpstreamDown, name, None, since, evidence)));
        }
    }
}

pub(super) fn addresses(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, upstream) in &proxy.upstreams {
        if is_down(proxy, name, upstream) || upstream.peers.len() == 1 {
            continue;
        }
        for (address, peer) in &upstream.peers {
            let is_down = peer.reach.is_proof() && peer.reach.length() >= NOT_A_RESTART;
            if is_down
                && **name != *UNDECLARED_UPSTREAM
                && proxy.is_current(name, address)
                && !black_hole::is_one(peer)
                && !peer.is_misrouted
            {
                found.extend(address_down(proxy, name, address, peer));
            }
        }
    }
}

fn address_down(proxy: &Proxy, name: &Arc<str>, address: &Address, peer: &Peer) -> Option<Finding> {
    let evidence = Evidence {
        failed: peer.reach.run(),
        of: peer.reach.run(),
        causes: causes([&peer.causes]),
        in_flight: peer.in_flight,
        generation: proxy.number(peer.epoch),
        ..Evidence::default()
    };
    Some(proxy.finding(Kind::AddressDown, name, Some(address), peer.reach.since()?, evidence))
}

/// Whether nothing that the upstream is connected to at can be reached: each address has failed since the last success.
fn is_down(proxy: &Proxy, name: &str, upstream: &Upstream) -> bool {
    name != UNDECLARED_UPSTREAM
        && upstream.reach.is_proof()
        && upstream.live().all(|(_, peer)| peer.reach.run() > 0)
        && upstream.live().any(|(address, _)| proxy.is_current(name, address))
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

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
            scene.said(),
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
