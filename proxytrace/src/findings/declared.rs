//! What findings take of a configuration.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    declared::{Addresses, Context, Routes},
    model::Declared,
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
            upstream.peers.iter().map(|peer| (&upstream.name, &peer.endpoint, &peer.place))
        });
        let others = routes.others.iter().map(|other| (&other.name, &other.endpoint, &other.place));
        for (name, endpoint, place) in peers.chain(others) {
            let upstream = declared.upstreams.entry(name.as_str().into()).or_default();
            upstream.directive = implicit.get(name.as_str()).map(|directive| Arc::from(*directive));
            for address in endpoint.addresses(addresses) {
                upstream.addresses.entry(address).or_insert_with(|| place.as_str().into());
            }
        }
        for upstream in &routes.upstreams {
            let peers = upstream.peers.iter().filter(|peer| peer.backup);
            let backups = peers.flat_map(|peer| peer.endpoint.addresses(addresses));
            if let Some(declared) = declared.upstreams.get_mut(upstream.name.as_str()) {
                declared.backups.extend(backups);
                declared.is_stream |= upstream.context == Context::Stream;
            }
        }
        declared
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
        let text = serde_json::to_string(&declared).unwrap();
        assert_eq!(serde_json::from_str::<Declared>(&text).unwrap(), declared);
    }
}
