//! What a request can meet: by socket and name a server, and in it places.

use std::collections::{BTreeMap, BTreeSet};

use nginx_conf::Directive;

use super::{
    MAX_NAMED,
    canonical::{Here, Terms},
    places::{Effective, Place},
    shown, shown_name,
};
use crate::check::servers::matched;
use crate::nginx::listen::{Socket, of_server};

/// Parameters of `listen` that say what is spoken on a socket, besides HTTP/2.
const FORMS: [&str; 4] = ["ssl", "http3", "proxy_protocol", "spdy"];

/// A parameter of `listen`, and a directive of servers.
const HTTP2: &str = "http2";

/// All servers of a kind.
pub(super) struct Meets {
    pub(super) kind: &'static str,
    /// They are those of the new configuration.
    pub(super) is_new: bool,
    /// What holds outside of servers.
    pub(super) around: Place,
    pub(super) bodies: Vec<Body>,
    pub(super) sockets: BTreeMap<Socket, At>,
}

/// A server.
pub(super) struct Body {
    /// What it is called in a change.
    pub(super) label: String,
    pub(super) names: BTreeSet<String>,
    pub(super) place: Place,
}

/// What is met is the same, whatever the name.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

/// The servers at a socket, by their numbers.
#[derive(Default)]
pub(super) struct At {
    pub(super) names: BTreeMap<String, usize>,
    /// Names by patterns, which are tried in this order.
    pub(super) patterns: Vec<String>,
    pub(super) default: usize,
    pub(super) forms: BTreeSet<String>,
    /// Which of its servers speak HTTP/2, by their numbers.
    http2: BTreeMap<usize, bool>,
    all_http2: bool,
}

impl At {
    /// The server that a request of that name meets.
    pub(super) fn owner(&self, name: &str) -> usize {
        let exact = self.names.get(name);
        let rest = name.strip_prefix("*.").unwrap_or(name);
        let ends = || rest.match_indices('.').map(|(at, _)| format!("*{}", &rest[at..]));
        let begins = || rest.rmatch_indices('.').map(|(at, _)| format!("{}.*", &rest[..at]));
        let found = exact
            .or_else(|| ends().find_map(|wild| self.names.get(&wild)))
            .or_else(|| begins().find_map(|wild| self.names.get(&wild)));
        found.copied().unwrap_or(self.default)
    }
}

impl At {
    /// Which servers speak HTTP/2 here: where all do, it does not matter who asked for it.
    fn name_http2(&mut self, bodies: &[Body]) {
        if self.all_http2 || self.http2.values().all(|speaks| *speaks) {
            self.forms.insert(HTTP2.to_owned());
            return;
        }
        let those = self.http2.iter().filter(|(_, speaks)| **speaks);
        let names = those.flat_map(|(number, _)| &bodies[*number].names).map(|name| shown_name(name));
        self.forms.extend(names.map(|name| format!("{HTTP2} for {name}")));
    }
}

impl Meets {
    /// In a part of a configuration, what stands outside of servers holds for those that are elsewhere too.
    pub(super) fn new(
        kind: &'static str,
        is_new: bool,
        is_part: bool,
        directives: &[Directive],
        terms: &Terms,
    ) -> Self {
        let around = Place::default();
        let mut meets = Self { kind, is_new, around, bodies: Vec::new(), sockets: BTreeMap::new() };
        let here = Here { kind, terms };
        for block in directives.iter().filter(|directive| directive.name.text == kind) {
            meets.around = Place::around(&here, block.children(), is_part);
            let around = Effective::default().inner(&here, block.children());
            for server in block.children().iter().filter(|directive| directive.name.text == "server") {
                let mut settings = around.inner(&here, server.children());
                let http2 = settings.take(HTTP2).is_some_and(|lines| lines[0].words == ["on"]);
                let place = Place::new(&here, server, settings);
                meets.server(server, place, http2);
            }
        }
        for at in meets.sockets.values_mut() {
            at.name_http2(&meets.bodies);
        }
        meets
    }

    fn server(&mut self, server: &Directive, place: Place, http2: bool) {
        let number = self.bodies.len();
        let written = server.children().iter().filter(|directive| directive.name.text == "server_name");
        let mut names: Vec<String> = match self.kind {
            // A name of a server in mail is what it calls itself.
            "mail" => Vec::new(),
            _ => written.flat_map(|directive| &directive.args).flat_map(|word| matched(&word.text)).collect(),
        };
        if names.is_empty() {
            names.push(String::new());
        }
        let mut own = Vec::new();
        for (listen, directive) in of_server(server, self.kind == "http") {
            for socket in listen.sockets {
                let is_new = !self.sockets.contains_key(&socket);
                let at = self.sockets.entry(socket.clone()).or_default();
                if is_new || listen.is_default {
                    at.default = number;
                }
                let words = directive.iter().flat_map(|directive| directive.args.iter().skip(1));
                let words: Vec<_> = words.map(|word| word.text.to_string()).collect();
                // Where one of them asks for it by `listen`, all speak it.
                at.all_http2 |= words.iter().any(|word| word == HTTP2);
                at.http2.insert(number, http2 && !words.iter().any(|word| word == "quic"));
                at.forms.extend(words.into_iter().filter(|word| FORMS.contains(&word.as_str())));
                for name in &names {
                    if name.starts_with('~') && !at.names.contains_key(name) {
                        at.patterns.push(name.clone());
                    }
                    at.names.entry(name.clone()).or_insert(number);
                }
                own.push(socket.to_string());
            }
        }
        own.dedup();
        let written: Vec<_> = names.iter().map(|name| shown_name(name)).collect();
        let label = format!(
            "server {} ({})",
            shown::first(&written, MAX_NAMED, " "),
            shown::first(&own, MAX_NAMED, ", ")
        );
        self.bodies.push(Body { label, names: names.into_iter().collect(), place });
    }
}
