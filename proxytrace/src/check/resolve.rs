//! Looks host names up as nginx does when it starts, in bounded time.

use std::{sync::Arc, time::Duration};

use tokio::{net::lookup_host, sync::Semaphore, task::JoinSet, time::timeout};

use crate::declared::{Addresses, Routes};

/// At most so many names at once.
const AT_ONCE: usize = 32;
/// For all names together.
const LOOKUPS_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks all names up. A name that got no answer in time is left out: it is neither known to resolve nor not to.
pub async fn all(routes: &Routes) -> Addresses {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut lookups = JoinSet::new();
    for host in routes.hosts().map(str::to_owned) {
        let permits = Arc::clone(&permits);
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let found = lookup_host((host.as_str(), 0)).await;
            let mut addresses: Vec<_> = found.map(Iterator::collect).unwrap_or_default();
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
