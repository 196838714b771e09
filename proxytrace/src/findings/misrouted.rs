//! `misrouted`: with a reload an upstream's traffic went elsewhere, and it fails there.
//!
//! How soon is that proven? An address that never worked has no past that a failure would have to stand out from, and cannot
//! make the finding flap: one success there, and it is never misrouted again in that generation. So [`FEWEST`] failures are enough where the
//! upstream as a whole does not work since. One at each address is enough where there can be no doubt: the configuration
//! replaced every address, hosts themselves say that nobody listens, and all was well before. A site with few visitors has no more than
//! that, and nor has one where nginx leaves both of two dead peers alone after the first failure.
//!
//! Where other addresses of the upstream work, nginx asks those, and the new one may be still about to start.

use std::sync::Arc;

use proxytrace_ebpf::outcome::Outcome;

use super::{
    down::NOT_A_RESTART,
    evidence::FEWEST,
    peer::{Peer, causes, fared, sum},
    proxy::{Epoch, Proxy},
    upstream::Upstream,
};
use crate::model::{Address, Evidence, Fared, Finding, Kind, UNDECLARED_UPSTREAM};

/// So many connects established before the reload, with at most one failure in [`WELL_RATIO`], show that all was well.
const WELL: u64 = 10;
const WELL_RATIO: u64 = 100;

/// Failures that are an answer: a repetition will hardly give another one.
const DEFINITE: [Outcome; 6] = [
    Outcome::Refused,
    Outcome::Reset,
    Outcome::HostUnreachable,
    Outcome::NetworkUnreachable,
    Outcome::NoSuchSocket,
    Outcome::PermissionDenied,
];

/// So many of the addresses that an upstream has left are evidence: thousands may have been left for thousands.
const MOST_LEFT: usize = 64;

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, upstream) in &proxy.upstreams {
        let mut misrouted = peers(proxy, name, upstream).peekable();
        if misrouted.peek().is_none() {
            continue;
        }
        let case = Case::of(proxy, name, upstream);
        for (address, peer) in misrouted {
            // Not known any more after so many reloads that its generation was forgotten: the finding stays all the same.
            let reload = proxy.generation(peer.entered).map(|generation| generation.began);
            let Fared { failed, of } = fared(&peer.counts);
            let evidence = Evidence {
                failed,
                of,
                causes: causes([&peer.causes]),
                from: case.left_for(peer).take(MOST_LEFT).map(|(address, _)| address.clone()).collect(),
                reload,
                generation: proxy.number(peer.epoch),
                old_workers: upstream.old_workers(peer.entered),
                in_flight: peer.in_flight,
                ..Evidence::default()
            };
            let since = reload.map_or(peer.first(), |reload| reload.max(peer.first()));
            found.push(proxy.finding(Kind::Misrouted, name, Some(address), since, evidence));
        }
    }
}

/// The addresses that an upstream was misrouted to.
pub(super) fn peers<'a>(
    proxy: &'a Proxy,
    name: &'a Arc<str>,
    upstream: &'a Upstream,
) -> impl Iterator<Item = (&'a Address, &'a Peer)> {
    let misrouted = upstream.peers.iter().filter(|(_, peer)| peer.is_misrouted);
    misrouted.filter(|(address, _)| proxy.is_current(name, address))
}

/// What is newly proven: upstreams and addresses. Once it is, that other addresses work is nothing to the contrary.
pub(super) fn proven(proxy: &Proxy) -> Vec<(Arc<str>, Address)> {
    let mut proven = Vec::new();
    for (name, upstream) in proxy.upstreams.iter().filter(|(name, _)| ***name != *UNDECLARED_UPSTREAM) {
        let case = Case::of(proxy, name, upstream);
        let suspects = upstream.newcomers().filter(|(_, peer)| peer.worked.is_none() && !peer.is_misrouted);
        let proven_here =
            suspects.filter(|(address, peer)| proxy.is_current(name, address) && case.proves(peer));
        proven.extend(proven_here.map(|(address, _)| (Arc::clone(name), address.clone())));
    }
    proven
}

