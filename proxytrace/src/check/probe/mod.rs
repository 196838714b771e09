//! Connects to every address once, as nginx would, and says what came of it.

mod elsewhere;
mod hello;
mod place;
mod running;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use proxytrace_ebpf::outcome::Outcome;
use serde::{Deserialize, Serialize};
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
pub use elsewhere::{COMMAND, Request, from, serve};
use hello::Hello;
pub use place::Place;
pub use running::{Running, config_of, runs_as_we_do};

/// At most so many connects at once.
const AT_ONCE: usize = 64;
/// For all connects together.
const PROBES_TIMEOUT: Duration = Duration::from_secs(60);

/// What is done at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Connect alone.
    Connect,
    /// And say what TLS, HTTP/2 of gRPC and FastCGI begin with, where one of them is spoken there.
    #[default]
    Hello,
}

/// What came of a connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Whose address it is.
    pub upstream: String,
    /// Where it is declared: `path:line`.
    pub place: String,
    /// The address.
    pub address: Address,
    /// `established`, `refused` and so on; `not_tried` where the time for all was over.
    pub outcome: String,
    /// The same in words.
    pub meaning: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

/// Connects to each address of an upstream, for at most `each`, or the connect timeout in force if that is shorter; an answer is
/// waited for as long again. Servers that take datagrams connect by UDP and are left out; so is what stands in an upstream whose
/// peers code chooses.
pub async fn all(routes: &Routes, resolved: &Addresses, each: Duration, manner: Manner) -> Vec<Probe> {
    let names = AddressNames::new(routes, resolved);
    let hellos = hellos(routes, resolved);
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let deadline = Instant::now() + PROBES_TIMEOUT;
    let mut probes = JoinSet::new();
    let mut seen = HashSet::new();
    for (_, address) in names.declared() {
        let Some(hello) = hellos.get(address).filter(|_| seen.insert(address)) else { continue };
        let hello = hello.filter(|_| manner == Manner::Hello);
        let Some(named) = names.find(address) else { continue };
        let within = named.connect_timeout.map_or(each, |timeout| timeout.min(each));
        let (upstream, place, address) = (named.upstream.clone(), named.place.clone(), address.clone());
        let permits = Arc::clone(&permits);
        probes.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let start = Instant::now();
            let (outcome, meaning) = if start >= deadline {
                ("not_tried", "the time for all probes was over".to_owned())
            } else {
                meet(&address, hello, within, each).await
            };
            let duration_us = start.elapsed().as_micros() as u64;
            Probe { upstream, place, address, outcome: outcome.to_owned(), meaning, duration_us }
        });
    }
    let mut probes = probes.join_all().await;
    probes.sort_by(|one, other| (&one.upstream, &one.address).cmp(&(&other.upstream, &other.address)));
    probes
}

/// What is said first at each address that something leads to by TCP; nothing where routes do not agree on that.
fn hellos(routes: &Routes, resolved: &Addresses) -> HashMap<Address, Option<Hello>> {
    let over_udp = |server: usize| routes.servers.get(server).is_some_and(|server| server.is_udp);
    let mut hellos: HashMap<Address, Option<Hello>> = HashMap::new();
    for route in routes.routes.iter().filter(|route| !over_udp(route.server)) {
        let hello = Hello::of(route);
        let upstreams = route.target.upstreams.iter().filter_map(|&index| routes.upstreams.get(index));
        for peer in upstreams.filter(|upstream| !upstream.is_chosen).flat_map(|upstream| &upstream.peers) {
            for address in peer.endpoint.addresses(resolved) {
                let known = hellos.entry(address).or_insert(hello);
                if *known != hello {
                    *known = None;
                }
            }
        }
    }
    hellos
}

async fn meet(
    address: &Address,
    hello: Option<Hello>,
    within: Duration,
    answer_within: Duration,
) -> (&'static str, String) {
    let of = |outcome: Outcome| (outcome.name(), outcome.words().to_owned());
    let told = match address {
        Address::Internet(address) => match connected(TcpStream::connect(address), within).await {
            Ok(stream) => hello::say(hello, stream, answer_within).await,
            Err(None) => return of(Outcome::TimedOut),
            Err(Some(errno)) => return of(Outcome::of_error(errno)),
        },
        Address::Unix(path) => match connected(UnixStream::connect(path), within).await {
            Ok(stream) => hello::say(hello, stream, answer_within).await,
            Err(None) => return of(Outcome::TimedOut),
            Err(Some(errno)) => return of(Outcome::of_unix_error(errno)),
        },
    };
    told.map_or_else(|unwell| (unwell.outcome, unwell.meaning), |()| of(Outcome::Established))
}

/// The connection, or its error; none of those where it took too long.
async fn connected<S>(
    connect: impl Future<Output = io::Result<S>>,
    within: Duration,
) -> Result<S, Option<u32>> {
    match timeout(within, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Some(error.raw_os_error().unwrap_or_default().unsigned_abs())),
        Err(_) => Err(None),
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
