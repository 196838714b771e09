//! Which upstreams a change of a configuration is about. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::declared::{Addresses, Endpoint, Peer, Route, Routes};

/// What an upstream is, as far as its connects depend on it: where it is, and who leads there.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Shape<'a> {
    peers: BTreeSet<(String, bool, bool)>,
    routes: BTreeSet<Place<'a>>,
}

/// Where a route is: addresses and names of its server, its location, and what stands there.
type Place<'a> = ([&'a [String]; 3], &'a str);

/// The upstreams that something leads to in `new`, and that are not in `old` as they are there: other peers, other addresses of
/// their names, or other routes that lead there.
pub(super) fn changed(
    (old, old_addresses): (&Routes, &Addresses),
    (new, new_addresses): (&Routes, &Addresses),
) -> BTreeSet<String> {
    let old = shapes(old, old_addresses);
    let new = shapes(new, new_addresses);
    let is_changed = |(name, shape): &(&str, Shape<'_>)| old.get(name) != Some(shape);
    new.into_iter().filter(is_changed).map(|(name, _)| name.to_owned()).collect()
}

/// All upstreams that something leads to.
pub(super) fn used(routes: &Routes) -> BTreeSet<String> {
    let indexes = routes.routes.iter().flat_map(|route| &route.target.upstreams);
    indexes.filter_map(|&index| routes.upstreams.get(index)).map(|one| one.name.clone()).collect()
}

/// What leads where only a request says, as it is written, and is not in any `old` one as it is there.
pub(super) fn open(old: &[&Routes], new: &Routes) -> BTreeSet<String> {
    let of = |routes: &'_ Routes| -> BTreeSet<([Vec<String>; 3], String)> {
        let is_open = |route: &&Route| route.target.upstreams.is_empty() && !route.target.open.is_empty();
        let open = routes.routes.iter().filter(is_open).filter_map(|route| {
            let server = routes.servers.get(route.server)?;
            let place = [server.listen.clone(), server.names.clone(), route.location.clone()];
            Some((place, route.target.text.clone()))
        });
        open.collect()
    };
    let mut open = of(new);
    let known: Vec<_> = old.iter().map(|old| of(old)).collect();
    open.retain(|one| known.is_empty() || known.iter().any(|old| !old.contains(one)));
    open.into_iter().map(|(_, text)| text).collect()
}

/// What leads to these upstreams, and nothing else.
pub(super) fn only(routes: &Routes, upstreams: &BTreeSet<String>) -> Routes {
    let mut only = routes.clone();
    let is_meant =
        |index: &usize| routes.upstreams.get(*index).is_some_and(|one| upstreams.contains(&one.name));
    for route in &mut only.routes {
        route.target.upstreams.retain(is_meant);
    }
    only.routes.retain(|route| !route.target.upstreams.is_empty());
    only
}

fn shapes<'a>(routes: &'a Routes, addresses: &Addresses) -> BTreeMap<&'a str, Shape<'a>> {
    let mut shapes: BTreeMap<&str, Shape<'_>> = BTreeMap::new();
    for route in &routes.routes {
        let Some(server) = routes.servers.get(route.server) else { continue };
        for upstream in route.target.upstreams.iter().filter_map(|&index| routes.upstreams.get(index)) {
            let shape = shapes.entry(&upstream.name).or_default();
            shape.peers.extend(upstream.peers.iter().flat_map(|peer| peers(peer, addresses)));
            shape.routes.insert(([&server.listen, &server.names, &route.location], &route.target.text));
        }
    }
    shapes
}

fn peers(peer: &Peer, addresses: &Addresses) -> Vec<(String, bool, bool)> {
    let written = match &peer.endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Host { name, port } => format!("{name}:{port}"),
        Endpoint::Service { name } => name.clone(),
    };
    // What a followed name stands for changes without a reload.
    let found: Vec<_> = match peer.resolve {
        true => Vec::new(),
        false => peer.endpoint.addresses(addresses).map(|address| address.to_string()).collect(),
    };
    let all = if found.is_empty() { vec![written] } else { found };
    all.into_iter().map(|one| (one, peer.backup, peer.down)).collect()
}

#[cfg(test)]
mod tests {
    use super::{changed, only, open, used};
    use crate::{declared::Addresses, nginx::tests::routes_of};

    const OLD: &str = "http { upstream api { server 10.0.0.5:80; } upstream web { server 10.0.0.6:80; }
        upstream idle { server 10.0.0.7:80; }
        server { listen 80; location / { proxy_pass http://web; } location /api/ { proxy_pass http://api; } } }";

    #[test]
    fn upstreams_are_changed_by_peers_and_by_routes() {
        let check = |new: &str, expected: &[&str]| {
            let [old, new] = [OLD, new].map(routes_of);
            let none = Addresses::new();
            let changed = changed((&old, &none), (&new, &none));
            assert_eq!(changed.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        };
        check(OLD, &[]);
        check(&OLD.replace(' ', "\n "), &[]);
        check(&OLD.replace("10.0.0.5", "10.0.0.9"), &["api"]);
        check(&OLD.replace("10.0.0.7", "10.0.0.9"), &[]);
        check(&OLD.replace("http://api", "http://idle"), &["idle"]);
        check(&OLD.replace("http://api", "http://web"), &["web"]);
        check(&OLD.replace("/api/", "/v2/"), &["api"]);
        check(&OLD.replace("10.0.0.5:80", "10.0.0.5:80 down"), &["api"]);
    }

    #[test]
    fn a_name_that_stands_for_another_address_is_a_change() {
        let routes = routes_of("http { server { listen 80; location / { proxy_pass http://app; } } }");
        let at = |ip: [u8; 4]| Addresses::from([("app".to_owned(), vec![(ip, 0).into()])]);
        let check = |new: Addresses, expected: usize| {
            assert_eq!(changed((&routes, &at([10, 0, 0, 1])), (&routes, &new)).len(), expected);
        };
        check(at([10, 0, 0, 1]), 0);
        check(at([10, 0, 0, 2]), 1);
    }

    #[test]
    fn where_only_a_request_says_where_it_leads_is_told() {
        let with = |target: &str| {
            routes_of(&format!(
                "http {{ server {{ listen 80; location / {{ proxy_pass http://{target}; }} }} }}"
            ))
        };
        let check = |old: &[&str], new: &str, expected: &[&str]| {
            let old: Vec<_> = old.iter().map(|old| with(old)).collect();
            let open = open(&old.iter().collect::<Vec<_>>(), &with(new));
            assert_eq!(open.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        };
        let port = "127.0.0.1:$http_x";
        check(&["10.0.0.5:80"], port, &["http://127.0.0.1:$http_x"]);
        check(&[port], port, &[]);
        check(&[port, "10.0.0.5:80"], port, &["http://127.0.0.1:$http_x"]);
        check(&[], port, &["http://127.0.0.1:$http_x"]);
        check(&[port], "10.0.0.5:80", &[]);
    }

    #[test]
    fn what_leads_to_some_upstreams_is_cut_out() {
        let routes = routes_of(OLD);
        assert_eq!(used(&routes).into_iter().collect::<Vec<_>>(), ["api", "web"]);
        let only = only(&routes, &["api".to_owned()].into());
        assert_eq!(used(&only).into_iter().collect::<Vec<_>>(), ["api"]);
        assert_eq!(only.upstreams.len(), 3);
    }
}
