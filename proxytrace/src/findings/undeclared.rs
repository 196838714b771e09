//! `undeclared_destination`: the proxy connects where its configuration names nothing.

use super::{
    down::NOT_A_RESTART,
    finding::{Evidence, Fared, Finding, Kind},
    history::Proxy,
    upstream::{causes, fared},
};
use crate::model::UNDECLARED_UPSTREAM;

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    // What only a request says is declared nowhere, and is no finding.
    let Some(declared) = proxy.declared().filter(|declared| !declared.is_open) else {
        return;
    };
    let Some((name, upstream)) = proxy.upstreams.get_key_value(UNDECLARED_UPSTREAM) else {
        return;
    };
    for (address, peer) in &upstream.peers {
        // Where nginx follows a name, it knows a new address before we do. We follow within this time.
        let is_ahead = declared.is_followed && peer.age() < NOT_A_RESTART;
        if proxy.is_current(name, address) && !is_ahead {
            let Fared { failed, of } = fared(&peer.counts);
            let evidence = Evidence {
                failed,
                of: of.max(peer.counts.attempts),
                causes: causes([&peer.causes]),
                in_flight: peer.in_flight,
                generation: proxy.number(peer.epoch),
                ..Evidence::default()
            };
            let finding =
                proxy.finding(Kind::UndeclaredDestination, name, Some(address), peer.first(), evidence);
            found.push(finding);
        }
    }
}
