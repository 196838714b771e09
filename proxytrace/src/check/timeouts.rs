//! Findings about connect timeouts.

use std::collections::{BTreeMap, HashSet};

use super::{finding::Finding, rules};
use crate::{
    declared::{Context, Endpoint, Peer, Route, Routes, Upstream},
    model::Address,
};

/// What is longer hurts: a connect within a data centre takes milliseconds, and one SYN sent again 1 s.
const LONG_MS: u64 = 10_000;
/// At most so many upstreams are named.
const MAX_NAMED: usize = 5;

pub(super) fn find(routes: &Routes, findings: &mut Vec<Finding>) {
    // What waits alike is said once: by the directive, and its time.
    let mut alike: BTreeMap<(String, u64), (&Route, Vec<&Upstream>)> = BTreeMap::new();
    let mut named: HashSet<(String, u64, Context, &str)> = HashSet::new();
    for route in routes.routes.iter().filter(|route| route.connect_timeout_ms > LONG_MS) {
        let directive = route.directive.replace("_pass", "_connect_timeout");
        for upstream in route.target.upstreams.iter().filter_map(|&index| routes.upstreams.get(index)) {
            // What code chooses, it may give a timeout of its own.
            if upstream.is_chosen || !upstream.peers.iter().any(can_vanish) {
                continue;
            }
            let (_, upstreams) = alike
                .entry((directive.clone(), route.connect_timeout_ms))
                .or_insert_with(|| (route, Vec::new()));
            // A host with several ports is one upstream for each.
            if named.insert((directive.clone(), route.connect_timeout_ms, upstream.context, &upstream.name)) {
                upstreams.push(upstream);
            }
        }
    }
    for ((directive, ms), (route, upstreams)) in alike {
        let names: Vec<_> =
            upstreams.iter().take(MAX_NAMED).map(|upstream| format!("\"{}\"", upstream.name)).collect();
        let more = upstreams.len().saturating_sub(MAX_NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let is_stream =
            routes.servers.get(route.server).is_some_and(|server| server.context == Context::Stream);
        let (who, end) = if is_stream { ("connection", "is closed") } else { ("request", "fails with 504") };
        let then = match upstreams.iter().filter(|upstream| upstream.peers.len() > 1).count() {
            0 => format!("and then {end}"),
            several if several == upstreams.len() => "before another is tried".to_owned(),
            _ => format!("before another is tried, or it {end}"),
        };
        let what = format!(
            "a {who} waits up to {} s for a peer whose packets vanish, {then}: {}{more}",
            ms / 1_000,
            names.join(", ")
        );
        let fix = format!("set {directive} to a few seconds");
        findings.push(Finding::new(&rules::LONG_CONNECT_TIMEOUT, &route.place, what, fix));
    }
}

/// Whether packets to a peer can vanish: not on this machine itself.
fn can_vanish(peer: &Peer) -> bool {
    match &peer.endpoint {
        Endpoint::Address(Address::Internet(address)) => !address.ip().is_loopback(),
        Endpoint::Address(Address::Unix(_)) => false,
        Endpoint::Host { name, .. } => name != "localhost",
        Endpoint::Service { .. } => true,
    }
}
