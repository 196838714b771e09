//! What the configuration of one generation declares, as findings ask for it and recordings keep it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    /// nginx may connect to more than stands there: where a request or code says where to.
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
    /// Connections are passed on, and not requests: of any protocol.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stream: bool,
    /// The directive that names the host itself, such as `proxy_pass`; `None` where the lines are those of `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<Arc<str>>,
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
}
