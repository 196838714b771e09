//! What the configuration of one generation declares, as findings ask for it and recordings keep it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Address;

/// One generation of one proxy. Can be recorded, beside what it [`Declared`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// Its first process, as in [`Counted::pid`](super::Counted::pid).
    pub pid: u32,
    /// How often it was reloaded.
    #[serde(rename = "generation")]
    pub number: u32,
}

/// The upstreams of a configuration with their addresses. Can be recorded, so that a replay knows what the live trace knew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// By name.
    pub upstreams: BTreeMap<Arc<str>, Upstream>,
    /// nginx may connect to more than stands there: where a request or code says where to, or where the file was changed since nginx
    /// has read it.
    #[serde(default)]
    pub is_open: bool,
    /// nginx looks names up while it runs, so that it may know an address a little earlier than we do.
    #[serde(default)]
    pub is_followed: bool,
}

/// An upstream as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Each address with the `path:line` that it comes from.
    pub addresses: BTreeMap<Address, Arc<str>>,
    /// Those that are used when the others fail only.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub backups: BTreeSet<Address>,
    /// Those of which every line says `down`: the proxy connects to none of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub down: BTreeSet<Address>,
    /// Connections are passed on, and not requests: of any protocol.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stream: bool,
    /// The directive that names the host itself, such as `proxy_pass`; `None` where the lines are those of `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<Arc<str>>,
    /// No route of the configuration leads to it, as far as routes say where they lead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unused: bool,
    /// Its hosts that are names, each once for each port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<HostName>,
}

/// A host of an upstream that is a name: the proxy may have found other addresses of it than we do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostName {
    /// The name.
    pub name: Arc<str>,
    /// The port at each of its addresses.
    pub port: u16,
    /// `path:line` of the first line that has it.
    pub place: Arc<str>,
    /// The proxy looks it up while it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_followed: bool,
    /// What it resolves to now, where that is known. Of one that is followed only the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<NameNow>,
}

/// What the look-ups of the last minutes say of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameNow {
    /// Its addresses in the last one.
    pub addresses: BTreeSet<IpAddr>,
    /// Since when the answers are those.
    pub since: Timestamp,
    /// Those of the ones before that are not among them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub before: BTreeSet<IpAddr>,
    /// They differ again and again: a balancer hands out some of many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rotates: bool,
    /// They are enough to say that it has no other address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_settled: bool,
}

impl Declared {
    /// The upstreams that have this address.
    pub fn upstreams_of<'a>(&'a self, address: &'a Address) -> impl Iterator<Item = &'a Arc<str>> {
        self.upstreams
            .iter()
            .filter(|(_, upstream)| upstream.addresses.contains_key(address))
            .map(|(name, _)| name)
    }

    /// Whether this upstream has this address.
    #[must_use]
    pub fn has(&self, upstream: &str, address: &Address) -> bool {
        self.upstreams.get(upstream).is_some_and(|upstream| upstream.addresses.contains_key(address))
    }

    /// Whether this upstream has this address, and connects to it.
    #[must_use]
    pub fn uses(&self, upstream: &str, address: &Address) -> bool {
        let upstream = self.upstreams.get(upstream);
        upstream.is_some_and(|upstream| {
            upstream.addresses.contains_key(address) && !upstream.down.contains(address)
        })
    }

    /// Whether something may lead to this upstream: a route does, or something chooses that the configuration does not tell.
    #[must_use]
    pub fn may_lead_to(&self, upstream: &str) -> bool {
        self.is_open || self.upstreams.get(upstream).is_some_and(|upstream| !upstream.is_unused)
    }

    /// Whether the upstream may have this address: one of its hosts is a name with that port.
    #[must_use]
    pub fn may_have(&self, upstream: &str, address: &Address) -> bool {
        self.upstreams.get(upstream).is_some_and(|upstream| upstream.name_at(address).is_some())
    }
}

impl Upstream {
    /// The first of its hosts that is a name and may stand for an address.
    #[must_use]
    pub fn name_at(&self, address: &Address) -> Option<&HostName> {
        let is_internet = matches!(address, Address::Internet(_));
        self.names.iter().find(|name| is_internet && name.port == address.port())
    }

    /// Whether an address is one that a name had which the proxy follows, and that the name does not have any more.
    #[must_use]
    pub fn has_moved_from(&self, address: &Address) -> bool {
        let Address::Internet(at) = address else { return false };
        let has_left = |name: &HostName| {
            let now = name.now.as_ref().filter(|_| name.is_followed);
            now.is_some_and(|now| !now.addresses.contains(&at.ip().to_canonical()))
        };
        let mut at_port = self.names.iter().filter(|name| name.port == at.port()).peekable();
        at_port.peek().is_some() && at_port.all(has_left)
    }
}
