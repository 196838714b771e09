//! `wrong_service`: connections are established, and closed or reset unanswered.

use super::{
    finding::{Evidence, Finding, Kind},
    history::Proxy,
};

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, address, peer) in proxy.peers() {
        if peer.service.is_wrong() && proxy.is_current(name, address) {
            let unanswered = peer.service.unanswered();
            let evidence = Evidence {
                failed: unanswered.run(),
                of: unanswered.run(),
                generation: proxy.number(peer.epoch),
                ..Evidence::default()
            };
            let since = unanswered.since();
            found.extend(
                since.map(|since| proxy.finding(Kind::WrongService, name, Some(address), since, evidence)),
            );
        }
    }
}
