//! Host names as the C library would look them up where a proxy runs: /etc/hosts, then the name servers of
//! /etc/resolv.conf, both below its root. The C library itself cannot be asked: it would run code from there.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    dns::{self, Found},
    protocol::{FoundName, Lookup, Resolved},
    root::Root,
};
use crate::{declared::Endpoint, model::Address};

/// At most so many names at once.
const AT_ONCE: usize = 32;

/// For all names of a request together: less than what the request itself may take.
const LOOKUPS_TIMEOUT: Duration = Duration::from_secs(8);

/// For those of a reload that was rejected: less than it is waited for the reason.
const MOMENT: Duration = Duration::from_millis(700);

const PORT: u16 = 53;

/// resolv.conf(5): MAXNS.
const MAX_SERVERS: usize = 3;

/// What the C library goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct System {
    /// /etc/hosts, names in lower case.
    hosts: HashMap<String, Vec<IpAddr>>,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with so many dots is asked for as it is first.
    ndots: usize,
}

impl System {
    pub(super) fn of(root: &Root) -> Self {
        Self::new(&root.text("/etc/hosts"), &root.text("/etc/resolv.conf"))
    }

    fn new(hosts: &str, resolv: &str) -> Self {
        let mut system = Self { hosts: HashMap::new(), servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            for name in words {
                system.hosts.entry(name.to_ascii_lowercase()).or_default().push(ip);
            }
        }
        for line in resolv.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|word| word.parse().ok());
                    system.servers.extend(ip.map(|ip: IpAddr| SocketAddr::new(ip, PORT)));
                }
                Some("search" | "domain") => system.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    system.ndots = ndots.unwrap_or(system.ndots);
                }
                _ => {}
            }
        }
        if system.servers.is_empty() {
            system.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        system.servers.truncate(MAX_SERVERS);
        system
    }

    /// What to ask for, in that order, until there is an address.
    fn candidates(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.trim_end_matches('.').to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let is_first = host.matches('.').count() >= self.ndots;
        names.insert(if is_first { 0 } else { names.len() }, host.to_owned());
        names
    }

    async fn resolve(&self, host: &str) -> io::Result<Found<IpAddr>> {
        if let Some(ips) = self.hosts.get(&host.to_ascii_lowercase()) {
            return Ok(Found { all: ips.clone(), ttl: None });
        }
        let mut found = Found::NOTHING;
        for name in self.candidates(host) {
            found = ask_any(&self.servers, |server| dns::addresses(server, &name)).await?;
            if !found.all.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// Whether a file says what it is, so that nobody is asked.
    fn is_in_hosts(&self, lookup: &Lookup) -> bool {
        let is_of_system = lookup.servers.is_empty() && !lookup.is_service;
        is_of_system && self.hosts.contains_key(&lookup.name.to_ascii_lowercase())
    }

    async fn look_up(&self, lookup: &Lookup) -> io::Result<Found<SocketAddr>> {
        if lookup.servers.is_empty() && !lookup.is_service {
            return Ok(at_port(self.resolve(&lookup.name).await?, 0));
        }
        // nginx's own resolver knows neither /etc/hosts nor search domains.
        let (servers, name) = (self.servers_for(lookup).await?, lookup.name.trim_end_matches('.'));
        if lookup.is_service {
            return ask_for_service(&servers, name).await;
        }
        Ok(at_port(ask_any(&servers, |server| dns::addresses(server, name)).await?, 0))
    }

    async fn servers_for(&self, lookup: &Lookup) -> io::Result<Vec<SocketAddr>> {
        let mut servers = Vec::new();
        for server in &lookup.servers {
            match server {
                Endpoint::Address(Address::Internet(address)) => servers.push(*address),
                Endpoint::Address(Address::Unix(_)) | Endpoint::Service { .. } => {}
                Endpoint::Host { name, port } => {
                    let ips = self.resolve(name).await?.all;
                    servers.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, *port)));
                }
            }
        }
        Ok(servers)
    }
}

/// The addresses of all hosts that the SRV records of `name` lead to; one of them that nobody answers for would be missed.
async fn ask_for_service(servers: &[SocketAddr], name: &str) -> io::Result<Found<SocketAddr>> {
    let targets = ask_any(servers, |server| dns::targets(server, name)).await?;
    let mut found = Found { all: Vec::new(), ttl: targets.ttl };
    for dns::Target { host, port } in targets.all {
        let of_host = ask_any(servers, |server| dns::addresses(server, &host)).await?;
        found = found.and(at_port(of_host, port));
    }
    Ok(found)
}

