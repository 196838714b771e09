//! Upstreams: which have other peers, and which only another name.

use std::collections::{BTreeMap, HashMap, HashSet};

use nginx_conf::Directive;

use super::{
    Changes,
    canonical::{self, Here, Line, Terms},
    defaults, forms, shown, unseen,
};
use crate::{
    check::subject::Subject,
    declared::{Context, Route, Routes, Server},
    nginx::version::Version,
};

/// The addresses of each upstream, by its name in lower case.
pub(super) type Peers = HashMap<String, String>;

/// Methods to which the order of servers means something.
const ORDERED: [&str; 2] = ["hash", "ip_hash"];

/// At most so many places are named.
const MAX_PLACES: usize = 3;

/// An upstream in a form in which what means the same is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pool {
    name: String,
    peers: Vec<String>,
    /// Everything else in it.
    rest: Vec<Line>,
}

impl Pool {
    fn is_like(&self, other: &Self) -> bool {
        self.peers == other.peers && self.rest == other.rest
    }
}

type Pools = BTreeMap<(Context, String), Pool>;

/// The addresses of the upstreams of a kind.
pub(super) fn addresses(subject: &Subject, context: Context) -> Peers {
    let of_context = pools(subject, None).into_iter().filter(|((of, _), _)| *of == context);
    of_context.map(|((_, name), pool)| (name, listed(&pool.peers))).collect()
}

/// Upstreams that only another name has now.
pub(super) fn terms(old: &Subject, new: &Subject, version: Option<Version>) -> Terms {
    let mut terms = Terms::own(version);
    let (was, is) = (pools(old, version), pools(new, version));
    let mut taken = HashSet::new();
    for ((context, name), pool) in was.iter().filter(|(key, _)| !is.contains_key(*key)) {
        let same = is.iter().find(|(key, other)| {
            key.0 == *context && !was.contains_key(*key) && pool.is_like(other) && !taken.contains(*key)
        });
        if let Some((key, _)) = same {
            taken.insert(key.clone());
            terms.names.insert((*context, name.clone()), key.1.clone());
        }
    }
    terms
}

/// Says which upstreams that something leads to have other peers, or another name.
pub(super) fn compare(old: &Subject, new: &Subject, terms: &Terms, changes: &mut Changes) {
    let (was, is) = (pools(old, terms.version), pools(new, terms.version));
    let is_whole = old.is_whole() && new.is_whole();
    let leading = [&old.routes, &new.routes].map(leading);
    let is_open =
        [old, new].iter().any(|one| one.routes.routes.iter().any(|route| !route.target.open.is_empty()));
    for ((context, name), pool) in &was {
        let Some(now) = is.get(&(*context, terms.of(*context, name))) else {
            // What leads to it is elsewhere.
            if !is_whole {
                changes.peers.push(format!("{}: is gone, with {}", pool.name, listed(&pool.peers)));
            }
            continue;
        };
        let keys = [name.clone(), now.name.to_ascii_lowercase()].map(|name| (*context, name));
        let places: Vec<_> = leading.iter().zip(&keys).map(|(leading, key)| places(leading, key)).collect();
        if is_whole && places.iter().all(Vec::is_empty) && !is_open {
            continue;
        }
        if terms.names.contains_key(&(*context, name.clone())) {
            let what = format!(
                "upstream \"{}\" is called \"{}\" now, with the same peers, which see that name where no Host is set",
                pool.name, now.name
            );
            changes.routes.push(what);
        }
        let places = listed_places(places.last().filter(|places| !places.is_empty()).or(places.first()));
        if pool.peers != now.peers {
            let [before, now] = shown::apart(&listed(&pool.peers), &listed(&now.peers));
            changes.peers.push(format!("{}: {before} became {now}{places}", pool.name));
        }
        if pool.rest != now.rest {
            let [before, now] =
                [pool, now].map(|pool| listed(&pool.rest.iter().map(Line::shown).collect::<Vec<_>>()));
            changes.peers.push(format!("{}: {}{places}", pool.name, shown::instead(&now, &before)));
        }
    }
    let is_renamed = |key: &(Context, String)| {
        terms.names.iter().any(|((context, _), now)| *context == key.0 && *now == key.1)
    };
    let new = is.iter().filter(|(key, _)| !is_whole && !was.contains_key(*key) && !is_renamed(key));
    changes.peers.extend(new.map(|(_, pool)| format!("{}: is new, with {}", pool.name, listed(&pool.peers))));
}

