//! `ports_exhausted`, `backlog_full`, `denied`: connects that this host itself does not let through.

use super::{
    finding::{Evidence, Finding, Kind},
    history::Proxy,
    upstream::LOCAL,
};

/// In the order of [`LOCAL`].
const KINDS: [Kind; LOCAL.len()] = [Kind::PortsExhausted, Kind::BacklogFull, Kind::Denied];

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, address, peer) in proxy.peers() {
        for ((trouble, kind), cause) in peer.local.iter().zip(KINDS).zip(LOCAL) {
            let since = trouble.since().filter(|_| trouble.is_proof() && proxy.is_current(name, address));
            found.extend(since.map(|since| {
                let evidence = Evidence {
                    failed: trouble.seen(),
                    of: trouble.of(),
                    causes: [(cause.name().into(), trouble.seen())].into(),
                    in_flight: peer.in_flight,
                    generation: proxy.number(peer.epoch),
                    ..Evidence::default()
                };
                proxy.finding(kind, name, Some(address), since, evidence)
            }));
        }
    }
}
