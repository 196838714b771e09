//! Findings about addresses: those that nginx refuses, that lead nowhere, or that speak another protocol.

use super::{Host, finding::Finding, rules, subject::Subject, upstreams::upstream_meant};
use crate::{
    declared::{Context, Endpoint, Peer, Route, Routes, Upstream, without_secrets},
    model::Address,
    nginx::{
        upstreams::{Fault, FaultKind},
        url::Error,
    },
};

pub(super) fn find(subject: &Subject, host: &Host<'_>, findings: &mut Vec<Finding>) {
    refused(subject, findings);
    for upstream in &subject.routes.upstreams {
        for peer in &upstream.peers {
            let found = unreachable(&subject.routes, upstream, peer, host);
            // What stands around a part may have the block that a name means.
            let may_be_elsewhere =
                |found: &Finding| *found.rule == rules::NAME_UNRESOLVED && upstream.is_implicit;
            let found = found.map(|found| {
                if !subject.is_whole() && may_be_elsewhere(&found) { found.into_warning() } else { found }
            });
            // What is not there here may be where it runs.
            findings.extend(found.map(|found| if host.is_here { found } else { found.into_warning() }));
        }
    }
    // What stands around a part may have a resolver.
    if subject.is_whole() {
        unresolvable(&subject.routes, findings);
    }
    wrong_protocol(&subject.routes, findings);
}

