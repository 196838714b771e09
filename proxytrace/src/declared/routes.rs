//! Where a configuration sends requests: servers and locations, the upstreams that they pass to, and the peers of those.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::model::Address;

/// What names resolve to, by their [`key`]s: hosts to addresses with port 0, services to addresses with the ports of their SRV
/// records. A name is missing that nobody answered for.
pub type Addresses = HashMap<String, Vec<SocketAddr>>;

/// A configuration with more servers, upstreams, peers and routes is too large: a proxy needs no more, and a hostile one could
/// make as many as fit into the memory of its reader.
pub const MAX_ENTRIES: usize = 65_536;

/// All routes of a configuration. Crosses pipes and HTTP as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Routes {
    /// Upstreams that are declared by a name, then the hosts that routes name themselves, each in the order of the configuration.
    pub upstreams: Vec<Upstream>,
    /// All servers, also those that pass nothing on.
    pub servers: Vec<Server>,
    /// Every directive that passes requests or connections on, in the order of the configuration.
    pub routes: Vec<Route>,
    /// What the proxy connects to besides upstreams.
    pub others: Vec<Other>,
    /// Addresses of routes whose ports only a request says: theirs is 0.
    pub any_port: Vec<Other>,
    /// It also connects to what its configuration does not declare at all, as nginx's servers in `mail { }` do: to wherever the
    /// answers of `auth_http` say.
    pub connects_elsewhere: bool,
    /// Connections may be kept where an upstream does not say whether they are.
    pub keeps_by_default: bool,
}

/// What is passed on; each kind has upstreams of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// Requests.
    Http,
    /// Connections.
    Stream,
}

/// A group of peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// The name that it is declared by, or the host that a route names, without port; `unix:` and the path for a socket.
    pub name: String,
    /// `path:line` of the declaration, or of the first route that names the host.
    pub place: String,
    /// Where it can be used.
    pub context: Context,
    /// A host that a route names itself.
    pub is_implicit: bool,
    /// Whether connections are kept when a request is answered, where its declaration says so or what it is.
    pub keeps: Option<bool>,
    /// Those listed are not all of its peers: code chooses them, or they are set while the proxy runs.
    pub has_more_peers: bool,
    /// Code chooses among peers that the configuration does not list: those listed stand in for them.
    pub is_chosen: bool,
    /// In the order of the configuration.
    pub peers: Vec<Peer>,
    /// What resolves peers whose names are followed, where the configuration says so.
    pub resolver: Option<Resolver>,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Where it is.
    pub endpoint: Endpoint,
    /// `path:line` of the line.
    pub place: String,
    /// Its share among the peers.
    pub weight: u32,
    /// Used when the others fail only.
    pub backup: bool,
    /// Never used.
    pub down: bool,
    /// Its host's addresses are followed while the proxy runs; otherwise they are looked up when the configuration is read.
    pub resolve: bool,
}

/// Where something can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// As it stands there.
    Address(Address),
    /// What a name resolves to.
    Host {
        /// The name.
        name: String,
        /// The port at each of its addresses.
        port: u16,
    },
    /// What the SRV records of a name say.
    Service {
        /// The name, such as `_http._tcp.app.example`.
        name: String,
    },
}

/// Where a proxy takes requests or connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// What it takes.
    pub context: Context,
    /// The addresses on which it listens, as they are written or meant.
    pub listen: Vec<String>,
    /// The names that it answers to, as they are written.
    pub names: Vec<String>,
    /// It takes datagrams, and so it connects by UDP.
    pub is_udp: bool,
}

/// A place that passes requests or connections on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// An index into [`Routes::servers`].
    pub server: usize,
    /// Which requests come here, as it is written: the block that the place stands in, and those around that, outermost first.
    /// Empty where all do.
    pub location: Vec<String>,
    /// What passes them on, such as `proxy_pass`.
    pub directive: String,
    /// `path:line`.
    pub place: String,
    /// Where it leads.
    pub target: Target,
    /// How long the proxy waits for a connect here.
    pub connect_timeout_ms: u64,
    /// How long it waits for bytes of an answer here; 0 where what it sends are no requests.
    pub read_timeout_ms: u64,
    /// Whether TLS is spoken to the upstream.
    pub is_tls: bool,
    /// Whether bytes may be sent while the answer comes, or come that answer nothing: then their order says nothing.
    pub is_unordered: bool,
    /// Whether the body of a request is passed on as it comes: then silence may be the client's.
    pub streams_body: bool,
    /// What resolves names here that come out of variables.
    pub resolver: Option<Resolver>,
}

/// Where a route leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// As it is written.
    pub text: String,
    /// Where it can lead, as far as that is known: indexes into [`Routes::upstreams`].
    pub upstreams: Vec<usize>,
    /// What remains of it where only a request says more; empty where `upstreams` are all.
    pub open: Vec<String>,
    /// The names of the variables that only a request fills, in `open`.
    pub variables: Vec<String>,
}

/// What a proxy asks for the names that it follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resolver {
    /// The servers.
    pub servers: Vec<Endpoint>,
    /// How long an answer holds, where that is not left to the answer.
    pub valid_ms: Option<u64>,
}

/// What a proxy connects to on its own account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Other {
    /// What it is for, such as `resolver`.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// `path:line`.
    pub place: String,
}

