//! Looks host names up as nginx does when it starts, in bounded time.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::ifaddrs::getifaddrs;
use tokio::{net::lookup_host, sync::Semaphore, task::JoinSet, time::timeout};

use crate::declared::Addresses;

/// At most so many names at once.
const AT_ONCE: usize = 32;
/// For all names together.
const LOOKUPS_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks all names up. A name that got no answer in time is left out: it is neither known to resolve nor not to.
pub async fn all(hosts: impl IntoIterator<Item = &str>) -> Addresses {
    let families = Families::here();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut lookups = JoinSet::new();
    for host in hosts.into_iter().map(str::to_owned) {
        let permits = Arc::clone(&permits);
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let found = lookup_host((host.as_str(), 0)).await;
            let mut addresses: Vec<_> = found.map(Iterator::collect).unwrap_or_default();
            addresses.retain(|address| families.are_asked_for(address));
            addresses.dedup();
            (host, addresses)
        });
    }
    let mut resolved = Addresses::new();
    let collect = async {
        while let Some(answer) = lookups.join_next().await {
            resolved.extend(answer);
        }
    };
    // What is late stays unknown.
    let _ = timeout(LOOKUPS_TIMEOUT, collect).await;
    resolved
}

/// Of which families this host has addresses besides those of loopback. nginx asks for no others (AI_ADDRCONFIG), so `localhost` is not
/// `::1` where there is no IPv6.
#[derive(Clone, Copy, Debug)]
struct Families {
    has_ipv4: bool,
    has_ipv6: bool,
}

impl Families {
    fn here() -> Self {
        let mut families = Self { has_ipv4: false, has_ipv6: false };
        for address in getifaddrs().into_iter().flatten().filter_map(|interface| interface.address) {
            // As the GNU C library has it: of 127.0.0.0/8 only the usual address counts as none.
            families.has_ipv4 |=
                address.as_sockaddr_in().is_some_and(|address| address.ip() != Ipv4Addr::LOCALHOST);
            families.has_ipv6 |= address.as_sockaddr_in6().is_some_and(|address| !address.ip().is_loopback());
        }
        families
    }

    /// Where neither is seen both are asked for.
    const fn are_asked_for(self, address: &SocketAddr) -> bool {
        let Self { has_ipv4, has_ipv6 } = self;
        has_ipv4 == has_ipv6 || address.is_ipv4() == has_ipv4
    }
}

#[cfg(test)]
mod tests {
    use super::Families;

    #[test]
    fn only_families_that_the_host_has_are_asked_for() {
        let check = |has_ipv4: bool, has_ipv6: bool, expected: [bool; 2]| {
            let families = Families { has_ipv4, has_ipv6 };
            let asked = ["127.0.0.1:0", "[::1]:0"].map(|one| families.are_asked_for(&one.parse().unwrap()));
            assert_eq!(asked, expected);
        };
        check(true, false, [true, false]);
        check(false, true, [false, true]);
        check(true, true, [true, true]);
        check(false, false, [true, true]);
    }
}
