//! What changes in routing between two configurations of which only the routes are known, as those of proxies that run are: `check
//! --against` compares the files.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use crate::declared::{Endpoint, Peer, Route, Routes, Server, without_secrets};

/// Upstreams of a route with their peers, and what stays open.
type Targets = BTreeMap<String, Vec<String>>;

/// Targets by server and location. Routes with the same targets share them: where a map leads a thousand locations to a thousand
/// upstreams, there are a million pairs of them.
type Locations = BTreeMap<String, Rc<Targets>>;

/// One line a change; none where requests go where they went. What changes in the same way in several places is one change.
pub(super) fn between(old: &Routes, new: &Routes) -> Vec<String> {
    let (old, new) = (targets(old), targets(new));
    let mut changes = Changes::default();
    let nothing = Locations::new();
    for (server, locations) in &old {
        match new.get(server) {
            None => changes.lines.push(Line::Server(format!("{server} is gone"))),
            Some(now) => changes.compare(server, locations, now),
        }
    }
    for (server, locations) in new.iter().filter(|(server, _)| !old.contains_key(*server)) {
        changes.lines.push(Line::Server(format!("{server} is new")));
        changes.compare(server, &nothing, locations);
    }
    changes.lines.iter().map(|line| line.in_words(&changes.moves)).collect()
}

/// What became of targets: which they were, and which they are.
type Move = (Option<Rc<Targets>>, Option<Rc<Targets>>);

/// The changes, in their order.
#[derive(Default)]
struct Changes {
    lines: Vec<Line>,
    /// Each different one, with the places where it happens.
    moves: Vec<(Move, Vec<Place>)>,
    /// Their numbers, by the addresses of the targets.
    numbers: HashMap<[Option<*const Targets>; 2], Option<usize>>,
}

/// A change.
enum Line {
    Server(String),
    /// The number of a move.
    Targets(usize),
}

/// Where it happens: a server, and its locations.
struct Place {
    server: String,
    locations: Vec<String>,
}

impl Changes {
    fn compare(&mut self, server: &str, old: &Locations, new: &Locations) {
        for (location, was) in old {
            self.note(server, location, (Some(Rc::clone(was)), new.get(location).cloned()));
        }
        for (location, is) in new.iter().filter(|(location, _)| !old.contains_key(*location)) {
            self.note(server, location, (None, Some(Rc::clone(is))));
        }
    }

    fn note(&mut self, server: &str, location: &str, moved: Move) {
        let Self { lines, moves, numbers } = self;
        let addresses = [&moved.0, &moved.1].map(|targets| targets.as_ref().map(Rc::as_ptr));
        // Whether they differ is found out once.
        let number = *numbers.entry(addresses).or_insert_with(|| {
            (moved.0 != moved.1).then(|| {
                lines.push(Line::Targets(moves.len()));
                moves.push((moved, Vec::new()));
                moves.len() - 1
            })
        });
        let Some((_, places)) = number.and_then(|number| moves.get_mut(number)) else { return };
        match places.last_mut() {
            Some(place) if place.server == server => place.locations.push(location.to_owned()),
            _ => places.push(Place { server: server.to_owned(), locations: vec![location.to_owned()] }),
        }
    }
}

impl Line {
    fn in_words(&self, moves: &[(Move, Vec<Place>)]) -> String {
        match self {
            Self::Server(text) => text.clone(),
            Self::Targets(number) => {
                let ((was, is), places) = &moves[*number];
                let places: Vec<_> = places
                    .iter()
                    .map(|Place { server, locations }| format!("{server}: {}", locations.join(", ")))
                    .collect();
                format!("{} → {}", places.join("; "), became(was.as_deref(), is.as_deref()))
            }
        }
    }
}

/// What became of targets that differ.
fn became(was: Option<&Targets>, is: Option<&Targets>) -> String {
    match (was, is) {
        (Some(was), None) => format!("{} is gone", in_words(was)),
        (None, Some(is)) => format!("{} is new", in_words(is)),
        (Some(was), Some(is)) if is.keys().eq(was.keys()) => {
            let differing = was.iter().zip(is.values()).filter(|((_, was), is)| was != is);
            let words =
                differing.map(|((name, was), is)| format!("{name}: {} became {}", listed(was), listed(is)));
            words.collect::<Vec<_>>().join("; ")
        }
        (Some(was), Some(is)) => format!("{} became {}", in_words(was), in_words(is)),
        (None, None) => String::new(),
    }
}

/// By server and location.
fn targets(routes: &Routes) -> BTreeMap<String, Locations> {
    let labels = labels(&routes.servers);
    let mut of_places: BTreeMap<_, BTreeMap<_, Vec<Lead<'_>>>> =
        labels.iter().map(|label| (label.clone(), BTreeMap::new())).collect();
    for route in &routes.routes {
        let Some(label) = labels.get(route.server) else { continue };
        let leads = of_places.entry(label.clone()).or_default().entry(location(route)).or_default();
        leads.push((&route.target.upstreams, &route.target.open));
    }
    let mut shared: HashMap<Vec<Lead<'_>>, Rc<Targets>> = HashMap::new();
    let mut all = BTreeMap::new();
    for (server, places) in of_places {
        let mut locations = Locations::new();
        for (location, leads) in places {
            let entry = shared.entry(leads);
            let targets = entry.or_insert_with_key(|leads| Rc::new(named(routes, leads)));
            locations.insert(location, Rc::clone(targets));
        }
        all.insert(server, locations);
    }
    all
}