impl Routes {
    /// The host names whose addresses must be known to name what the proxy connects to, each once.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.endpoints().filter_map(Endpoint::host).filter(move |host| seen.insert(*host))
    }

    /// The host names that are looked up once, when the proxy reads its configuration, each once.
    pub fn fixed_hosts(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        let peers = self.upstreams.iter().flat_map(|upstream| &upstream.peers).filter(|peer| !peer.resolve);
        let endpoints =
            peers.map(|peer| &peer.endpoint).chain(self.others.iter().map(|other| &other.endpoint));
        endpoints.filter_map(Endpoint::host).filter(move |host| seen.insert(*host))
    }

    /// What the proxy looks up while it runs, each name once for each resolver that it asks.
    pub fn followed(&self) -> impl Iterator<Item = (&Endpoint, Option<&Resolver>)> {
        let mut seen = HashSet::new();
        let peers = self.upstreams.iter().flat_map(|upstream| {
            let peers = upstream.peers.iter().filter(|peer| peer.resolve);
            peers.map(|peer| (&peer.endpoint, upstream.resolver.as_ref()))
        });
        peers.filter(move |(endpoint, resolver)| {
            endpoint
                .name()
                .is_some_and(|name| seen.insert((name, resolver.map(|resolver| &resolver.servers))))
        })
    }

    /// Whether the proxy looks names up while it runs, so that addresses must be followed.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followed().next().is_some()
    }

    /// Whether the proxy may connect to what the configuration alone does not say: variables that only a request fills, peers
    /// that are not listed, whatever is not declared at all, or services that `addresses` (as for [`Endpoint::addresses`]) lack.
    #[must_use]
    pub fn is_open(&self, addresses: &Addresses) -> bool {
        let is_unknown = |upstream: &Upstream, peer: &Peer| match &peer.endpoint {
            Endpoint::Service { .. } => upstream.found(peer, addresses).is_none(),
            Endpoint::Address(_) | Endpoint::Host { .. } => false,
        };
        self.connects_elsewhere
            || self
                .upstreams
                .iter()
                .any(|one| one.has_more_peers || one.peers.iter().any(|peer| is_unknown(one, peer)))
            || self.routes.iter().any(|route| !route.target.open.is_empty())
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let peers = self.upstreams.iter().flat_map(|upstream| &upstream.peers).map(|peer| &peer.endpoint);
        peers.chain(self.others.iter().map(|other| &other.endpoint))
    }
}

impl Upstream {
    /// What the name of a peer is found by in [`Addresses`].
    pub fn key<'a>(&self, peer: &'a Peer) -> Option<Cow<'a, str>> {
        let resolver = self.resolver.as_ref().filter(|_| peer.resolve);
        peer.endpoint.name().map(|name| key(name, resolver.map_or(&[], |resolver| &resolver.servers)))
    }

    /// What the name of a peer resolves to; `None` for one that has none, and for one that nobody answered for. What the system says
    /// stands for what the upstream's own resolver would say, where that was not asked.
    pub fn found<'a>(&self, peer: &Peer, of_names: &'a Addresses) -> Option<&'a [SocketAddr]> {
        let own = self.key(peer).and_then(|key| of_names.get(&*key));
        own.or_else(|| of_names.get(peer.endpoint.name()?)).map(Vec::as_slice)
    }

    /// The addresses that a peer stands for; none where it is a name that `of_names` lacks.
    pub fn addresses<'a>(
        &self,
        peer: &'a Peer,
        of_names: &'a Addresses,
    ) -> impl Iterator<Item = Address> + use<'a> {
        peer.endpoint.with(self.found(peer, of_names).unwrap_or_default())
    }
}

/// What a name is found by in [`Addresses`] that is asked for at these servers; at those of the system where there are none.
pub fn key<'a>(name: &'a str, servers: &[Endpoint]) -> Cow<'a, str> {
    if servers.is_empty() {
        return name.into();
    }
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!("{name}@{}", servers.join(",")).into()
}

impl Peer {
    /// A peer like any other.
    #[must_use]
    pub const fn new(endpoint: Endpoint, place: String) -> Self {
        Self { endpoint, place, weight: 1, backup: false, down: false, resolve: false }
    }
}

impl Endpoint {
    /// The addresses that it stands for; none where it is a name that `of_names` lacks.
    pub fn addresses<'a>(&'a self, of_names: &'a Addresses) -> impl Iterator<Item = Address> + 'a {
        self.with(self.name().and_then(|name| of_names.get(name)).map(Vec::as_slice).unwrap_or_default())
    }

    /// The addresses that it stands for, where its name resolves to these.
    fn with<'a>(&'a self, found: &'a [SocketAddr]) -> impl Iterator<Item = Address> + use<'a> {
        let own = match self {
            Self::Address(address) => Some(address.clone()),
            Self::Host { .. } | Self::Service { .. } => None,
        };
        let of_name = found.iter().map(|found| {
            let port = self.host().map_or(found.port(), |_| self.port());
            Address::Internet(SocketAddr::new(found.ip().to_canonical(), port))
        });
        own.into_iter().chain(of_name)
    }

    /// The port; 0 for a unix socket, and where SRV records have it.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host { port, .. } => *port,
            Self::Service { .. } => 0,
        }
    }

    /// The host name, where it is one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Host { name, .. } => Some(name),
            Self::Address(_) | Self::Service { .. } => None,
        }
    }

    /// The name that must be looked up to connect there.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Host { name, .. } | Self::Service { name } => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service { name } => f.write_str(name),
        }
    }
}
