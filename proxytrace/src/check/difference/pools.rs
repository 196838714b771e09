//! Upstreams: which have other peers, and which only another name.

use std::collections::{BTreeMap, HashMap, HashSet};

use nginx_conf::Directive;

use super::{
    Changes,
    canonical::{self, Renames},
    shown,
};
use crate::{
    check::subject::Subject,
    declared::{Context, Route, Routes, Server},
};

/// The addresses of each upstream, by its name in lower case.
pub(super) type Peers = HashMap<String, String>;

/// Parameters of a server that are what holds anyway.
const DEFAULTS: [&str; 3] = ["weight=1", "max_fails=1", "max_conns=0"];
const FAIL_TIMEOUTS: [&str; 2] = ["fail_timeout=10s", "fail_timeout=10"];

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
    rest: Vec<String>,
}

impl Pool {
    fn is_like(&self, other: &Self) -> bool {
        self.peers == other.peers && self.rest == other.rest
    }
}

type Pools = BTreeMap<(Context, String), Pool>;

/// The addresses of the upstreams of a kind.
pub(super) fn addresses(subject: &Subject, context: Context) -> Peers {
    let of_context = pools(subject).into_iter().filter(|((of, _), _)| *of == context);
    of_context.map(|((_, name), pool)| (name, listed(&pool.peers))).collect()
}

/// Upstreams that only another name has now.
pub(super) fn renames(old: &Subject, new: &Subject) -> Renames {
    let (was, is) = (pools(old), pools(new));
    let mut renames = Renames::default();
    let mut taken = HashSet::new();
    for ((context, name), pool) in was.iter().filter(|(key, _)| !is.contains_key(*key)) {
        let same = is.iter().find(|(key, other)| {
            key.0 == *context && !was.contains_key(*key) && pool.is_like(other) && !taken.contains(*key)
        });
        if let Some((key, _)) = same {
            taken.insert(key.clone());
            renames.0.insert((*context, name.clone()), key.1.clone());
        }
    }
    renames
}

/// Says which upstreams that something leads to have other peers, or another name.
pub(super) fn compare(old: &Subject, new: &Subject, renames: &Renames, changes: &mut Changes) {
    let (was, is) = (pools(old), pools(new));
    for ((context, name), pool) in &was {
        let Some(now) = is.get(&(*context, renames.of(*context, name))) else { continue };
        let used = [(&old.routes, name), (&new.routes, &now.name)];
        let places: Vec<_> = used.iter().map(|(routes, name)| places(routes, *context, name)).collect();
        let is_open =
            used.iter().any(|(routes, _)| routes.routes.iter().any(|route| !route.target.open.is_empty()));
        if places.iter().all(Vec::is_empty) && !is_open {
            continue;
        }
        if renames.0.contains_key(&(*context, name.clone())) {
            let what = format!(
                "upstream \"{}\" is called \"{}\" now, with the same peers, which see that name where no Host is set",
                pool.name, now.name
            );
            changes.routes.push(what);
        }
        let places = listed_places(places.last().filter(|places| !places.is_empty()).or(places.first()));
        if pool.peers != now.peers {
            let (before, now) = (listed(&pool.peers), listed(&now.peers));
            changes.peers.push(format!("{}: {before} became {now}{places}", pool.name));
        }
        if pool.rest != now.rest {
            let (before, now) = (listed(&pool.rest), listed(&now.rest));
            changes.peers.push(format!("{}: {now} instead of {before}{places}", pool.name));
        }
    }
}

fn pools(subject: &Subject) -> Pools {
    let mut pools = Pools::new();
    for (kind, context) in [("http", Context::Http), ("stream", Context::Stream)] {
        let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == kind);
        let upstreams =
            blocks.flat_map(Directive::children).filter(|directive| directive.name.text == "upstream");
        for upstream in upstreams {
            let Some(name) = upstream.arg(0) else { continue };
            let (servers, rest): (Vec<_>, Vec<_>) =
                upstream.children().iter().partition(|line| line.name.text == "server");
            let is_ordered = rest.iter().any(|line| ORDERED.contains(&&*line.name.text));
            let mut peers: Vec<_> = servers.into_iter().map(|line| peer(context, line)).collect();
            if !is_ordered {
                peers.sort();
            }
            let none = Renames::default();
            let seen = rest.into_iter().filter(|line| canonical::is_seen(&line.name.text));
            let line = |line: &Directive| {
                format!("{} {}", line.name.text, canonical::arguments(context, line, &none))
            };
            let mut rest: Vec<_> = seen.map(|one| line(one).trim_end().to_owned()).collect();
            rest.sort();
            let pool = Pool { name: name.to_owned(), peers, rest };
            pools.entry((context, name.to_ascii_lowercase())).or_insert(pool);
        }
    }
    pools
}

fn peer(context: Context, line: &Directive) -> String {
    let address = line.arg(0).unwrap_or_default();
    let address =
        if address.starts_with("unix:") { address.to_owned() } else { address.to_ascii_lowercase() };
    let has_port = address.rfind(':').is_some_and(|at| !address[at..].contains(']'));
    let is_service = line.args.iter().any(|word| word.text.starts_with("service="));
    let port = if has_port || is_service || context == Context::Stream { "" } else { ":80" };
    let mut parameters: Vec<_> = line
        .args
        .iter()
        .skip(1)
        .map(|word| word.text.as_str())
        .filter(|word| !DEFAULTS.contains(word) && !FAIL_TIMEOUTS.contains(word))
        .collect();
    parameters.sort_unstable();
    let parameters: String = parameters.into_iter().map(|parameter| format!(" {parameter}")).collect();
    format!("{address}{port}{parameters}")
}

/// The places that lead to an upstream.
fn places(routes: &Routes, context: Context, name: &str) -> Vec<String> {
    let is_it = |&index: &usize| {
        let upstream = routes.upstreams.get(index);
        upstream.is_some_and(|one| {
            one.context == context && !one.is_implicit && one.name.eq_ignore_ascii_case(name)
        })
    };
    let leading = routes.routes.iter().filter(|route| route.target.upstreams.iter().any(is_it));
    leading.filter_map(|route| Some(place(routes.servers.get(route.server)?, route))).collect()
}

fn place(server: &Server, route: &Route) -> String {
    let names = if server.names.is_empty() { "_".to_owned() } else { server.names.join(" ") };
    let location = route.location.join(" > ");
    let server = format!("server {names} ({})", server.listen.join(", "));
    if location.is_empty() { server } else { format!("{server}: {location}") }
}

fn listed_places(places: Option<&Vec<String>>) -> String {
    let Some(places) = places.filter(|places| !places.is_empty()) else { return String::new() };
    let named = places.iter().take(MAX_PLACES).cloned().collect::<Vec<_>>().join("; ");
    let more = places.len().saturating_sub(MAX_PLACES);
    if more == 0 { format!(" ← {named}") } else { format!(" ← {named} and {more} more") }
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { shown(&words.join(", ")) }
}
