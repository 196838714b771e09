//! The timeouts and the protocol that a configuration sets for an address: what the kernel half judges by when a connection ends.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use proxytrace_ebpf::abi;

use super::routes::{Addresses, Context, Route, Routes, Upstream};
use crate::model::Address;

/// The settings of a configuration's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsByPeer {
    of_address: HashMap<Address, PeerSettings>,
    of_others: PeerSettings,
}

/// Those of one address, put together over the routes that lead there. What holds for one of several may hold for any of its
/// connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PeerSettings {
    routes: usize,
    connect_timeout_ms: Option<u64>,
    /// Only of requests.
    read_timeouts_ms: BTreeSet<u64>,
    has_other_than_requests: bool,
    is_tls: bool,
    is_unordered: bool,
    streams_body: bool,
    is_kept: bool,
}

impl SettingsByPeer {
    /// A name that `addresses` lack has no address.
    #[must_use]
    pub fn new(routes: &Routes, addresses: &Addresses) -> Self {
        let mut of_address: HashMap<Address, PeerSettings> = HashMap::new();
        let of_upstreams = of_upstreams(routes);
        for (upstream, peer_settings) in routes.upstreams.iter().zip(&of_upstreams) {
            for address in upstream.peers.iter().flat_map(|peer| upstream.addresses(peer, addresses)) {
                of_address.entry(address).or_default().join(peer_settings);
            }
        }
        for address in routes.others.iter().flat_map(|other| other.endpoint.addresses(addresses)) {
            of_address.entry(address).or_default().has_other_than_requests = true;
        }
        Self { of_address, of_others: of_others(routes, &of_upstreams) }
    }

    /// The shortest and the longest time that the proxy waits for bytes of an answer there.
    #[must_use]
    pub fn read_timeouts(&self, address: &Address) -> Option<(Duration, Duration)> {
        let timeouts_ms = &self.of_address.get(address).unwrap_or(&self.of_others).read_timeouts_ms;
        let (shortest, longest) = (timeouts_ms.first()?, timeouts_ms.last()?);
        Some((Duration::from_millis(*shortest), Duration::from_millis(*longest)))
    }

    /// Whether the first bytes that come from there after a request are its answer: they may be a session ticket of TLS, or a frame of
    /// HTTP/2.
    #[must_use]
    pub fn begins_with_an_answer(&self, address: &Address) -> bool {
        let of = self.of_address.get(address).unwrap_or(&self.of_others);
        of.routes > 0 && !of.has_other_than_requests && !of.is_tls && !of.is_unordered
    }

    /// As the kernel half takes them: what holds for every address that has none of its own, and those that differ.
    /// `connect_timeout` is for where no route says how long a connect is waited for.
    pub fn for_kernel(
        &self,
        connect_timeout: Duration,
    ) -> (abi::PeerSettings, impl Iterator<Item = (&Address, abi::PeerSettings)>) {
        let of_others = self.of_others.for_kernel(connect_timeout);
        let own = self
            .of_address
            .iter()
            .map(move |(address, peer_settings)| (address, peer_settings.for_kernel(connect_timeout)));
        (of_others, own.filter(move |(_, peer_settings)| *peer_settings != of_others))
    }
}

/// For each upstream.
fn of_upstreams(routes: &Routes) -> Vec<PeerSettings> {
    let mut all = vec![PeerSettings::default(); routes.upstreams.len()];
    for route in &routes.routes {
        for &index in &route.target.upstreams {
            if let (Some(peer_settings), Some(upstream)) = (all.get_mut(index), routes.upstreams.get(index)) {
                let keeps = upstream.keeps.unwrap_or(routes.keeps_by_default);
                peer_settings.add(routes, route, keeps || upstream.has_more_peers);
            }
        }
    }
    all
}

/// What holds for an address that the configuration does not name: what holds for the routes that may lead there, else for all.
fn of_others(routes: &Routes, of_upstreams: &[PeerSettings]) -> PeerSettings {
    let mut open = PeerSettings::default();
    for route in routes.routes.iter().filter(|route| !route.target.open.is_empty()) {
        // It leads to a host that it names by itself.
        open.add(routes, route, false);
    }
    for (_, peer_settings) in routes.upstreams.iter().zip(of_upstreams).filter(|(one, _)| is_open(one)) {
        open.join(peer_settings);
    }
    if open.routes == 0 {
        of_upstreams.iter().for_each(|peer_settings| open.join(peer_settings));
    }
    open
}

/// Whether it may have addresses that are not known: a name may stand for others when the proxy looks it up than when we do.
fn is_open(upstream: &Upstream) -> bool {
    upstream.has_more_peers || upstream.peers.iter().any(|peer| peer.endpoint.name().is_some())
}

impl PeerSettings {
    fn add(&mut self, routes: &Routes, route: &Route, may_keep: bool) {
        let is_http = routes.servers.get(route.server).is_some_and(|server| server.context == Context::Http);
        self.join(&Self {
            routes: 1,
            connect_timeout_ms: Some(route.connect_timeout_ms),
            read_timeouts_ms: is_http.then_some(route.read_timeout_ms).into_iter().collect(),
            has_other_than_requests: !is_http,
            is_tls: route.is_tls,
            is_unordered: route.is_unordered,
            // TLS has an answer to come before that.
            streams_body: route.streams_body && !route.is_tls,
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
        self.streams_body |= other.streams_body;
        self.is_kept |= other.is_kept;
    }

    fn for_kernel(&self, connect_timeout: Duration) -> abi::PeerSettings {
        let flag = |holds: bool, flag: u32| if holds { flag } else { 0 };
        let connect_timeout = self.connect_timeout_ms.map_or(connect_timeout, Duration::from_millis);
        let mut peer_settings = abi::PeerSettings {
            connect_timeout_ns: u64::try_from(connect_timeout.as_nanos()).unwrap_or(u64::MAX),
            flags: flag(self.routes > 0 && !self.has_other_than_requests, abi::PeerSettings::REQUESTS)
                | flag(self.is_tls, abi::PeerSettings::TLS)
                | flag(self.is_unordered, abi::PeerSettings::UNORDERED)
                | flag(self.streams_body, abi::PeerSettings::STREAMED)
                | flag(self.routes > 0 && !self.is_kept, abi::PeerSettings::ENDS),
            ..abi::PeerSettings::ZERO
        };
        for (slot, ms) in peer_settings.read_timeouts_ms.iter_mut().zip(&self.read_timeouts_ms) {
            *slot = u32::try_from(*ms).unwrap_or(u32::MAX);
        }
        peer_settings
    }
}