fn at_port(Found { all, ttl }: Found<IpAddr>, port: u16) -> Found<SocketAddr> {
    Found { all: all.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(), ttl }
}

/// The answer of the first server that gives one.
async fn ask_any<T, Asked>(servers: &[SocketAddr], ask: impl Fn(SocketAddr) -> Asked) -> io::Result<Found<T>>
where
    Asked: Future<Output = io::Result<Found<T>>>,
{
    let mut last = io::Error::other("no name server is configured");
    for &server in servers {
        match ask(server).await {
            Ok(found) => return Ok(found),
            Err(error) => last = io::Error::new(error.kind(), format!("{server}: {error}")),
        }
    }
    Err(last)
}

/// Looks all names up, in this process's network namespace.
pub(super) fn look_up(system: System, lookups: Vec<Lookup>) -> io::Result<Resolved> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(look_up_all(Arc::new(system), lookups)))
}

/// The first of these names that does not resolve, as far as that is known in a moment: somebody waits for it.
pub(super) fn first_missing(system: System, names: &[String]) -> io::Result<Option<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let (permits, system) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(system));
        let mut tasks = JoinSet::new();
        for (index, name) in names.iter().cloned().enumerate() {
            let (permits, system) = (Arc::clone(&permits), Arc::clone(&system));
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let found = system.resolve(&name).await;
                // A server that is silent, or fails, says nothing.
                (index, found.is_ok_and(|found| found.all.is_empty()))
            });
        }
        let mut missing: Option<usize> = None;
        let collect = async {
            while let Some(Ok((index, is_missing))) = tasks.join_next().await {
                missing = missing.into_iter().chain(is_missing.then_some(index)).min();
            }
        };
        let _ = timeout(MOMENT, collect).await;
        missing.and_then(|index| names.get(index).cloned())
    }))
}

async fn look_up_all(system: Arc<System>, lookups: Vec<Lookup>) -> Resolved {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut waiting: BTreeSet<_> = lookups.iter().map(Lookup::key).collect();
    let mut tasks = JoinSet::new();
    for lookup in lookups {
        let (permits, system) = (Arc::clone(&permits), Arc::clone(&system));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let found = system.look_up(&lookup).await;
            (lookup.key(), lookup.name.clone(), system.is_in_hosts(&lookup), found)
        });
    }
    let mut resolved = Resolved::default();
    let collect = async {
        while let Some(Ok((key, name, is_of_file, found))) = tasks.join_next().await {
            waiting.remove(&key);
            match found {
                Ok(Found { all: mut addresses, ttl: ttl_seconds }) => {
                    addresses.sort_unstable();
                    addresses.dedup();
                    resolved.found.push(FoundName { key, addresses, ttl_seconds, is_of_file });
                }
                Err(error) => resolved.problems.push(format!("{name:?} could not be looked up: {error}")),
            }
        }
    };
    if timeout(LOOKUPS_TIMEOUT, collect).await.is_err() {
        let late =
            waiting.iter().map(|name| format!("{name:?} could not be looked up in {LOOKUPS_TIMEOUT:?}"));
        resolved.problems.extend(late);
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::System;

    #[test]
    fn hosts_and_resolv_conf_are_read_as_the_c_library_does() {
        let system = System::new(
            "127.0.0.1 localhost\n# 10.0.0.9 not\n10.0.0.5\tApp app.internal # the app\n2001:db8::5 app\n",
            "search a.example b.example\nnameserver 10.0.0.2\nnameserver 2001:db8::2\noptions timeout:1 ndots:2\n",
        );
        assert_eq!(system.hosts["app"].len(), 2);
        assert!(!system.hosts.contains_key("not"));
        let servers: Vec<_> = system.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.2:53", "[2001:db8::2]:53"]);
        let check = |host: &str, expected: &[&str]| assert_eq!(system.candidates(host), expected, "{host}");
        check("app", &["app.a.example", "app.b.example", "app"]);
        check("app.x", &["app.x.a.example", "app.x.b.example", "app.x"]);
        check("app.x.y", &["app.x.y", "app.x.y.a.example", "app.x.y.b.example"]);
        check("app.", &["app"]);
    }

    #[test]
    fn nothing_said_means_a_server_on_this_host() {
        let system = System::new("", "");
        assert_eq!(system.servers[0].to_string(), "127.0.0.1:53");
        assert_eq!(system.candidates("app"), ["app"]);
    }
}
