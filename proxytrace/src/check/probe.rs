//! Connects to every address once, and says what came of it.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use proxytrace_ebpf::outcome::Outcome;
use serde::Serialize;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{finding::Finding, rules};
use crate::{
    declared::{AddressNames, Addresses, Routes},
    model::Address,
};

/// At most so many connects at once.
const AT_ONCE: usize = 64;
/// For all connects together.
const PROBES_TIMEOUT: Duration = Duration::from_secs(60);

/// What came of a connect.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// Whose address it is.
    pub upstream: String,
    /// Where it is declared: `path:line`.
    pub place: String,
    /// The address.
    pub address: Address,
    /// `established`, `refused` and so on; `not_tried` where the time for all was over.
    pub outcome: &'static str,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    #[serde(skip)]
    meaning: &'static str,
}

/// Connects to each address of an upstream, for at most `each`, or the connect timeout in force if that is shorter.
/// Servers that take datagrams connect by UDP and are left out.
pub async fn all(routes: &Routes, resolved: &Addresses, each: Duration) -> Vec<Probe> {
    let names = AddressNames::new(routes, resolved);
    let upstreams = upstreams_over_tcp(routes);
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let deadline = Instant::now() + PROBES_TIMEOUT;
    let mut probes = JoinSet::new();
    let mut seen = HashSet::new();
    for (upstream, address) in names.declared() {
        if !upstreams.contains(upstream) || !seen.insert(address) {
            continue;
        }
        let Some(named) = names.find(address) else { continue };
        let within = named.connect_timeout.map_or(each, |timeout| timeout.min(each));
        let (upstream, place, address) = (named.upstream.clone(), named.place.clone(), address.clone());
        let permits = Arc::clone(&permits);
        probes.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let start = Instant::now();
            let (outcome, meaning) = if start >= deadline {
                ("not_tried", "the time for all probes was over")
            } else {
                let outcome = connect(&address, within).await;
                (outcome.name(), outcome.words())
            };
            let duration_us = start.elapsed().as_micros() as u64;
            Probe { upstream, place, address, outcome, duration_us, meaning }
        });
    }
    let mut probes = probes.join_all().await;
    probes.sort_by(|one, other| (&one.upstream, &one.address).cmp(&(&other.upstream, &other.address)));
    probes
}

fn upstreams_over_tcp(routes: &Routes) -> HashSet<&str> {
    let over_udp = |server: usize| routes.servers.get(server).is_some_and(|server| server.is_udp);
    let leading = routes.routes.iter().filter(|route| !over_udp(route.server));
    let indexes = leading.flat_map(|route| &route.target.upstreams);
    indexes.filter_map(|&index| routes.upstreams.get(index)).map(|upstream| upstream.name.as_str()).collect()
}

async fn connect(address: &Address, within: Duration) -> Outcome {
    let attempt = async {
        match address {
            Address::Internet(address) => TcpStream::connect(address).await.map(drop),
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    let errno = |error: &io::Error| error.raw_os_error().unwrap_or_default().unsigned_abs();
    match (timeout(within, attempt).await, address) {
        (Err(_), _) => Outcome::TimedOut,
        (Ok(Ok(())), _) => Outcome::Established,
        (Ok(Err(error)), Address::Internet(_)) => Outcome::of_error(errno(&error)),
        (Ok(Err(error)), Address::Unix(_)) => Outcome::of_unix_error(errno(&error)),
    }
}

impl Probe {
    /// `None` where it was established.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        if self.outcome == Outcome::Established.name() {
            return None;
        }
        let Self { upstream, address, outcome, meaning, .. } = self;
        let what = format!("connects to \"{upstream}\" at {address} fail: {outcome}: {meaning}");
        Some(Finding::new(
            &rules::PROBE_FAILED,
            &self.place,
            what,
            "start what should listen there, or correct the address",
        ))
    }
}
