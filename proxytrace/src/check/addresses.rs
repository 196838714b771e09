//! Findings about addresses: those that nginx refuses, that lead nowhere, or that speak another protocol.

use super::{finding::Finding, rules, subject::Subject};
use crate::{
    declared::{Addresses, Endpoint, Peer, Routes, Upstream, without_secrets},
    model::Address,
    nginx::{upstreams::FaultKind, url::Error},
};

pub(super) fn find(
    subject: &Subject,
    resolved: &Addresses,
    has_socket: &dyn Fn(&str) -> bool,
    findings: &mut Vec<Finding>,
) {
    refused(subject, findings);
    for upstream in &subject.routes.upstreams {
        for peer in &upstream.peers {
            unreachable(upstream, peer, resolved, has_socket, findings);
        }
    }
    unresolvable(&subject.routes, findings);
    wrong_protocol(&subject.routes, findings);
}

fn refused(subject: &Subject, findings: &mut Vec<Finding>) {
    for fault in &subject.faults {
        let text = without_secrets(&fault.text);
        let (rule, what, fix) = match &fault.kind {
            FaultKind::Address(error) => (
                &rules::BAD_ADDRESS,
                format!("nginx refuses \"{text}\": {error}"),
                match error {
                    Error::Service => "leave the port out, which SRV records have, and write a host name",
                    _ => "write a host and a port from 1 to 65535",
                }
                .to_owned(),
            ),
            FaultKind::PortOfBlock(block) => (
                &rules::PORT_OF_UPSTREAM,
                format!(
                    "nginx refuses \"{text}\": the upstream at {block} has its ports in its server lines"
                ),
                "leave the port out here".to_owned(),
            ),
            FaultKind::Duplicate(first) => (
                &rules::UPSTREAM_TWICE,
                format!("nginx refuses a second upstream \"{text}\"; the first is at {first}"),
                "rename or remove one of them".to_owned(),
            ),
        };
        findings.push(Finding::new(rule, &fault.place, what, fix));
    }
}

fn unreachable(
    upstream: &Upstream,
    peer: &Peer,
    resolved: &Addresses,
    has_socket: &dyn Fn(&str) -> bool,
    findings: &mut Vec<Finding>,
) {
    match &peer.endpoint {
        Endpoint::Address(Address::Unix(path)) if !has_socket(path) => findings.push(Finding::new(
            &rules::SOCKET_MISSING,
            &peer.place,
            format!("connects to \"{}\" fail: there is no socket at {path}", upstream.name),
            "start what listens there, or correct the path",
        )),
        Endpoint::Host { name, .. } if resolved.get(name).is_some_and(Vec::is_empty) => {
            let what = if peer.resolve {
                format!("requests to \"{name}\" fail with 502 until the name resolves")
            } else {
                format!("nginx refuses to start or to reload: \"{name}\" does not resolve")
            };
            findings.push(Finding::new(
                &rules::NAME_UNRESOLVED,
                &peer.place,
                what,
                "correct the name, or add it to the DNS",
            ));
        }
        _ => {}
    }
}

fn unresolvable(routes: &Routes, findings: &mut Vec<Finding>) {
    // What a request fills in may be the name of a block, and then nothing is looked up.
    let has_blocks = routes.upstreams.iter().any(|upstream| !upstream.is_implicit);
    for route in routes.routes.iter().filter(|route| route.resolver.is_none()) {
        let named = |&index: &usize| {
            let upstream = routes.upstreams.get(index).filter(|upstream| upstream.is_implicit)?;
            upstream.peers.iter().find(|peer| peer.resolve).and_then(|peer| peer.endpoint.host())
        };
        let text = without_secrets(&route.target.text);
        let what = if let Some(host) = route.target.upstreams.iter().find_map(named) {
            format!(
                "requests that {text} sends to \"{host}\" fail with 502: nothing resolves names while nginx runs"
            )
        } else if !route.target.open.is_empty() && !has_blocks {
            format!(
                "requests that {text} sends to a host name fail with 502: nothing resolves names while nginx runs"
            )
        } else {
            continue;
        };
        let fix = "add a resolver line, or an upstream block of that name";
        findings.push(Finding::new(&rules::NO_RESOLVER, &route.place, what, fix));
    }
    for upstream in
        routes.upstreams.iter().filter(|upstream| !upstream.is_implicit && upstream.resolver.is_none())
    {
        for peer in upstream.peers.iter().filter(|peer| peer.resolve) {
            let what = format!(
                "nginx refuses the server line of \"{}\": it has resolve, but no resolver",
                upstream.name
            );
            findings.push(Finding::new(&rules::NO_RESOLVER, &peer.place, what, "add a resolver line"));
        }
    }
}

fn wrong_protocol(routes: &Routes, findings: &mut Vec<Finding>) {
    for route in &routes.routes {
        let has = |scheme: &str| {
            route.target.text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        let (rule, port, protocol, fix) = if has("http://") || has("grpc://") {
            (&rules::HTTP_TO_443, 443, "plain text", "write https:// (grpcs://), or correct the port")
        } else if has("https://") || has("grpcs://") {
            (
                &rules::HTTPS_TO_80,
                80,
                "TLS",
                "write the port of HTTPS (a server line without a port means 80), or http://",
            )
        } else {
            continue;
        };
        for upstream in route.target.upstreams.iter().filter_map(|&index| routes.upstreams.get(index)) {
            for peer in upstream.peers.iter().filter(|peer| port_of(&peer.endpoint) == Some(port)) {
                let what = format!(
                    "{} speaks {protocol} to port {port} of \"{}\" ({}), which will not understand it",
                    route.directive, upstream.name, peer.place
                );
                findings.push(Finding::new(rule, &route.place, what, fix));
            }
        }
    }
}

fn port_of(endpoint: &Endpoint) -> Option<u16> {
    match endpoint {
        Endpoint::Address(Address::Internet(address)) => Some(address.port()),
        Endpoint::Host { port, .. } => Some(*port),
        Endpoint::Address(Address::Unix(_)) | Endpoint::Service { .. } => None,
    }
}
