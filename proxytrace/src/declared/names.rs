//! Which upstream an address belongs to.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use super::routes::{Addresses, Routes};
use crate::model::Address;

/// As many upstreams of one address are named as fit into so many bytes, and at least so many; the rest is counted.
const MAX_NAMED_BYTES: usize = 256;
const MIN_NAMED: usize = 3;
/// So many upstreams whose peers code chooses are named besides.
const MAX_CHOSEN: usize = 4;

/// The names of the addresses that a configuration declares.
#[derive(Clone, Debug, Default)]
pub struct AddressNames {
    named: HashMap<Address, Named>,
    /// By addresses with port 0: those that are named with whatever port.
    any_port: HashMap<Address, Named>,
    declared: Vec<(String, Address)>,
}

/// What the configuration says about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The upstream; where several have this address, their names in the order of the configuration, joined by `,`: three or
    /// more, then `+` and how many more.
    pub upstream: String,
    /// `path:line` of the first line that has the address.
    pub place: String,
    /// The shortest time that the proxy waits for a connect, over the routes that lead there; `None` where no route does.
    pub connect_timeout: Option<Duration>,
}

impl AddressNames {
    /// A name that `addresses` lack has none.
    #[must_use]
    pub fn new(routes: &Routes, addresses: &Addresses) -> Self {
        let timeouts = shortest_timeouts(routes);
        let mut index = Index::default();
        let chosen = chosen(routes);
        for (upstream, timeout) in routes.upstreams.iter().zip(&timeouts) {
            for peer in &upstream.peers {
                for address in upstream.addresses(peer, addresses) {
                    index.add(address, &upstream.name, &peer.place, *timeout);
                }
            }
        }
        // What code chooses may be any of them: then it is not known whose a connect is.
        for (number, upstream) in routes.upstreams.iter().enumerate() {
            for &other in chosen.iter().filter(|other| **other != number) {
                for peer in &upstream.peers {
                    for address in upstream.addresses(peer, addresses) {
                        index.name(address, &routes.upstreams[other].name, &peer.place, timeouts[other]);
                    }
                }
            }
        }
        for other in &routes.others {
            for address in other.endpoint.addresses(addresses) {
                // No upstream: what connects there needs a name, but nobody waits for such a connect.
                index.name(address, &other.name, &other.place, None);
            }
        }
        let mut any_port = Index::default();
        for other in &routes.any_port {
            for address in other.endpoint.addresses(addresses) {
                any_port.name(address, &other.name, &other.place, None);
            }
        }
        AddressNames { any_port: any_port.finish().named, ..index.finish() }
    }

    /// What an address is called; `None` for one that the configuration does not name.
    #[must_use]
    pub fn find(&self, address: &Address) -> Option<&Named> {
        self.named.get(address).or_else(|| match address {
            Address::Internet(address) => {
                self.any_port.get(&Address::Internet(SocketAddr::new(address.ip(), 0)))
            }
            Address::Unix(_) => None,
        })
    }

    /// Each upstream with each of its addresses, once.
    pub fn declared(&self) -> impl Iterator<Item = (&str, &Address)> {
        self.declared.iter().map(|(upstream, address)| (upstream.as_str(), address))
    }
}

/// The numbers of upstreams that something leads to, and whose peers code chooses.
fn chosen(routes: &Routes) -> Vec<usize> {
    let is_used = |number: &usize| routes.routes.iter().any(|route| route.target.upstreams.contains(number));
    let numbers = routes.upstreams.iter().enumerate().filter(|(_, upstream)| upstream.is_chosen);
    numbers.map(|(number, _)| number).filter(is_used).take(MAX_CHOSEN).collect()
}

/// For each upstream.
fn shortest_timeouts(routes: &Routes) -> Vec<Option<Duration>> {
    let mut shortest = vec![None; routes.upstreams.len()];
    for route in &routes.routes {
        let timeout = Duration::from_millis(route.connect_timeout_ms);
        for &upstream in &route.target.upstreams {
            if let Some(known) = shortest.get_mut(upstream) {
                *known = shorter(*known, Some(timeout));
            }
        }
    }
    shortest
}

/// `None` is no time at all.
fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// Names while they are collected.
#[derive(Default)]
struct Index<'a> {
    of_address: HashMap<Address, (Vec<&'a str>, Named)>,
    /// Which names an address has: it may have as many as there are upstreams.
    seen: HashSet<(Address, &'a str)>,
    declared: Vec<(String, Address)>,
}

impl<'a> Index<'a> {
    fn add(&mut self, address: Address, upstream: &'a str, place: &str, timeout: Option<Duration>) {
        if self.name(address.clone(), upstream, place, timeout) {
            self.declared.push((upstream.to_owned(), address));
        }
    }

    /// Whether that name of the address is new.
    fn name(&mut self, address: Address, upstream: &'a str, place: &str, timeout: Option<Duration>) -> bool {
        let is_new = self.seen.insert((address.clone(), upstream));
        let (upstreams, named) = self.of_address.entry(address).or_insert_with(|| {
            let named = Named { upstream: String::new(), place: place.to_owned(), connect_timeout: None };
            (Vec::new(), named)
        });
        named.connect_timeout = shorter(named.connect_timeout, timeout);
        if is_new {
            upstreams.push(upstream);
        }
        is_new
    }

    fn finish(self) -> AddressNames {
        let named = self
            .of_address
            .into_iter()
            .map(|(address, (upstreams, named))| (address, Named { upstream: joined(&upstreams), ..named }));
        AddressNames { named: named.collect(), declared: self.declared, any_port: HashMap::new() }
    }
}

fn joined(upstreams: &[&str]) -> String {
    let mut bytes = 0;
    let fit = upstreams.iter().take_while(|name| {
        bytes += name.len() + 1;
        bytes <= MAX_NAMED_BYTES
    });
    let (named, rest) = upstreams.split_at(fit.count().max(MIN_NAMED).min(upstreams.len()));
    let named = named.join(",");
    if rest.is_empty() { named } else { format!("{named}+{}", rest.len()) }
}
