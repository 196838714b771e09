//! Connects to every address as the proxy would: from its network, below its root, as the user of its workers.

use std::{sync::Arc, time::Duration};

use super::probed::Probed;
use crate::{
    check::probe::{self, Manner, Place, Probe, Request},
    declared::{Addresses, Routes},
};

/// For an address, where the connect timeout in force is not shorter.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to each address that something in `routes` leads to, as the process `pid` of `proxy` would. Names that `addresses` lack
/// are looked up there.
///
/// # Errors
/// That was not possible.
pub(super) async fn all(
    proxy: &Arc<str>,
    pid: u32,
    routes: Routes,
    addresses: Option<Addresses>,
) -> anyhow::Result<Vec<Probed>> {
    let place = Place::OfProcess(pid);
    let request = Request { place, routes, addresses, each: TIMEOUT, manner: Manner::Hello };
    let of_proxy = |probe: Probe| {
        let Probe { upstream, place, address, outcome, meaning, duration_us } = probe;
        let proxy = Arc::clone(proxy);
        Probed { proxy, upstream: upstream.into(), place, address, outcome, meaning, duration_us }
    };
    Ok(probe::from(&request).await?.into_iter().map(of_proxy).collect())
}
