//! `upstream_down` and `address_down`: nothing accepts a connection any more.
//!
//! An upstream that is down hurts each request, so it is told of at once. One address of several does not, as nginx asks the
//! next: there a restart must be given the time that it takes.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{
    black_hole,
    finding::{Evidence, Finding, Kind},
    history::Proxy,
    misrouted,
    upstream::{Peer, Upstream, causes},
};
use crate::model::{Address, UNDECLARED_UPSTREAM};

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
                && !misrouted::peers(proxy, name, upstream).any(|(other, _)| other == address)
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