fn refused(subject: &Subject, findings: &mut Vec<Finding>) {
    // What stands around a part may have the block that a name means.
    let may_be_elsewhere = |fault: &&Fault| !subject.is_whole() && fault.kind == FaultKind::NoBlock;
    for fault in subject.faults.iter().filter(|fault| !may_be_elsewhere(fault)) {
        let text = without_secrets(&fault.text);
        let (rule, what, fix) = match &fault.kind {
            FaultKind::NoBlock => (
                &rules::BAD_ADDRESS,
                format!("nginx refuses \"{text}\": {}", Error::NoPort),
                fix_of(Error::NoPort, subject, &fault.text),
            ),
            FaultKind::Address(error) => (
                &rules::BAD_ADDRESS,
                format!("nginx refuses \"{text}\": {error}"),
                fix_of(*error, subject, &fault.text),
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

fn fix_of(error: Error, subject: &Subject, text: &str) -> String {
    let meant = [Context::Http, Context::Stream]
        .into_iter()
        .find_map(|context| upstream_meant(&subject.routes, context, text));
    match (error, meant) {
        (Error::NoPort | Error::InvalidHost, Some(meant)) => format!("did you mean \"{meant}\"?"),
        (Error::InvalidPrefix, _) if !text.contains("://") => {
            format!("write http:// before it: http://{text}")
        }
        (Error::InvalidPrefix, _) => "write http:// or https:// before the host".to_owned(),
        (Error::InvalidPort, _) if text.matches("://").count() > 1 => "write the scheme once".to_owned(),
        (Error::Service, _) => "leave the port out, which SRV records have, and write a host name".to_owned(),
        _ => "write a host and a port from 1 to 65535".to_owned(),
    }
}

fn unreachable(routes: &Routes, upstream: &Upstream, peer: &Peer, host: &Host<'_>) -> Option<Finding> {
    match &peer.endpoint {
        Endpoint::Address(Address::Unix(path)) if !(host.has_socket)(path) => {
            let below = if path.starts_with(['/', '@']) {
                ""
            } else {
                ", below the directory that nginx is started in"
            };
            let what = format!("connects to \"{}\" fail: there is no socket at {path}{below}", upstream.name);
            let fix = "start what listens there, or correct the path";
            let found = Finding::new(&rules::SOCKET_MISSING, &peer.place, what, fix);
            Some(if host.is_here { found } else { found.into_note() })
        }
        Endpoint::Host { name, .. } if host.resolved.get(name).is_some_and(Vec::is_empty) => {
            unresolved(routes, upstream, peer, name)
        }
        _ => None,
    }
}

fn unresolved(routes: &Routes, upstream: &Upstream, peer: &Peer, name: &str) -> Option<Finding> {
    let meant = upstream_meant(routes, upstream.context, name).filter(|_| upstream.is_implicit);
    let fix = meant.map_or_else(
        || "correct the name, or add it to the DNS".to_owned(),
        |meant| format!("did you mean \"{meant}\"?"),
    );
    if peer.resolve {
        // Without a resolver that is a finding by itself; with one it is another that was asked here.
        upstream.resolver.as_ref()?;
        let what = match upstream.context {
            Context::Http => format!(
                "requests to \"{name}\" fail with 502 unless nginx's resolver knows it: here it does not resolve"
            ),
            Context::Stream => {
                format!(
                    "connections to \"{name}\" are closed unless nginx's resolver knows it: here it does not resolve"
                )
            }
        };
        return Some(Finding::new(&rules::NAME_UNRESOLVED, &peer.place, what, fix).into_warning());
    }
    let what = if upstream.is_implicit && !name.contains('.') {
        format!(
            "nginx refuses to start or to reload: there is no upstream \"{name}\", and no host of that name"
        )
    } else {
        format!("nginx refuses to start or to reload: \"{name}\" does not resolve")
    };
    Some(Finding::new(&rules::NAME_UNRESOLVED, &peer.place, what, fix))
}

/// Variables that hold an address and never a name.
const ADDRESSES: [&str; 5] = [
    "$server_addr",
    "$remote_addr",
    "$realip_remote_addr",
    "$proxy_protocol_addr",
    "$proxy_protocol_server_addr",
];

/// Whether what a request fills in can be a name of a host.
fn can_be_a_name(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if rest.starts_with("unix:") || authority.starts_with('[') {
        return false;
    }
    let host = authority.split(':').next().unwrap_or_default();
    let fixed = host.split('$').next().unwrap_or_default();
    // `10.0.0.$n` is an address if it is anything.
    let is_address = !fixed.is_empty() && fixed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    !is_address && !ADDRESSES.contains(&host.to_ascii_lowercase().as_str())
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
        let (who, fail) = match context_of(routes, route) {
            Context::Http => ("requests", "fail with 502"),
            Context::Stream => ("connections", "are closed"),
        };
        let host = route.target.upstreams.iter().find_map(named);
        let meant = host.and_then(|host| upstream_meant(routes, context_of(routes, route), host));
        let to = if let Some(host) = host {
            format!("\"{host}\"")
        } else if route.target.open.iter().any(|text| can_be_a_name(text)) && !has_blocks {
            "a host name".to_owned()
        } else {
            continue;
        };
        let what = format!("{who} that {text} sends to {to} {fail}: nothing resolves names while nginx runs");
        let fix = meant.map_or_else(
            || "add a resolver line, or an upstream block of that name".to_owned(),
            |meant| format!("did you mean \"{meant}\"?"),
        );
        findings.push(Finding::new(&rules::NO_RESOLVER, &route.place, what, fix));
    }
    for upstream in
        routes.upstreams.iter().filter(|upstream| !upstream.is_implicit && upstream.resolver.is_none())
    {
        // An address stays what it is.
        for peer in upstream.peers.iter().filter(|peer| peer.resolve && peer.endpoint.name().is_some()) {
            let what = format!(
                "nginx refuses the server line of \"{}\": it has resolve, but no resolver",
                upstream.name
            );
            findings.push(Finding::new(&rules::NO_RESOLVER, &peer.place, what, "add a resolver line"));
        }
    }
}

fn context_of(routes: &Routes, route: &Route) -> Context {
    routes.servers.get(route.server).map_or(Context::Http, |server| server.context)
}

fn wrong_protocol(routes: &Routes, findings: &mut Vec<Finding>) {
    for route in &routes.routes {
        let has = |scheme: &str| {
            route.target.text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        let is_plain_grpc = route.directive == "grpc_pass" && !route.target.text.contains("://");
        let (rule, port, protocol, fix) = if has("http://") || has("grpc://") || is_plain_grpc {
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
            if let Some(peer) = upstream.peers.iter().find(|peer| port_of(&peer.endpoint) == Some(port)) {
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

#[cfg(test)]
mod tests {
    use crate::check::examples;

    #[test]
    fn a_part_may_name_an_upstream_of_another_file() {
        let check = |text: &str, expected: &[&str]| assert_eq!(examples::ids(text), expected, "{text}");
        for pass in [
            "location / { fastcgi_pass php; }",
            "location / { uwsgi_pass django; }",
            "location / { grpc_pass grpc://app; }",
        ] {
            check(pass, &["part"]);
            check(&format!("http {{ server {{ {pass} }} }}"), &["bad-address"]);
        }
        check("server { listen 5432; proxy_pass db; }", &["part"]);
        check(
            "upstream db { server 10.0.0.5; } server { listen 5432; proxy_pass db; }",
            &["bad-address", "part"],
        );
        check("location / { fastcgi_pass 127.0.0.1; }", &["bad-address", "part"]);
    }
}
