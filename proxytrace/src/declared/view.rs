//! Routes as `/routes` shows them: each with its server, and peers with the addresses that they stand for.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    configuration::Configuration,
    routes::{Context, Peer, Route, Upstream},
};
use crate::model::Address;

/// Where the configuration of one proxy sends requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoutesView {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// Which configuration this is: how often the proxy had been reloaded.
    pub generation: u32,
    /// The main file.
    pub config: PathBuf,
    /// The places that pass requests on.
    pub routes: Vec<RouteView>,
    /// Where those lead.
    pub upstreams: Vec<UpstreamView>,
}

/// One place that passes requests on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteView {
    /// What is passed on.
    pub context: Context,
    /// What the server listens on.
    pub listen: Vec<String>,
    /// The server's names.
    pub server_names: Vec<String>,
    /// Which requests come here.
    pub location: Vec<String>,
    /// What passes them on, such as `proxy_pass`.
    pub directive: String,
    /// Its argument, without what may be a secret: user, password, and what follows a `?`.
    pub target: String,
    /// The upstreams that it can lead to: indexes into [`RoutesView::upstreams`], as hosts with several ports share a name.
    pub upstreams: Vec<usize>,
    /// The names of the variables that only a request fills; empty where the upstreams are all.
    pub variables: Vec<String>,
    /// How long the proxy waits for a connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long it waits for bytes of an answer, in milliseconds; 0 where what it sends are no requests.
    pub read_timeout_ms: u64,
    /// `path:line`.
    pub place: String,
}

/// One upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// What is passed on.
    pub context: Context,
    /// `path:line`.
    pub place: String,
    /// Its peers.
    pub peers: Vec<PeerView>,
}

/// One peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerView {
    /// The name that it was looked up by, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its share among the peers.
    pub weight: u32,
    /// Used when the others fail only.
    pub backup: bool,
    /// Never used.
    pub down: bool,
    /// `path:line`.
    pub place: String,
}

impl RoutesView {
    /// The routes of a configuration that `proxy` has run since its reload `generation`.
    #[must_use]
    pub fn new(proxy: Arc<str>, generation: u32, configuration: &Configuration) -> Self {
        let Configuration { path, routes, resolved, .. } = configuration;
        let route = |route: &Route| {
            let server = routes.servers.get(route.server)?;
            Some(RouteView {
                context: server.context,
                listen: server.listen.clone(),
                server_names: server.names.clone(),
                location: route.location.clone(),
                directive: route.directive.clone(),
                target: without_secrets(&route.target.text),
                upstreams: route.target.upstreams.clone(),
                variables: route.target.variables.clone(),
                connect_timeout_ms: route.connect_timeout_ms,
                read_timeout_ms: route.read_timeout_ms,
                place: route.place.clone(),
            })
        };
        let peer = |upstream: &Upstream, peer: &Peer| PeerView {
            host: peer.endpoint.name().map(str::to_owned),
            addresses: upstream.addresses(peer, resolved).collect(),
            weight: peer.weight,
            backup: peer.backup,
            down: peer.down,
            place: peer.place.clone(),
        };
        let upstream = |upstream: &Upstream| UpstreamView {
            name: upstream.name.clone(),
            context: upstream.context,
            place: upstream.place.clone(),
            peers: upstream.peers.iter().map(|one| peer(upstream, one)).collect(),
        };
        Self {
            proxy,
            generation,
            config: path.clone(),
            routes: routes.routes.iter().filter_map(route).collect(),
            upstreams: routes.upstreams.iter().map(upstream).collect(),
        }
    }
}

/// A target without the user and password before its host, and without what follows a `?`.
#[must_use]
pub fn without_secrets(target: &str) -> String {
    let (shown, _) = target.split_once('?').unwrap_or((target, ""));
    let (scheme, rest) = shown.find("://").map_or(("", shown), |end| shown.split_at(end + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn targets_are_shown_without_user_password_and_query() {
        let check = |target: &str, expected: &str| assert_eq!(without_secrets(target), expected);
        check("https://svc:hunter2@10.66.0.9:9443/x?apikey=hunter2", "https://10.66.0.9:9443/x");
        check("http://a@b@api/@x", "http://api/@x");
        check("http://api", "http://api");
        check("unix:/run/a@b.sock", "unix:/run/a@b.sock");
        check("$scheme://$host$uri?$args", "$scheme://$host$uri");
        check("10.0.0.5:8080", "10.0.0.5:8080");
    }
}
