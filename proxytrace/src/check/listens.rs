//! Findings about where servers listen: what nginx refuses to have twice, and what it cannot bind.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{finding::Finding, rules, subject::Subject};
use crate::nginx::{
    listen::{Listen, Socket, of_server},
    places::Places,
    version::Version,
};

/// The first nginx whose servers of stream have names, so that several may listen on one address.
const NAMES_IN_STREAM: Version = Version::new(1, 25, 5);

/// A kind of servers: they share sockets with each other and with no other kind.
const KINDS: [(&str, &str); 3] = [("http", "server"), ("stream", "stream-server"), ("mail", "mail-server")];

/// A socket with what binds it.
struct Bound {
    listen: Listen,
    place: String,
}

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    let mut of_others: Vec<(&str, Socket, Bound)> = Vec::new();
    for (kind, context) in KINDS {
        let mut bound: HashMap<Socket, Bound> = HashMap::new();
        let mut defaults: HashMap<Socket, String> = HashMap::new();
        // Those of one kind that nginx binds itself, in their order.
        let mut order = Vec::new();
        for block in subject.blocks().iter().filter(|block| block.context == context) {
            let Some(server) = block.opened_by() else { continue };
            if kind != "http" && block.named("listen").next().is_none() && subject.is_whole() {
                let what = format!("nginx refuses a server of {kind} that listens nowhere");
                findings.push(Finding::new(
                    &rules::LISTEN_MISSING,
                    &places.line(server),
                    what,
                    "add a listen line",
                ));
            }
            of_one_server(server, kind, version, &places, &mut bound, &mut defaults, &mut order, findings);
        }
        for socket in &order {
            let Some(own) = bound.remove(socket) else { continue };
            let is_covered =
                order.iter().any(|other| other != socket && other.is_any() && other.excludes(socket));
            if !is_covered {
                shared(kind, socket, &own, &of_others, findings);
                of_others.push((kind, socket.clone(), own));
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what is collected over all servers of a kind")]
fn of_one_server(
    server: &Directive,
    kind: &str,
    version: Option<Version>,
    places: &Places<'_>,
    bound: &mut HashMap<Socket, Bound>,
    defaults: &mut HashMap<Socket, String>,
    order: &mut Vec<Socket>,
    findings: &mut Vec<Finding>,
) {
    let mut own: HashMap<Socket, String> = HashMap::new();
    for (listen, directive) in of_server(server, kind == "http") {
        let place = places.line(directive.unwrap_or(server));
        for socket in &listen.sockets {
            let mut refuse =
                |rule, what: String, fix: &str| findings.push(Finding::new(rule, &place, what, fix));
            if listen.is_default
                && let Some(first) = defaults.insert(socket.clone(), place.clone())
            {
                let what =
                    format!("nginx refuses a second default server at {socket}; the first is at {first}");
                refuse(&rules::DEFAULT_SERVER_TWICE, what, "take default_server off one of them");
            }
            if let Some(first) = own.insert(socket.clone(), place.clone()) {
                let what = format!(
                    "nginx refuses a second listen on {socket} in this server; the first is at {first}"
                );
                refuse(&rules::LISTEN_TWICE, what, "remove one of them");
            } else if let Some(first) = bound.get(socket) {
                let is_alone =
                    kind == "mail" || kind == "stream" && version.is_some_and(|own| own < NAMES_IN_STREAM);
                if is_alone {
                    let what = format!(
                        "nginx refuses a second server of {kind} at {socket}; the first is at {}",
                        first.place
                    );
                    refuse(&rules::LISTEN_TWICE, what, "give one of them another port");
                } else if first.listen.has_options && listen.has_options {
                    let what = format!(
                        "nginx refuses options of the socket {socket} a second time; the first are at {}",
                        first.place
                    );
                    refuse(&rules::LISTEN_TWICE, what, "leave the options at one of them");
                }
            }
            match bound.get_mut(socket) {
                Some(known) => known.listen.has_options |= listen.has_options,
                None => {
                    order.push(socket.clone());
                    bound.insert(socket.clone(), Bound { listen: listen.clone(), place: place.clone() });
                }
            }
        }
    }
}

/// A socket that another kind of servers has too: each binds it, and the second one cannot.
fn shared(
    kind: &str,
    socket: &Socket,
    own: &Bound,
    others: &[(&str, Socket, Bound)],
    findings: &mut Vec<Finding>,
) {
    let first = others.iter().find(|(other_kind, other, bound)| {
        let takes_both = own.listen.takes_both || bound.listen.takes_both;
        let is_shared = own.listen.has_reuseport && bound.listen.has_reuseport;
        let overlaps = socket.excludes(other)
            || takes_both
                && socket.port == other.port
                && socket.is_udp == other.is_udp
                && (socket.is_any() || other.is_any());
        *other_kind != kind && overlaps && !is_shared
    });
    if let Some((other_kind, other, Bound { place, .. })) = first {
        let what = format!(
            "nginx cannot bind {socket} for {kind}, as {other_kind} has {other} already, at {place}: nginx -t does not see it"
        );
        findings.push(Finding::new(&rules::PORT_SHARED, &own.place, what, "give one of them another port"));
    }
}
