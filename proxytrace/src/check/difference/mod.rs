//! What changes between two configurations for a request, in the operator's terms: which peers there are, where requests go, which
//! server answers where no name fits, and in what form requests are passed on.

mod canonical;
mod defaults;
mod forms;
mod maps;
mod meets;
mod places;
mod pools;
mod secrets;
mod shown;
mod unseen;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use super::subject::Subject;
use crate::{
    declared::Context,
    nginx::{listen::Socket, version::Version},
};
use canonical::Terms;
use meets::Meets;
use places::Place;
use pools::Peers;

/// At most so many names, servers, or locations of one, are named.
const MAX_NAMED: usize = 20;

/// What changes for a request; nothing where requests meet what they met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The peers of upstreams.
    pub peers: Vec<String>,
    /// Where requests go.
    pub routes: Vec<String>,
    /// Which server answers where no name fits.
    pub defaults: Vec<String>,
    /// In what form requests are passed on, and everything else that they meet.
    pub requests: Vec<String>,
}

/// A group of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Routes,
    Requests,
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups().iter().all(|(_, lines)| lines.is_empty())
    }

    /// Each group with its heading.
    #[must_use]
    pub fn groups(&self) -> [(&'static str, &[String]); 4] {
        [
            ("peers", &self.peers),
            ("routes", &self.routes),
            ("servers that answer by default", &self.defaults),
            ("what requests meet and look like", &self.requests),
        ]
    }
}

/// What changes from one configuration to another, where that `version` runs both.
#[must_use]
pub fn between(old: &Subject, new: &Subject, version: Option<Version>) -> Changes {
    let terms = pools::terms(old, new, version);
    let mut found = Found { changes: Changes::default(), alike: BTreeMap::new(), compared: 0 };
    pools::compare(old, new, &terms, &mut found.changes);
    maps::compare(old, new, &terms, &mut found.changes);
    for kind in ["http", "stream", "mail"] {
        let addresses = [old, new].map(|subject| pools::addresses(subject, context_of(kind)));
        let peers = [&addresses[0], &addresses[1]];
        let is_part = !old.is_whole() || !new.is_whole();
        let old = Meets::new(kind, false, is_part, &old.config.directives, &terms);
        let new = Meets::new(kind, true, is_part, &new.config.directives, &Terms::own(version));
        found.around(&old, &new, is_part, peers);
        found.servers(&old, &new, peers);
    }
    found.finish()
}

/// Changes while they are collected.
struct Found {
    changes: Changes,
    /// What changes alike in several places, with those: by server, and locations in it.
    alike: BTreeMap<(Group, String), BTreeMap<String, Vec<String>>>,
    /// In how many places the two were compared.
    compared: usize,
}

/// Which two bodies a request meets, the old and the new, and at which sockets, under which names.
type Pairs = BTreeMap<(usize, usize), BTreeMap<String, Vec<Socket>>>;

impl Found {
    /// What holds outside of servers.
    fn around(&mut self, old: &Meets, new: &Meets, is_part: bool, peers: [&Peers; 2]) {
        let label =
            if is_part { format!("{}, for all that inherits it", new.kind) } else { new.kind.to_owned() };
        // It is none of the places that are met.
        for (group, location, what) in places::differences(&old.around, &new.around, peers, &mut 0) {
            let places = self.alike.entry((group, what)).or_default();
            places.entry(label.clone()).or_default().push(location);
        }
    }

    fn servers(&mut self, old: &Meets, new: &Meets, peers: [&Peers; 2]) {
        for socket in old.sockets.keys().filter(|socket| !new.sockets.contains_key(*socket)) {
            self.changes.routes.push(format!("nothing listens on {socket} for {} any more", old.kind));
        }
        self.without_other(old, new, peers);
        self.without_other(new, old, peers);
        let mut pairs = Pairs::new();
        for (socket, is) in &new.sockets {
            let Some(was) = old.sockets.get(socket) else {
                let names: Vec<_> = is.names.keys().map(|name| shown_name(name)).collect();
                let names = shown::first(&names, MAX_NAMED, ", ");
                self.changes.routes.push(format!("{} listens on {socket} now: {names}", new.kind));
                continue;
            };
            for (name, now) in &is.names {
                let before = was.owner(name);
                pairs
                    .entry((before, *now))
                    .or_default()
                    .entry(name.clone())
                    .or_default()
                    .push(socket.clone());
            }
            for name in was.names.keys().filter(|name| !is.names.contains_key(*name)) {
                let pair = (was.owner(name), is.owner(name));
                pairs.entry(pair).or_default().entry(name.clone()).or_default().push(socket.clone());
            }
            let common = |names: &[String], others: &[String]| {
                names.iter().filter(|name| others.contains(name)).cloned().collect::<Vec<_>>()
            };
            if common(&was.patterns, &is.patterns) != common(&is.patterns, &was.patterns) {
                let what = format!("patterns of server names are tried in another order at {socket}");
                self.changes.routes.push(what);
            }
            if was.forms != is.forms {
                let [before, now] = [was, is].map(|at| match at.forms.is_empty() {
                    true => "plain connections".to_owned(),
                    false => at.forms.iter().cloned().collect::<Vec<_>>().join(" "),
                });
                self.changes.requests.push(format!("{socket} takes {now} instead of {before}"));
            }
        }
        for ((before, now), names) in &pairs {
            self.pair(old, new, (*before, *now), names, peers);
        }
        for (socket, is) in &new.sockets {
            let Some(was) = old.sockets.get(socket) else { continue };
            let is_same = pairs
                .get(&(was.default, is.default))
                .is_some_and(|names| names.values().any(|at| at.contains(socket)));
            if !is_same && old.bodies[was.default] != new.bodies[is.default] {
                self.changes.defaults.push(format!(
                    "requests for other names at {socket} met {}, and meet {} now",
                    old.bodies[was.default].label, new.bodies[is.default].label
                ));
            }
        }
    }