fn pools(subject: &Subject, version: Option<Version>) -> Pools {
    let terms = Terms::own(version);
    let here = Here { kind: "upstream", terms: &terms };
    let mut pools = Pools::new();
    for (kind, context) in [("http", Context::Http), ("stream", Context::Stream)] {
        let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == kind);
        let upstreams =
            blocks.flat_map(Directive::children).filter(|directive| directive.name.text == "upstream");
        for upstream in upstreams {
            let Some(name) = upstream.arg(0) else { continue };
            let (servers, rest): (Vec<_>, Vec<_>) =
                upstream.children().iter().partition(|line| line.name.text == "server");
            let is_ordered = rest.iter().any(|line| is_ordered(line));
            let mut peers: Vec<_> = servers.into_iter().map(|line| peer(context, &here, line)).collect();
            if !is_ordered {
                peers.sort();
            }
            let seen = rest.into_iter().filter(|line| unseen::is_seen(&line.name.text));
            let rest = seen.flat_map(|line| defaults::unusual(&here, canonical::lines(&here, line)));
            let rest = canonical::sorted(rest.collect());
            let pool = Pool { name: name.to_owned(), peers, rest };
            pools.entry((context, name.to_ascii_lowercase())).or_insert(pool);
        }
    }
    pools
}

/// Whether it is a method to which the order of servers means something: where they are spread on a circle, it does not.
fn is_ordered(line: &Directive) -> bool {
    ORDERED.contains(&&*line.name.text) && line.arg(1) != Some("consistent")
}

/// A server, with its port and what does not hold anyway.
fn peer(context: Context, here: &Here<'_>, line: &Directive) -> String {
    let mut words = canonical::lines(here, line).into_iter().flat_map(|line| line.words);
    let address = words.next().unwrap_or_default();
    let address = match canonical::socket(&address) {
        Some(path) => format!("unix:{path}"),
        None => forms::host(&address.to_ascii_lowercase()),
    };
    let parameters: Vec<_> = words.collect();
    let has_port = address.rfind(':').is_some_and(|at| !address[at..].contains(']'));
    let is_service = parameters.iter().any(|word| word.starts_with("service="));
    let port = if has_port || is_service || context == Context::Stream { "" } else { ":80" };
    let parameters: String = parameters.into_iter().map(|parameter| format!(" {parameter}")).collect();
    format!("{address}{port}{parameters}")
}

/// What leads to an upstream, by its kind and its name in lower case.
type Leading<'a> = HashMap<(Context, String), Vec<(&'a Server, &'a Route)>>;

/// What leads to each upstream that has a block.
fn leading(routes: &Routes) -> Leading<'_> {
    let mut leading = Leading::new();
    for route in &routes.routes {
        let Some(server) = routes.servers.get(route.server) else { continue };
        let upstreams = route.target.upstreams.iter().filter_map(|&index| routes.upstreams.get(index));
        let keys: HashSet<_> = upstreams
            .filter(|upstream| !upstream.is_implicit)
            .map(|upstream| (upstream.context, upstream.name.to_ascii_lowercase()))
            .collect();
        for key in keys {
            leading.entry(key).or_default().push((server, route));
        }
    }
    leading
}

/// The places that lead to an upstream.
fn places(leading: &Leading<'_>, key: &(Context, String)) -> Vec<String> {
    leading.get(key).into_iter().flatten().map(|(server, route)| place(server, route)).collect()
}

fn place(server: &Server, route: &Route) -> String {
    let names = if server.names.is_empty() { "_".to_owned() } else { server.names.join(" ") };
    let location = route.location.join(" > ");
    let server = format!("server {names} ({})", server.listen.join(", "));
    if location.is_empty() { server } else { format!("{server}: {location}") }
}

fn listed_places(places: Option<&Vec<String>>) -> String {
    let Some(places) = places.filter(|places| !places.is_empty()) else { return String::new() };
    format!(" ← {}", shown::first(places, MAX_PLACES, "; "))
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
