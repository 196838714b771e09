//! What findings take of a configuration.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    declared::{Addresses, Context, Endpoint, Peer, Routes},
    model::{Declared, HostName, NameNow},
};

impl Declared {
    /// What `routes` declare.
    #[must_use]
    pub fn new(routes: &Routes, addresses: &Addresses) -> Self {
        let mut declared =
            Self { is_open: routes.is_open(addresses), is_followed: routes.is_followed(), ..Self::default() };
        let mut implicit: BTreeMap<&str, &str> = BTreeMap::new();
        for route in &routes.routes {
            let upstreams = route.target.upstreams.iter().filter_map(|index| routes.upstreams.get(*index));
            for upstream in upstreams.filter(|upstream| upstream.is_implicit) {
                implicit.entry(&upstream.name).or_insert(&route.directive);
            }
        }
        let peers = routes.upstreams.iter().flat_map(|upstream| {
            upstream.peers.iter().map(move |peer| {
                let found: Vec<_> = upstream.addresses(peer, addresses).collect();
                (&upstream.name, found, &peer.place)
            })
        });
        let others = routes
            .others
            .iter()
            .map(|other| (&other.name, other.endpoint.addresses(addresses).collect(), &other.place));
        for (name, found, place) in peers.chain(others) {
            let upstream = declared.upstreams.entry(name.as_str().into()).or_default();
            upstream.directive = implicit.get(name.as_str()).map(|directive| Arc::from(*directive));
            for address in found {
                upstream.addresses.entry(address).or_insert_with(|| place.as_str().into());
            }
        }
        let used: HashSet<_> = routes
            .routes
            .iter()
            .flat_map(|route| &route.target.upstreams)
            .filter_map(|index| routes.upstreams.get(*index))
            .map(|upstream| &upstream.name)
            .collect();
        for upstream in &routes.upstreams {
            let of = |is_meant: fn(&Peer) -> bool| {
                let peers = upstream.peers.iter().filter(move |peer| is_meant(peer));
                peers.flat_map(|peer| upstream.addresses(peer, addresses)).collect::<BTreeSet<_>>()
            };
            let (down, up) = (of(|peer| peer.down), of(|peer| !peer.down));
            if let Some(declared) = declared.upstreams.get_mut(upstream.name.as_str()) {
                declared.backups.extend(of(|peer| peer.backup));
                declared.down.extend(down.difference(&up).cloned());
                declared.is_stream |= upstream.context == Context::Stream;
                declared.is_unused = !used.contains(&upstream.name);
            }
        }
        declared
    }

    /// Notes the hosts that are names, and what those are `now`, by their keys.
    pub fn note_names(&mut self, routes: &Routes, now: &HashMap<String, NameNow>) {
        let mut seen = HashSet::new();
        for upstream in &routes.upstreams {
            for peer in &upstream.peers {
                let Endpoint::Host { name, port } = &peer.endpoint else { continue };
                if !seen.insert((&upstream.name, name, port)) {
                    continue;
                }
                let host = HostName {
                    name: name.as_str().into(),
                    port: *port,
                    place: peer.place.as_str().into(),
                    is_followed: peer.resolve,
                    now: upstream.key(peer).and_then(|key| now.get(&*key)).cloned(),
                };
                let declared = self.upstreams.entry(upstream.name.as_str().into()).or_default();
                declared.names.push(host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::Declared;
    use crate::nginx::tests::routes_of;

    #[test]
    fn a_declaration_has_each_address_with_its_line() {
        let routes = routes_of(
            "http { upstream api { server 10.0.0.5:8080; server app:81; }\n\
             server { location / { proxy_pass http://api; } location /b { proxy_pass http://10.0.0.6; } } }",
        );
        let addresses = HashMap::from([("app".to_owned(), vec!["10.0.0.7:0".parse().unwrap()])]);
        let declared = Declared::new(&routes, &addresses);
        let shown: Vec<_> = declared
            .upstreams
            .iter()
            .flat_map(|(name, upstream)| {
                upstream.addresses.iter().map(move |(address, place)| format!("{name} {address} {place}"))
            })
            .collect();
        assert_eq!(shown, ["10.0.0.6 10.0.0.6:80 n:2", "api 10.0.0.5:8080 n:1", "api 10.0.0.7:81 n:1"]);
        let directives = declared.upstreams.values().map(|upstream| upstream.directive.as_deref());
        assert_eq!(directives.collect::<Vec<_>>(), [Some("proxy_pass"), None]);
        assert!(declared.upstreams.values().all(|upstream| !upstream.is_unused));
        let text = serde_json::to_string(&declared).unwrap();
        assert_eq!(serde_json::from_str::<Declared>(&text).unwrap(), declared);
    }

    #[test]
    fn a_declaration_says_which_upstreams_nothing_leads_to() {
        let led_to = |locations: &str| {
            let pools = "upstream blue { server 10.0.0.5:80; } upstream green { server 10.0.0.6:80; }";
            let routes = routes_of(&format!("http {{ {pools} {locations} }}"));
            let declared = Declared::new(&routes, &HashMap::new());
            ["blue", "green"].map(|name| declared.may_lead_to(name))
        };
        assert_eq!(led_to("server { location / { proxy_pass http://green; } }"), [false, true]);
        let map = "map $host $pool { default green; } server { location / { proxy_pass http://$pool; } }";
        assert_eq!(led_to(map), [false, true]);
        // A request may name either.
        let open = "server { location / { proxy_pass http://$http_x_pool; } }";
        assert_eq!(led_to(open), [true, true]);
    }
}