/// Where a route leads, as indexes into [`Routes::upstreams`] and what stays open.
type Lead<'a> = (&'a [usize], &'a [String]);

fn named(routes: &Routes, leads: &[Lead<'_>]) -> Targets {
    let mut targets = Targets::new();
    for (upstreams, open) in leads {
        for upstream in upstreams.iter().filter_map(|&index| routes.upstreams.get(index)) {
            let mut peers: Vec<_> = upstream.peers.iter().map(peer).collect();
            peers.sort();
            targets.entry(upstream.name.clone()).or_default().extend(peers);
        }
        for text in *open {
            targets.entry(without_secrets(text)).or_default();
        }
    }
    targets
}

/// What servers are called: by names and addresses; alike ones by number.
fn labels(servers: &[Server]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let label = |server: &Server| {
        let names = if server.names.is_empty() { "_".to_owned() } else { server.names.join(" ") };
        let label = format!("server {names} ({})", server.listen.join(", "));
        let count = seen.entry(label.clone()).and_modify(|count| *count += 1).or_insert(1);
        if *count == 1 { label } else { format!("{label} #{count}") }
    };
    servers.iter().map(label).collect()
}

fn location(route: &Route) -> String {
    if route.location.is_empty() { "all".to_owned() } else { route.location.join(" > ") }
}

fn peer(peer: &Peer) -> String {
    let mut text = match &peer.endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Host { name, port } => format!("{name}:{port}"),
        Endpoint::Service { name } => name.clone(),
    };
    if peer.weight != 1 {
        text += &format!(" weight={}", peer.weight);
    }
    for (is_set, word) in [(peer.backup, " backup"), (peer.down, " down")] {
        text += if is_set { word } else { "" };
    }
    text
}

fn listed(peers: &[String]) -> String {
    if peers.is_empty() { "nothing".to_owned() } else { peers.join(", ") }
}

fn in_words(targets: &Targets) -> String {
    let one = |(name, peers): (&String, &Vec<String>)| {
        if peers.is_empty() { name.clone() } else { format!("{name}: {}", peers.join(", ")) }
    };
    let all: Vec<_> = targets.iter().map(one).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::between;
    use crate::nginx::tests::routes_of;

    #[test]
    fn what_changes_alike_in_many_places_is_reported_once() {
        let text = |port: u16| {
            let map: String = (0..500).map(|n| format!("k{n} h{n}.example:{port};")).collect();
            let locations: String =
                (0..100).map(|n| format!("location /p{n} {{ proxy_pass http://$t; }}")).collect();
            format!(
                "http {{ map $uri $t {{ {map} }} server {{ listen 80; {locations} }} server {{ listen 81; {locations} }} }}"
            )
        };
        let [old, new] = [80, 81].map(|port| routes_of(&text(port)));
        let changes = between(&old, &new);
        let length: usize = changes.iter().map(String::len).sum();
        assert!(length < 3 * text(80).len(), "{length} bytes");
        let first = &changes[0];
        assert!(first.starts_with("server _ (80): /p0, /p1, /p10, "), "{first}");
        assert!(first.contains("; server _ (81): /p0, "), "{first}");
        assert!(between(&old, &old).is_empty());
    }

    #[test]
    fn only_what_changes_for_requests_is_reported() {
        let old = "http { upstream api { server 10.0.0.5:8080; }
            server { listen 80; server_name a; location /api/ { proxy_pass http://api; } } }";
        let check = |new: &str, expected: &[&str]| {
            let [old, new] = [old, new].map(routes_of);
            assert_eq!(between(&old, &new), expected);
        };
        check(&old.replace(' ', "\n  "), &[]);
        check(
            &old.replace("8080", "8081"),
            &["server a (80): /api/ → api: 10.0.0.5:8080 became 10.0.0.5:8081"],
        );
        check(
            &old.replace("http://api", "http://10.0.0.6"),
            &["server a (80): /api/ → api: 10.0.0.5:8080 became 10.0.0.6: 10.0.0.6:80"],
        );
        check(
            &old.replace("/api/", "/v2/"),
            &[
                "server a (80): /api/ → api: 10.0.0.5:8080 is gone",
                "server a (80): /v2/ → api: 10.0.0.5:8080 is new",
            ],
        );
        check(
            &old.replace("server_name a", "server_name b"),
            &[
                "server a (80) is gone",
                "server b (80) is new",
                "server b (80): /api/ → api: 10.0.0.5:8080 is new",
            ],
        );
        check(
            &old.replace("8080", "8080 down"),
            &["server a (80): /api/ → api: 10.0.0.5:8080 became 10.0.0.5:8080 down"],
        );
    }
}
