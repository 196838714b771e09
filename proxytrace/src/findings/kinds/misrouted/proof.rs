//! When it is proven that an address is misrouted to.
//!
//! How soon? An address that never worked has no past that a failure would have to stand out from, and cannot make the finding flap: one
//! success there, and it is never misrouted again in that generation. So [`MIN_FAILURES`] failures are enough where the
//! upstream as a whole does not work since. One at each address is enough where there can be no doubt: the configuration
//! replaced every address, hosts themselves say that nobody listens, and all was well before. A site with few visitors has no more than
//! that, and nor has one where nginx leaves both of two dead peers alone after the first failure.
//!
//! Where other addresses of the upstream work, nginx asks those, and the new one may be still about to start.

use std::sync::Arc;

use crate::{
    findings::{
        evidence::{MIN_FAILURES, RESTART_TIMEOUT},
        history::{Epoch, Peer, Proxy, Upstream},
        kinds::definition::Destination,
        outcomes::{definite, fared},
    },
    model::{Address, Fared, Kind, UNDECLARED_UPSTREAM},
};

/// So many connects established before the reload, with at most one failure in [`WELL_RATIO`], show that all was well.
const MIN_WELL: u64 = 10;
const WELL_RATIO: u64 = 100;

/// What is newly proven: upstreams and addresses. Once it is, that other addresses work is nothing to the contrary.
pub(super) fn proven(proxy: &Proxy) -> Vec<Destination> {
    let mut proven = Vec::new();
    for (name, upstream) in proxy.upstreams.iter().filter(|(name, _)| ***name != *UNDECLARED_UPSTREAM) {
        let case = Case::of(proxy, name, upstream);
        let suspects = upstream
            .newcomers()
            .filter(|(_, peer)| peer.worked.is_none() && !peer.proven.has(Kind::Misrouted));
        let proven_here =
            suspects.filter(|(address, peer)| proxy.is_current(name, address) && case.proves(peer));
        proven.extend(proven_here.map(|(address, _)| (Arc::clone(name), address.clone())));
    }
    proven
}

/// What all addresses of an upstream are judged by. It is gathered once: an upstream may have thousands of new ones.
pub(super) struct Case<'a> {
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
    pub(super) fn of(proxy: &'a Proxy, name: &'a Arc<str>, upstream: &'a Upstream) -> Self {
        let declared = proxy.generations.declared();
        let is_left = |address: &Address| declared.is_none_or(|declared| !declared.has(name, address));
        let worked = upstream.peers().filter(|(_, peer)| peer.worked.is_some());
        let left: Vec<_> = worked.filter(|(address, _)| is_left(address)).collect();
        let first_left = left.iter().map(|(_, peer)| peer.epoch).min();
        let failed = upstream.newcomers().map(|(_, peer)| fared(&peer.counts).failed);
        Self { proxy, name, upstream, left, first_left, failures: failed.fold(0, u64::saturating_add) }
    }

    /// The addresses that were left when the upstream began to use this one.
    pub(super) fn left_for(&self, to: &Peer) -> impl Iterator<Item = (&'a Address, &'a Peer)> {
        self.left.iter().copied().filter(|(_, peer)| peer.epoch < to.entered)
    }

    /// Whether the configuration replaced every address of the upstream, which has several.
    pub(super) fn has_moved_as_a_whole(&self) -> bool {
        let declared = self.proxy.generations.declared();
        let Some(declared) = declared.and_then(|declared| declared.upstreams.get(self.name)) else {
            return false;
        };
        let is_new = |address| self.upstream.peer(address).is_none_or(Peer::is_newcomer);
        declared.addresses.len() > 1 && declared.addresses.keys().all(is_new)
    }

    /// Whether traffic to this address is misrouted for sure.
    fn proves(&self, peer: &Peer) -> bool {
        let is_known = self.proxy.generations.declared().is_some();
        if is_known && self.first_left.is_none_or(|first| first >= peer.entered) {
            return false;
        }
        let failed = fared(&peer.counts).failed;
        let works_elsewhere = self.upstream.worked.is_some_and(|worked| worked >= peer.entered);
        if works_elsewhere {
            return failed >= MIN_FAILURES && peer.reach.length() >= RESTART_TIMEOUT;
        }
        failed > 0 && (self.failures >= MIN_FAILURES || self.is_beyond_doubt(peer))
    }

    /// Whether one failure is enough.
    fn is_beyond_doubt(&self, peer: &Peer) -> bool {
        let begun = self.proxy.generations.get(peer.epoch);
        let declared = begun.and_then(|begun| begun.declared.as_ref());
        let Some(declared) = declared.and_then(|declared| declared.upstreams.get(self.name)) else {
            return false;
        };
        let all_said_no = declared.addresses.keys().all(|address| {
            self.upstream.peer(address).is_some_and(|peer| {
                let failed = fared(&peer.counts).failed;
                peer.is_newcomer() && failed > 0 && failed == definite(&peer.counts)
            })
        });
        let mut before = Fared::default();
        self.left_for(peer).for_each(|(_, peer)| before += fared(&peer.counts));
        all_said_no && before.of >= MIN_WELL && before.failed.saturating_mul(WELL_RATIO) <= before.of
    }
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

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
            scene.sentence(),
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
        let scene = check(
            "nginx leaves both of two dead peers alone after the first failure",
            "config 0 api 5:8080 6:8080
             10 x 0 api 5:8080 established 1; 0 api 6:8080 established 1
             config 1 api 5:8081 6:8081
             1 api 5:8081 refused 1
             =>
             1 api 6:8081 refused 1
             => misrouted api",
        );
        assert_eq!(
            scene.sentence(),
            "misrouted: upstream \"api\" moved from 10.0.0.5:8080, 10.0.0.6:8080 to 10.0.0.5:8081, 10.0.0.6:8081 with the \
             reload at 14:30:03Z; 2 of 2 connects since were refused. Check the \"server\" line at /etc/nginx/nginx.conf:1."
        );
        check(
            "silence is no answer, so one is not enough",
            "config 0 api 5:8080
             10 x 0 api 5:8080 established 1
             config 1 api 9:8080
             2 x 1 api 9:8080 proxy_timeout 1
             =>
             1 api 9:8080 proxy_timeout 1
             => misrouted api 9:8080, black_hole api 9:8080",
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
             => address_down unknown 5:8081
             60 x 1 unknown 5:8081 refused 1; 1 unknown 7:80 established 1
             => misrouted unknown 5:8081",
        );
    }
}
