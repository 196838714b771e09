//! Findings about upstreams as a whole.

use std::collections::HashSet;

use super::{finding::Finding, rules, subject::Subject};
use crate::declared::{Addresses, Endpoint, Upstream};

pub(super) fn find(subject: &Subject, resolved: &Addresses, findings: &mut Vec<Finding>) {
    let routes = &subject.routes;
    let used: HashSet<usize> =
        routes.routes.iter().flat_map(|route| route.target.upstreams.iter().copied()).collect();
    // A variable that only a request fills can hold the name of any block.
    let is_all_known = routes.routes.iter().all(|route| route.target.open.is_empty());
    for (index, upstream) in routes.upstreams.iter().enumerate() {
        if upstream.is_implicit {
            undefined(upstream, resolved, findings);
            continue;
        }
        peers(upstream, subject, findings);
        if is_all_known && !used.contains(&index) {
            findings.push(Finding::new(
                &rules::UPSTREAM_UNUSED,
                &upstream.place,
                format!("nothing leads to upstream \"{}\"", upstream.name),
                "remove it, or correct the directive that should name it",
            ));
        }
    }
}

fn peers(upstream: &Upstream, subject: &Subject, findings: &mut Vec<Finding>) {
    let name = &upstream.name;
    // Lines that nginx refuses are findings of their own.
    let is_read = !subject.faults.iter().any(|fault| fault.place.starts_with(file_of(&upstream.place)));
    if upstream.has_more_peers {
        return;
    }
    if upstream.peers.iter().all(|peer| peer.backup) {
        if is_read {
            let what = format!("nginx refuses upstream \"{name}\": no server line without backup");
            findings.push(Finding::new(
                &rules::UPSTREAM_EMPTY,
                &upstream.place,
                what,
                "take backup off one of them",
            ));
        }
    } else if upstream.peers.iter().all(|peer| peer.down) {
        let what = format!("each request to \"{name}\" fails with 502: all its servers are marked down");
        findings.push(Finding::new(
            &rules::UPSTREAM_DOWN,
            &upstream.place,
            what,
            "take down off one of them",
        ));
    }
}

fn file_of(place: &str) -> &str {
    place.rsplit_once(':').map_or(place, |(file, _)| file)
}

fn undefined(upstream: &Upstream, resolved: &Addresses, findings: &mut Vec<Finding>) {
    let is_found = |host: &str| resolved.get(host).is_some_and(|addresses| !addresses.is_empty());
    for peer in &upstream.peers {
        if let Endpoint::Host { name, .. } = &peer.endpoint
            && !name.contains('.')
            && name != "localhost"
            && !is_found(name)
        {
            let what =
                format!("there is no upstream \"{name}\", so nginx takes it for a host and looks it up");
            let fix = "define the upstream, correct its name, or write the host in full";
            findings.push(Finding::new(&rules::UPSTREAM_UNDEFINED, &peer.place, what, fix));
        }
    }
}
