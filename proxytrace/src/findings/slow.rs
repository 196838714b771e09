//! `slow_connect`: handshakes take much longer than this address's own past.

use super::{
    finding::{Evidence, Finding, Kind},
    history::Proxy,
};

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, address, peer) in proxy.peers() {
        if peer.pace.is_slow() && proxy.is_current(name, address) {
            let slow = peer.pace.slow();
            let evidence = Evidence {
                failed: slow.run(),
                of: slow.run(),
                handshake_us: peer.pace.slow_us(),
                usual_us: peer.pace.usual_us(),
                generation: proxy.number(peer.epoch),
                ..Evidence::default()
            };
            let since = slow.since();
            found.extend(
                since.map(|since| proxy.finding(Kind::SlowConnect, name, Some(address), since, evidence)),
            );
        }
    }
}
