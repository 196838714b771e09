//! Findings about where servers listen: what nginx refuses to have twice, and what it cannot bind.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use nginx_conf::Directive;

use super::{
    Host,
    blocks::Block,
    finding::Finding,
    rules::{self, Rule},
    subject::Subject,
};
use crate::nginx::{
    directives,
    listen::{self, Options, Socket, of_server},
    places::Places,
    version::Version,
};

/// The first nginx whose servers of stream have names, so that several may listen on one address.
const NAMES_IN_STREAM: Version = Version::new(1, 25, 5);

/// Ports that stand for a protocol of mail.
const MAIL_PORTS: [u16; 7] = [25, 110, 143, 465, 587, 993, 995];

/// A kind of servers: they share sockets with each other and with no other kind.
const KINDS: [(&str, &str); 3] = [("http", "server"), ("stream", "stream-server"), ("mail", "mail-server")];

/// What binds a socket. It has a place for each of up to 65535 ports of a range, and so little else.
struct Bound {
    options: Options,
    place: Rc<str>,
}

/// Sockets that other kinds of servers bind, by their port and whether it is for datagrams.
type Others = HashMap<(u16, bool), Vec<(&'static str, Socket, Bound)>>;

pub(super) fn find(subject: &Subject, host: &Host<'_>, findings: &mut Vec<Finding>) {
    unresolved(subject, host, findings);
    let (version, places) = (host.version, Places(&subject.config));
    let mut of_others = Others::new();
    for (kind, context) in KINDS {
        let mut all = Sockets::default();
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
            idle(block, server, kind, version, &places, findings);
            all.of_one_server(server, kind, version, &places, findings);
        }
        all.shared(kind, &mut of_others, findings);
    }
}

/// Says that a server does not say what to do with its connections. Directives of other modules may.
fn idle(
    block: &Block<'_>,
    server: &Directive,
    kind: &str,
    version: Option<Version>,
    places: &Places<'_>,
    findings: &mut Vec<Finding>,
) {
    let has_foreign = block.children.iter().any(|line| directives::of(&line.name.text).is_empty());
    let has = |name: &str| block.named(name).next().is_some();
    if has_foreign || !has("listen") {
        return;
    }
    let found =
        |what: &str, fix| Finding::new(&rules::HANDLER_MISSING, &places.line(server), what.to_owned(), fix);
    match kind {
        "stream" if !["proxy_pass", "return", "pass"].into_iter().any(has) => {
            let fix = "add proxy_pass or return";
            findings.push(if version.is_some_and(|own| own < NAMES_IN_STREAM) {
                found("nginx refuses a server of stream without proxy_pass and return", fix)
            } else {
                found("each connection is closed: the server has no proxy_pass and no return", fix)
                    .into_warning()
            });
        }
        "mail" if !has("protocol") => {
            let mut sockets = of_server(server, false).into_iter().flat_map(|(listen, _)| listen.sockets);
            if !sockets.any(|socket| MAIL_PORTS.contains(&socket.port)) {
                let what = "nginx refuses a server of mail without a protocol at a port of none";
                findings.push(found(what, "add protocol imap, pop3 or smtp"));
            }
        }
        _ => {}
    }
}

/// The host names that servers listen at, each with its place.
pub(super) fn names(subject: &Subject) -> impl Iterator<Item = (String, String)> {
    let places = Places(&subject.config);
    let servers = subject.blocks().into_iter().filter_map(|block| {
        let (kind, _) = KINDS.iter().find(|(_, context)| *context == block.context)?;
        Some((block.opened_by()?, *kind == "http"))
    });
    let listens = servers.flat_map(|(server, is_http)| of_server(server, is_http));
    listens.filter_map(move |(listen, directive)| match &listen.sockets.first()?.host {
        listen::Host::Name(name) => Some((name.clone(), places.line(directive?))),
        _ => None,
    })
}

fn unresolved(subject: &Subject, host: &Host<'_>, findings: &mut Vec<Finding>) {
    let is_missing = |name: &str| host.resolved.get(name).is_some_and(Vec::is_empty);
    for (name, place) in names(subject).filter(|(name, _)| is_missing(name)) {
        let what = format!(
            "nginx refuses to start or to reload: \"{name}\", where it is to listen, does not resolve"
        );
        let found = Finding::new(&rules::NAME_UNRESOLVED, &place, what, "write one of its own addresses");
        // What is not there here may be where it runs.
        findings.push(if host.is_here { found } else { found.into_warning() });
    }
}

/// The sockets of all servers of a kind.
#[derive(Default)]
struct Sockets {
    bound: HashMap<Socket, Bound>,
    defaults: HashMap<Socket, Rc<str>>,
    /// Those that nginx binds, in their order.
    order: Vec<Socket>,
}

