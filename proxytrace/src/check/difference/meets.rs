//! What a request can meet: by socket and name a server, and in it places.

use std::collections::{BTreeMap, BTreeSet};

use nginx_conf::Directive;

use super::{
    canonical::Renames,
    context_of,
    places::{Effective, Place},
    shown_name,
};
use crate::check::servers::matched;
use crate::nginx::listen::{Socket, of_server};

/// Parameters of `listen` that say what is spoken on a socket.
const FORMS: [&str; 5] = ["ssl", "http2", "http3", "proxy_protocol", "spdy"];

/// All servers of a kind.
pub(super) struct Meets {
    pub(super) kind: &'static str,
    /// They are those of the new configuration.
    pub(super) is_new: bool,
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

impl Meets {
    pub(super) fn new(kind: &'static str, is_new: bool, directives: &[Directive], renames: &Renames) -> Self {
        let mut meets = Self { kind, is_new, bodies: Vec::new(), sockets: BTreeMap::new() };
        let context = context_of(kind);
        for block in directives.iter().filter(|directive| directive.name.text == kind) {
            let around = Effective::default().inner(context, block.children(), renames);
            for server in block.children().iter().filter(|directive| directive.name.text == "server") {
                let place = Place::new(context, server, &around, renames);
                meets.server(server, place);
            }
        }
        meets
    }

    fn server(&mut self, server: &Directive, place: Place) {
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
                at.forms.extend(
                    words.map(|word| word.text.to_string()).filter(|word| FORMS.contains(&word.as_str())),
                );
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
        let shown: Vec<_> = names.iter().map(|name| shown_name(name)).collect();
        let label = format!("server {} ({})", shown.join(" "), own.join(", "));
        self.bodies.push(Body { label, names: names.into_iter().collect(), place });
    }
}
