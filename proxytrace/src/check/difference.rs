//! What changes in routing between two configurations, in the operator's terms.

use std::collections::BTreeMap;

use crate::nginx::routes::{Endpoint, Peer, Route, Routes, Server};

/// Upstreams of a route with their peers, and what stays open.
type Targets = BTreeMap<String, Vec<String>>;

/// One line a change; none where requests go where they went.
#[must_use]
pub fn between(old: &Routes, new: &Routes) -> Vec<String> {
    let (old, new) = (targets(old), targets(new));
    let mut changes = Vec::new();
    for (server, locations) in &old {
        match new.get(server) {
            None => changes.push(format!("{server} is gone")),
            Some(now) => compare(server, locations, now, &mut changes),
        }
    }
    for (server, locations) in new.iter().filter(|(server, _)| !old.contains_key(*server)) {
        changes.push(format!("{server} is new"));
        compare(server, &BTreeMap::new(), locations, &mut changes);
    }
    changes
}

fn compare(
    server: &str,
    old: &BTreeMap<String, Targets>,
    new: &BTreeMap<String, Targets>,
    changes: &mut Vec<String>,
) {
    let mut tell = |location: &str, change: String| changes.push(format!("{server}: {location} → {change}"));
    for (location, was) in old {
        match new.get(location) {
            None => tell(location, format!("{} is gone", in_words(was))),
            Some(is) if is == was => {}
            Some(is) if is.keys().eq(was.keys()) => {
                for ((name, was), is) in was.iter().zip(is.values()).filter(|((_, was), is)| was != is) {
                    tell(location, format!("{name}: {} became {}", listed(was), listed(is)));
                }
            }
            Some(is) => tell(location, format!("{} became {}", in_words(was), in_words(is))),
        }
    }
    for (location, is) in new.iter().filter(|(location, _)| !old.contains_key(*location)) {
        tell(location, format!("{} is new", in_words(is)));
    }
}

/// By server and location.
fn targets(routes: &Routes) -> BTreeMap<String, BTreeMap<String, Targets>> {
    let labels = labels(&routes.servers);
    let mut all: BTreeMap<_, BTreeMap<_, Targets>> =
        labels.iter().map(|label| (label.clone(), BTreeMap::new())).collect();
    for route in &routes.routes {
        let Some(label) = labels.get(route.server) else { continue };
        let targets = all.entry(label.clone()).or_default().entry(location(route)).or_default();
        for upstream in route.target.upstreams.iter().filter_map(|&index| routes.upstreams.get(index)) {
            let mut peers: Vec<_> = upstream.peers.iter().map(peer).collect();
            peers.sort();
            targets.entry(upstream.name.clone()).or_default().extend(peers);
        }
        for open in &route.target.variables {
            targets.entry(open.clone()).or_default();
        }
    }
    all
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
    use crate::nginx::{routes::Routes, tests::config};

    #[test]
    fn only_what_changes_for_requests_is_told() {
        let old = "http { upstream api { server 10.0.0.5:8080; }
            server { listen 80; server_name a; location /api/ { proxy_pass http://api; } } }";
        let check = |new: &str, expected: &[&str]| {
            let [old, new] = [old, new].map(|text| Routes::of(&config(text)));
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