impl Sockets {
    fn of_one_server(
        &mut self,
        server: &Directive,
        kind: &str,
        version: Option<Version>,
        places: &Places<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let mut own: HashMap<Socket, Rc<str>> = HashMap::new();
        let is_alone = kind == "mail" || kind == "stream" && version.is_some_and(|own| own < NAMES_IN_STREAM);
        for (listen, directive) in of_server(server, kind == "http") {
            let place: Rc<str> = places.line(directive.unwrap_or(server)).into();
            // Of the ports of a range one is named for all.
            let mut told = HashSet::new();
            let mut refuse = |rule: &'static Rule, first: &Rc<str>, what: String, fix: &str| {
                if told.insert((rule.id, Rc::clone(first))) {
                    let what = format!("nginx refuses {what}; the first is at {first}");
                    findings.push(Finding::new(rule, &place, what, fix));
                }
            };
            for socket in &listen.sockets {
                if listen.is_default
                    && let Some(first) = self.defaults.insert(socket.clone(), Rc::clone(&place))
                {
                    let what = format!("a second default server at {socket}");
                    let fix = "take default_server off one of them";
                    refuse(&rules::DEFAULT_SERVER_TWICE, &first, what, fix);
                }
                let bound = self.bound.get(socket);
                if let Some(first) = own.insert(socket.clone(), Rc::clone(&place)) {
                    let what = format!("a second listen on {socket} in this server");
                    refuse(&rules::LISTEN_TWICE, &first, what, "remove one of them");
                } else if let Some(first) = bound.filter(|_| is_alone) {
                    let what = format!("a second server of {kind} at {socket}");
                    refuse(&rules::LISTEN_TWICE, &first.place, what, "give one of them another port");
                } else if let Some(first) = bound.filter(|first| first.options.any && listen.options.any) {
                    let what = format!("options of the socket {socket} a second time");
                    refuse(&rules::LISTEN_TWICE, &first.place, what, "leave the options at one of them");
                }
                match self.bound.get_mut(socket) {
                    Some(known) => known.options.any |= listen.options.any,
                    None => {
                        self.order.push(socket.clone());
                        let bound = Bound { options: listen.options, place: Rc::clone(&place) };
                        self.bound.insert(socket.clone(), bound);
                    }
                }
            }
        }
    }

    /// Whether nginx binds another that takes what comes to this one.
    fn is_covered(&self, socket: &Socket) -> bool {
        let any = socket.any_of_family();
        any.is_some_and(|any| any != *socket && self.bound.contains_key(&any))
    }

    /// Says which another kind of servers has too: each binds it, and the second one cannot. Then takes these to the others.
    fn shared(mut self, kind: &'static str, others: &mut Others, findings: &mut Vec<Finding>) {
        let mut told = HashSet::new();
        let alone: Vec<_> = self.order.iter().filter(|socket| !self.is_covered(socket)).cloned().collect();
        for socket in alone {
            let Some(own) = self.bound.remove(&socket) else { continue };
            let at_port = others.entry((socket.port, socket.is_udp)).or_default();
            let first = at_port.iter().find(|(other_kind, other, bound)| {
                let takes_both = own.options.takes_both || bound.options.takes_both;
                let is_shared = own.options.reuseport && bound.options.reuseport;
                let overlaps = socket.excludes(other) || takes_both && (socket.is_any() || other.is_any());
                *other_kind != kind && overlaps && !is_shared
            });
            if let Some((other_kind, other, Bound { place, .. })) = first
                && told.insert((Rc::clone(&own.place), Rc::clone(place)))
            {
                let what = format!(
                    "nginx cannot bind {socket} for {kind}, as {other_kind} has {other} already, at {place}: nginx -t does not see it"
                );
                let fix = "give one of them another port";
                findings.push(Finding::new(&rules::PORT_SHARED, &own.place, what, fix));
            }
            at_port.push((kind, socket, own));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::examples;

    #[test]
    fn a_server_says_what_it_does_with_connections() {
        let check = |text: &str, expected: &[&str]| assert_eq!(examples::ids(text), expected, "{text}");
        check("stream { server { listen 5432; proxy_timeout 5s; } }", &["handler-missing"]);
        check("stream { server { listen 5432; return ok; } }", &[]);
        // Another module may.
        check("stream { server { listen 5432; content_by_lua_block { x() } } }", &[]);
        let mail = |server: &str, expected: &[&str]| {
            check(&format!("mail {{ auth_http 127.0.0.1:9000/auth; server {{ {server} }} }}"), expected);
        };
        mail("listen 2525;", &["handler-missing"]);
        mail("listen unix:/run/smtp.sock;", &["handler-missing"]);
        mail("listen 2525; listen 25;", &[]);
        mail("listen 2525; protocol smtp;", &[]);
        mail("listen 2525; protocol http;", &["bad-argument"]);
    }

    #[test]
    fn of_the_ports_of_a_range_one_is_named() {
        let check = |text: &str, expected: &[&str]| assert_eq!(examples::ids(text), expected, "{text}");
        let server = "server { listen 10000-17999 default_server; server_name a; }";
        check(&format!("http {{ {server} }}"), &[]);
        check(
            &format!("http {{ {server} {} }}", server.replace("name a", "name b")),
            &["default-server-twice"],
        );
        let stream = "server { listen 12000-20000; return a; }";
        check(&format!("http {{ {server} }} stream {{ {stream} }}"), &["port-shared"]);
        check(
            "http { server { listen 8000-8999; listen 127.0.0.1:8500; } server { listen 8990-9010; server_name a; } }",
            &[],
        );
    }
}
