//! `black_hole`: SYNs are sent again, and nothing answers. Told long before the proxy's own timeout is, which hides it for up to a minute.

use proxytrace_ebpf::outcome::Outcome;

use super::{
    finding::{Evidence, Finding, Kind},
    history::Proxy,
    upstream::{Peer, causes},
};

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