/// What all addresses of an upstream are judged by. It is gathered once: an upstream may have thousands of new ones.
struct Case<'a> {
    proxy: &'a Proxy,
    name: &'a Arc<str>,
    upstream: &'a Upstream,
    /// The addresses that worked and that the configuration does not name any more.
    left: Vec<(&'a Address, &'a Peer)>,
    /// In which generation the first of them was used last.
    first_left: Option<Epoch>,
    /// The failures at all new addresses together.
    failures: u64,
}

impl<'a> Case<'a> {
    fn of(proxy: &'a Proxy, name: &'a Arc<str>, upstream: &'a Upstream) -> Self {
        let is_left =
            |address: &Address| proxy.declared().is_none_or(|declared| !declared.has(name, address));
        let worked = upstream.peers.iter().filter(|(_, peer)| peer.worked.is_some());
        let left: Vec<_> = worked.filter(|(address, _)| is_left(address)).collect();
        let first_left = left.iter().map(|(_, peer)| peer.epoch).min();
        let failed = upstream.newcomers().map(|(_, peer)| fared(&peer.counts).failed);
        Self { proxy, name, upstream, left, first_left, failures: failed.fold(0, u64::saturating_add) }
    }

    /// The addresses that were left when the upstream began to use this one.
    fn left_for(&self, to: &Peer) -> impl Iterator<Item = (&'a Address, &'a Peer)> {
        self.left.iter().copied().filter(|(_, peer)| peer.epoch < to.entered)
    }

    /// Whether traffic to this address is misrouted for sure.
    fn proves(&self, peer: &Peer) -> bool {
        let is_known = self.proxy.declared().is_some();
        if is_known && self.first_left.is_none_or(|first| first >= peer.entered) {
            return false;
        }
        let failed = fared(&peer.counts).failed;
        let works_elsewhere = self.upstream.worked.is_some_and(|worked| worked >= peer.entered);
        if works_elsewhere {
            return failed >= FEWEST && peer.reach.length() >= NOT_A_RESTART;
        }
        failed > 0 && (self.failures >= FEWEST || self.is_beyond_doubt(peer))
    }

