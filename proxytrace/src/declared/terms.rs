//! How long a proxy waits at an address, and what can be told of its answers: what the kernel half judges by when a connection ends.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use proxytrace_ebpf::abi;

use super::routes::{Addresses, Context, Endpoint, Route, Routes, Upstream};
use crate::model::Address;

/// The terms of a configuration's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressTerms {
    of_address: HashMap<Address, Terms>,
    of_others: Terms,
}

/// Those of one address, put together over the routes that lead there. What holds for one of several may hold for any of its
/// connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Terms {
    routes: usize,
    connect_timeout_ms: Option<u64>,
    /// Only of requests.
    read_timeouts_ms: BTreeSet<u64>,
    has_other_than_requests: bool,
    is_tls: bool,
    is_unordered: bool,
    is_kept: bool,
}

impl AddressTerms {
    /// A name that `addresses` lack has no address.
    #[must_use]
    pub fn new(routes: &Routes, addresses: &Addresses) -> Self {
        let mut of_address: HashMap<Address, Terms> = HashMap::new();
        let of_upstreams = of_upstreams(routes);
        for (upstream, terms) in routes.upstreams.iter().zip(&of_upstreams) {
            let endpoints = upstream.peers.iter().map(|peer| &peer.endpoint);
            for address in endpoints.flat_map(|endpoint| endpoint.addresses(addresses)) {
                of_address.entry(address).or_default().join(terms);
            }
        }
        for address in routes.others.iter().flat_map(|other| other.endpoint.addresses(addresses)) {
            of_address.entry(address).or_default().has_other_than_requests = true;
        }
        Self { of_address, of_others: of_others(routes, &of_upstreams, addresses) }
    }

    /// The shortest time that the proxy waits for bytes of an answer there.
    #[must_use]
    pub fn read_timeout(&self, address: &Address) -> Option<Duration> {
        let terms = self.of_address.get(address).unwrap_or(&self.of_others);
        terms.read_timeouts_ms.first().copied().map(Duration::from_millis)
    }

    /// As the kernel half takes them: what holds for every address that has none of its own, and those that differ.
    /// `connect_timeout` is for where no route says how long a connect is waited for.
    pub fn for_kernel(
        &self,
        connect_timeout: Duration,
    ) -> (abi::Terms, impl Iterator<Item = (&Address, abi::Terms)>) {
        let of_others = self.of_others.for_kernel(connect_timeout);
        let own =
            self.of_address.iter().map(move |(address, terms)| (address, terms.for_kernel(connect_timeout)));
        (of_others, own.filter(move |(_, terms)| *terms != of_others))
    }
}

/// For each upstream.
fn of_upstreams(routes: &Routes) -> Vec<Terms> {
    let mut all = vec![Terms::default(); routes.upstreams.len()];
    for route in &routes.routes {
        for &index in &route.target.upstreams {
            if let (Some(terms), Some(upstream)) = (all.get_mut(index), routes.upstreams.get(index)) {
                let may_keep = upstream.is_kept || upstream.has_more_peers || routes.keeps_by_default;
                terms.add(routes, route, may_keep);
            }
        }
    }
    all
}

/// What holds for an address that the configuration does not name: what holds for the routes that may lead there, else for all.
fn of_others(routes: &Routes, of_upstreams: &[Terms], addresses: &Addresses) -> Terms {
    let mut open = Terms::default();
    for route in routes.routes.iter().filter(|route| !route.target.open.is_empty()) {
        open.add(routes, route, routes.keeps_by_default);
    }
    for (_, terms) in routes.upstreams.iter().zip(of_upstreams).filter(|(one, _)| is_open(one, addresses)) {
        open.join(terms);
    }
    if open.routes == 0 {
        of_upstreams.iter().for_each(|terms| open.join(terms));
    }
    open
}

/// Whether it may have addresses that are not known.
fn is_open(upstream: &Upstream, addresses: &Addresses) -> bool {
    let is_unknown = |endpoint: &Endpoint| endpoint.name().is_some_and(|name| !addresses.contains_key(name));
    upstream.has_more_peers || upstream.peers.iter().any(|peer| peer.resolve || is_unknown(&peer.endpoint))
}

impl Terms {
    fn add(&mut self, routes: &Routes, route: &Route, may_keep: bool) {
        let is_http = routes.servers.get(route.server).is_some_and(|server| server.context == Context::Http);
        self.join(&Self {
            routes: 1,
            connect_timeout_ms: Some(route.connect_timeout_ms),
            read_timeouts_ms: is_http.then_some(route.read_timeout_ms).into_iter().collect(),
            has_other_than_requests: !is_http,
            is_tls: route.is_tls,
            is_unordered: route.is_unordered,
            is_kept: is_http && may_keep,
        });
    }

    fn join(&mut self, other: &Self) {
        self.routes += other.routes;
        self.connect_timeout_ms = self.connect_timeout_ms.into_iter().chain(other.connect_timeout_ms).min();
        self.read_timeouts_ms.extend(&other.read_timeouts_ms);
        self.has_other_than_requests |= other.has_other_than_requests;
        self.is_tls |= other.is_tls;
        self.is_unordered |= other.is_unordered;
        self.is_kept |= other.is_kept;
    }

    fn for_kernel(&self, connect_timeout: Duration) -> abi::Terms {
        let flag = |holds: bool, flag: u32| if holds { flag } else { 0 };
        let connect_timeout = self.connect_timeout_ms.map_or(connect_timeout, Duration::from_millis);
        let mut terms = abi::Terms {
            connect_timeout_ns: u64::try_from(connect_timeout.as_nanos()).unwrap_or(u64::MAX),
            flags: flag(self.routes > 0 && !self.has_other_than_requests, abi::Terms::REQUESTS)
                | flag(self.is_tls, abi::Terms::TLS)
                | flag(self.is_unordered, abi::Terms::UNORDERED)
                | flag(self.routes > 0 && !self.is_kept, abi::Terms::ENDS),
            ..abi::Terms::ZERO
        };
        for (slot, ms) in terms.read_timeouts_ms.iter_mut().zip(&self.read_timeouts_ms) {
            *slot = u32::try_from(*ms).unwrap_or(u32::MAX);
        }
        terms
    }
}