    /// What is met at sockets that the other does not have.
    fn without_other(&mut self, own: &Meets, other: &Meets, peers: [&Peers; 2]) {
        let mut names: BTreeMap<usize, BTreeMap<String, Vec<Socket>>> = BTreeMap::new();
        for (socket, at) in own.sockets.iter().filter(|(socket, _)| !other.sockets.contains_key(*socket)) {
            for (name, body) in &at.names {
                names.entry(*body).or_default().entry(name.clone()).or_default().push(socket.clone());
            }
        }
        let nothing = Place::default();
        for (body, names) in names {
            let place = &own.bodies[body].place;
            let [was, is] = if own.is_new { [&nothing, place] } else { [place, &nothing] };
            let found = places::differences(was, is, peers, &mut self.compared);
            for (group, location, what) in found.into_iter().filter(|(group, ..)| *group == Group::Routes) {
                let places = self.alike.entry((group, what)).or_default();
                places.entry(format!("server {}", label(&names))).or_default().push(location);
            }
        }
    }

    /// Compares what the same requests meet.
    fn pair(
        &mut self,
        old: &Meets,
        new: &Meets,
        (before, now): (usize, usize),
        names: &BTreeMap<String, Vec<Socket>>,
        peers: [&Peers; 2],
    ) {
        let (was, is) = (&old.bodies[before], &new.bodies[now]);
        // Where not even one name stayed with its server, a request has come to another one.
        let stayed = names.keys().any(|name| was.names.contains(name) && is.names.contains(name));
        let label = label(names);
        if !stayed {
            if was != is {
                let (was, is) = (&was.label, &is.label);
                self.changes.routes.push(format!("requests for {label} met {was}, and meet {is} now"));
            }
            return;
        }
        for (group, location, what) in places::differences(&was.place, &is.place, peers, &mut self.compared) {
            let places = self.alike.entry((group, what)).or_default();
            places.entry(format!("server {label}")).or_default().push(location);
        }
    }

    fn finish(self) -> Changes {
        let Self { mut changes, alike, compared } = self;
        for ((group, what), places) in alike {
            let count: usize = places.values().map(Vec::len).sum();
            let place = if count == compared && count > 1 {
                "everywhere".to_owned()
            } else {
                let of_server = |(server, locations): (&String, &Vec<String>)| {
                    let locations: Vec<_> =
                        locations.iter().map(String::as_str).filter(|one| !one.is_empty()).collect();
                    if locations.is_empty() {
                        server.clone()
                    } else {
                        format!("{server}: {}", shown::first(&locations, MAX_NAMED, ", "))
                    }
                };
                let servers: Vec<_> = places.iter().take(MAX_NAMED).map(of_server).collect();
                let more = places.len() - servers.len();
                let more = if more == 0 { String::new() } else { format!(" and {more} more servers") };
                format!("{}{more}", servers.join("; "))
            };
            let lines = match group {
                Group::Routes => &mut changes.routes,
                Group::Requests => &mut changes.requests,
            };
            lines.push(format!("{place} → {what}"));
        }
        changes
    }
}

/// Names with where they are asked for.
fn label(names: &BTreeMap<String, Vec<Socket>>) -> String {
    let mut sockets: Vec<_> = names.values().flatten().map(ToString::to_string).collect();
    sockets.sort();
    sockets.dedup();
    let names: Vec<_> = names.keys().map(|name| shown_name(name)).collect();
    format!("{} ({})", shown::first(&names, MAX_NAMED, " "), shown::first(&sockets, MAX_NAMED, ", "))
}

fn shown_name(name: &str) -> String {
    if name.is_empty() { "_".to_owned() } else { name.to_owned() }
}

/// The context of a kind of servers; mail has no upstreams.
fn context_of(kind: &str) -> Context {
    if kind == "stream" { Context::Stream } else { Context::Http }
}