    /// Whether one failure is enough.
    fn is_beyond_doubt(&self, peer: &Peer) -> bool {
        let generation = self.proxy.generation(peer.epoch);
        let declared = generation.and_then(|generation| generation.declared.as_ref());
        let Some(declared) = declared.and_then(|declared| declared.upstreams.get(self.name)) else {
            return false;
        };
        let all_said_no = declared.addresses.keys().all(|address| {
            self.upstream.peers.get(address).is_some_and(|peer| {
                let failed = fared(&peer.counts).failed;
                peer.is_newcomer() && failed > 0 && failed == sum(&peer.counts, DEFINITE)
            })
        });
        let mut before = Fared::default();
        self.left_for(peer).for_each(|(_, peer)| before += fared(&peer.counts));
        all_said_no && before.of >= WELL && before.failed.saturating_mul(WELL_RATIO) <= before.of
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

    #[test]
    fn an_upstream_that_moved_to_a_dead_address_is_misrouted() {
        let scene = check(
            "the postmortem",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 3
             config 1 api 5:8081
             =>
             1 api 5:8081 refused 2; 0 api 5:8080 established 41
             => misrouted api 5:8081
             100 x 1 api 5:8081 refused 3
             =>",
        );
        assert_eq!(
            scene.said(),
            "misrouted: upstream \"api\" moved from 10.0.0.5:8080 to 10.0.0.5:8081 with the reload at 14:30:05Z; 302 of \
             302 connects since were refused (old workers: 0 of 41 failed). Check the \"server\" line at \
             /etc/nginx/nginx.conf:1."
        );
        check(
            "one visitor is enough where there is no doubt",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 5:8081
             1 api 5:8081 refused 1
             => misrouted api 5:8081
             wait 4000
             =>
             config 2 api 5:8080
             => not misrouted api 5:8081
             2 api 5:8080 established 1
             =>",
        );
        check(
            "nginx leaves both of two dead peers alone after the first failure",
            "config 0 api 5:8080 6:8080
             10 x 0 api 5:8080 established 1; 0 api 6:8080 established 1
             config 1 api 5:8081 6:8081
             1 api 5:8081 refused 1
             =>
             1 api 6:8081 refused 1
             => misrouted api 5:8081, misrouted api 6:8081",
        );
        check(
            "silence is no answer, so one is not enough",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 9:8080
             2 x 1 api 9:8080 proxy_timeout 1
             =>
             1 api 9:8080 proxy_timeout 1
             => misrouted api 9:8080",
        );
        check(
            "nor is one where it did not work well before",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1 refused 1
             config 1 api 5:8081
             2 x 1 api 5:8081 refused 1
             =>
             1 api 5:8081 refused 1
             => misrouted api 5:8081",
        );
    }

    #[test]
    fn it_stays_until_the_contrary_is_seen() {
        check(
            "another reload does not mend it, and the right one does",
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
            scene.said(),
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
            let told = check(what, history).told;
            assert!(told.contains(expected), "{what}: {told}");
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

    #[test]
    fn only_what_a_reload_moved_is_misrouted() {
        check(
            "unchanged routes",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 5:8080
             10 x 1 api 5:8080 established 1
             =>",
        );
        check(
            "scaled up by a peer that is about to start",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 3
             config 1 api 5:8080 6:8080
             40 x 1 api 5:8080 established 3; 1 api 6:8080 refused 1
             10 x 1 api 5:8080 established 3; 1 api 6:8080 established 2
             =>",
        );
        check(
            "one of two is replaced by one that is about to start",
            "config 0 api 5:8080 6:8080
             10 x 0 api 5:8080 established 3; 0 api 6:8080 established 1
             config 1 api 5:8080 7:8080
             40 x 1 api 5:8080 established 3; 1 api 7:8080 refused 1
             10 x 1 api 5:8080 established 3; 1 api 7:8080 established 2
             =>",
        );
        check(
            "one of two is replaced by one that never starts",
            "config 0 api 5:8080 6:8080
             10 x 0 api 5:8080 established 3; 0 api 6:8080 established 1
             config 1 api 5:8080 7:8080
             230 x 1 api 5:8080 established 3; 1 api 7:8080 refused 1
             =>
             30 x 1 api 5:8080 established 3; 1 api 7:8080 refused 1
             => misrouted api 7:8080",
        );
        check(
            "a new upstream that does not work was not moved",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 3
             config 1 api 5:8080 | web 7:80
             3 x 1 api 5:8080 established 3; 1 web 7:80 refused 1
             => upstream_down web",
        );
        check(
            "an address that was there before and was not needed",
            "config 0 api 5:8080 6:8080
             10 x 0 api 5:8080 established 3
             config 1 api 6:8080
             1 api 6:8080 refused 9
             => upstream_down api",
        );
        check(
            "clients that leave do not make it so",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 3
             config 1 api 5:8081
             10 x 1 api 5:8081 cancelled 3
             =>",
        );
    }

    #[test]
    fn without_a_configuration_it_goes_by_address() {
        check(
            "nothing works since",
            "20 x 0 unknown 5:8080 established 3
             reload 1
             1 unknown 5:8081 refused 2
             =>
             1 unknown 5:8081 refused 2
             => misrouted unknown 5:8081
             reload 2
             5 x 2 unknown 5:8080 established 1
             =>
             5 x 2 unknown 5:8080 established 1
             => not misrouted unknown 5:8081",
        );
        check(
            "others work",
            "20 x 0 unknown 5:8080 established 3; 0 unknown 7:80 established 1
             reload 1
             200 x 1 unknown 5:8081 refused 1; 1 unknown 7:80 established 1
             =>
             60 x 1 unknown 5:8081 refused 1; 1 unknown 7:80 established 1
             => misrouted unknown 5:8081",
        );
    }
}
