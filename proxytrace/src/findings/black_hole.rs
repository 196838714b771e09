//! `black_hole`: SYNs are sent again, and nothing answers. Told long before the proxy's own timeout is, which hides it for up to a minute.

use proxytrace_ebpf::outcome::Outcome;

use super::{
    peer::{Peer, causes},
    proxy::Proxy,
};
use crate::model::{Evidence, Finding, Kind};

/// What a connect into a black hole ends in.
const UNANSWERED: [Outcome; 2] = [Outcome::TimedOut, Outcome::ProxyTimeout];

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, address, peer) in proxy.peers() {
        if is_one(peer) && proxy.is_current(name, address) {
            let evidence = Evidence {
                failed: UNANSWERED
                    .into_iter()
                    .map(|outcome| peer.causes[outcome as usize])
                    .fold(0, u64::saturating_add),
                causes: causes([&peer.causes]),
                syn_retransmits: peer.answers.run(),
                in_flight: peer.in_flight,
                generation: proxy.number(peer.epoch),
                ..Evidence::default()
            };
            let since = peer.answers.since();
            found.extend(
                since.map(|since| proxy.finding(Kind::BlackHole, name, Some(address), since, evidence)),
            );
        }
    }
}

/// Whether SYNs vanish there.
pub(super) const fn is_one(peer: &Peer) -> bool {
    peer.answers.is_proof()
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

    #[test]
    fn syns_that_nothing_answers_are_a_black_hole() {
        let scene = check(
            "before the proxy gives up, until something answers",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             0 api 5:8080 flying 3
             wait 1
             0 api 5:8080 resent 3
             => black_hole api 5:8080
             wait 60
             =>",
        );
        assert_eq!(
            scene.said(),
            "black_hole: nothing answers at 10.0.0.5:8080 of upstream \"api\"; 3 SYNs were sent again since 14:30:07Z, 0 \
             connects timed out, 3 are waiting. Check that the host is up, and firewalls and routes on the way."
        );
        for answer in ["established", "refused", "reset"] {
            let history = "0 unknown 5:8080 flying 1 resent 3\n=> black_hole unknown 5:8080\nwait 60\n=>\n0 unknown 5:8080";
            check(answer, &format!("{history} {answer} 1\n=> not black_hole unknown 5:8080"));
        }
        check(
            "the upstream is down when all time out",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             0 api 5:8080 resent 3 proxy_timeout 3
             => black_hole api 5:8080, upstream_down api",
        );
        check(
            "one dead host of two is told of at once, as each request waits for it, and once",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             4 x 0 api 5:8080 resent 1; 0 api 6:8080 established 2
             => black_hole api 5:8080
             400 x 0 api 5:8080 resent 1 proxy_timeout 1; 0 api 6:8080 established 2
             =>",
        );
    }

    #[test]
    fn a_lost_syn_is_no_black_hole() {
        check("some are lost", "200 x 0 unknown 5:8080 established 2 resent 1\n=>");
        check(
            "two on end",
            "20 x 0 unknown 5:8080 established 2\n2 x 0 unknown 5:8080 resent 1\n0 unknown 5:8080 established 1\n=>",
        );
    }
}
