//! Where a configuration sends requests: servers and locations, the upstreams that they pass to, and the peers of those.

use std::{collections::HashMap, net::SocketAddr};

use nginx_conf::{Config, Directive};
use serde::{Deserialize, Serialize};

use crate::model::Address;

/// What names resolve to: hosts to addresses with port 0, services to addresses with the ports of their SRV records. A name
/// is missing that nobody answered for.
pub type Addresses = HashMap<String, Vec<SocketAddr>>;

/// A configuration with more servers, upstreams, peers and routes is too large: a proxy needs no more, and a hostile one could
/// make as many as fit into the memory of its reader.
pub const MAX_ENTRIES: usize = 65_536;

/// All routes of a configuration. Crosses pipes and HTTP as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Routes {
    /// `upstream` blocks, then the hosts that directives name themselves, each in the order of the configuration.
    pub upstreams: Vec<Upstream>,
    /// All servers, also those that pass nothing on.
    pub servers: Vec<Server>,
    /// Every directive that passes requests or connections on, in the order of the configuration.
    pub routes: Vec<Route>,
    /// What nginx connects to besides upstreams.
    pub others: Vec<Other>,
    /// There are servers in `mail { }`, which connect to wherever the answers of `auth_http` say.
    pub has_mail: bool,
}

/// Which half of nginx something belongs to; each has upstreams of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// `http { }`.
    Http,
    /// `stream { }`.
    Stream,
}

/// A group of peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// The `upstream` block's name, or the host in `proxy_pass` and its kin, without port; `unix:` and the path for a socket.
    pub name: String,
    /// `path:line` of the block, or of the first directive that names the host.
    pub place: String,
    /// Where it can be used.
    pub context: Context,
    /// Named by a directive such as `proxy_pass` itself, without a block.
    pub is_implicit: bool,
    /// Those listed are not all of its peers: Lua code chooses them (`balancer_by_lua`), or they are set while nginx runs
    /// and kept in a file (`state`).
    pub has_more_peers: bool,
    /// In the order of the configuration.
    pub peers: Vec<Peer>,
    /// What resolves peers whose names are followed, where the block itself or `http { }` has one.
    pub resolver: Option<Resolver>,
}

/// A `server` line of an upstream.
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
    /// Its host's addresses are followed while nginx runs (`resolve`, or a name that came out of a variable); otherwise they
    /// are looked up when the configuration is read.
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
    /// What the SRV records of a name say (`service=`).
    Service {
        /// The name, such as `_http._tcp.app.example`.
        name: String,
    },
}

/// A `server { }`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// Where it can be found.
    pub context: Context,
    /// The address of each `listen`, as it is written; `*:80` in http where there is none.
    pub listen: Vec<String>,
    /// As they are written.
    pub names: Vec<String>,
    /// It takes datagrams (`listen ... udp`), and so it connects by UDP.
    pub is_udp: bool,
}

/// A directive that passes requests or connections on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// An index into [`Routes::servers`].
    pub server: usize,
    /// The location, as it is written (`/api/`, `~ \.php$`, `@fallback`), in the locations, `if` and `limit_except` that it
    /// stands in, outermost first; empty in stream.
    pub location: Vec<String>,
    /// `proxy_pass`, `fastcgi_pass` and so on.
    pub directive: String,
    /// `path:line` of the directive.
    pub place: String,
    /// Where it leads.
    pub target: Target,
    /// How long nginx waits for a connect here.
    pub connect_timeout_ms: u64,
    /// What resolves names here that come out of variables.
    pub resolver: Option<Resolver>,
}

/// Where a route leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// As it is written.
    pub text: String,
    /// Where it can lead, as far as that can be told: indexes into [`Routes::upstreams`].
    pub upstreams: Vec<usize>,
    /// What remains of it where a variable is known only when a request comes; empty where `upstreams` are all.
    pub variables: Vec<String>,
}

/// A `resolver` line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resolver {
    /// The servers.
    pub servers: Vec<Endpoint>,
    /// How long an answer holds, where that is not left to the answer (`valid=`).
    pub valid_ms: Option<u64>,
}

/// What nginx connects to on its own account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Other {
    /// `resolver`, `ocsp` or `auth_http`.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// `path:line` of the directive.
    pub place: String,
}

/// How many servers, upstreams, peers and routes a configuration has, or a few more: what its routes take grows with that.
#[must_use]
pub fn entries(config: &Config) -> usize {
    fn within(directives: &[Directive]) -> usize {
        let is_entry = |name: &str| matches!(name, "server" | "upstream") || name.ends_with("_pass");
        let entry = |directive: &Directive| {
            usize::from(is_entry(&directive.name.text)) + within(directive.children())
        };
        directives.iter().map(entry).sum()
    }
    within(&config.directives)
}

impl Routes {
    /// The host names whose addresses must be known to name what nginx connects to, each once.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let mut seen = std::collections::HashSet::new();
        self.endpoints().filter_map(Endpoint::host).filter(move |host| seen.insert(*host))
    }

    /// What nginx looks up while it runs, each name once, with the resolver that it asks.
    pub fn followed(&self) -> impl Iterator<Item = (&Endpoint, Option<&Resolver>)> {
        let mut seen = std::collections::HashSet::new();
        let peers = self.upstreams.iter().flat_map(|upstream| {
            let peers = upstream.peers.iter().filter(|peer| peer.resolve);
            peers.map(|peer| (&peer.endpoint, upstream.resolver.as_ref()))
        });
        peers.filter(move |(endpoint, _)| endpoint.name().is_some_and(|name| seen.insert(name)))
    }

    /// Whether nginx looks names up while it runs, so that addresses must be followed.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followed().next().is_some()
    }

    /// Whether nginx may connect to what the configuration alone cannot tell: variables that only a request fills, peers
    /// that are not listed, mail, or services that `addresses` (as for [`Endpoint::addresses`]) lack.
    #[must_use]
    pub fn is_open(&self, addresses: &Addresses) -> bool {
        let is_unknown = |peer: &Peer| match &peer.endpoint {
            Endpoint::Service { name } => !addresses.contains_key(name),
            Endpoint::Address(_) | Endpoint::Host { .. } => false,
        };
        self.has_mail
            || self.upstreams.iter().any(|one| one.has_more_peers || one.peers.iter().any(is_unknown))
            || self.routes.iter().any(|route| !route.target.variables.is_empty())
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let peers = self.upstreams.iter().flat_map(|upstream| &upstream.peers).map(|peer| &peer.endpoint);
        peers.chain(self.others.iter().map(|other| &other.endpoint))
    }
}

impl Endpoint {
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
