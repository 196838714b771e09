//! How proxies are configured, as far as a guard compares that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{changes, difference};
use crate::{
    declared::{Addresses, Routes},
    watch::Running,
};

/// A configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) routes: Arc<Routes>,
    pub(super) addresses: Addresses,
}

impl Known {
    pub(super) fn of(running: &Running) -> Option<Self> {
        let configuration = running.configuration.as_ref()?;
        let (routes, addresses) =
            (Arc::clone(&configuration.routes), configuration.resolved.addresses.clone());
        Some(Self { routes, addresses })
    }

    /// The upstreams that differ from `before`; all where that is not known.
    pub(super) fn changed(&self, before: Option<&Self>) -> BTreeSet<String> {
        let new = (&*self.routes, &self.addresses);
        before.map_or_else(
            || changes::used(&self.routes),
            |before| changes::changed((&before.routes, &before.addresses), new),
        )
    }
}

/// Configurations, by proxy.
pub(super) type Configurations = BTreeMap<Arc<str>, Known>;

/// What changes in routing; `None` where no proxy's configurations are both known.
pub(super) fn differences(before: &Configurations, after: &Configurations) -> Option<Vec<String>> {
    let both: Vec<_> = after.iter().filter_map(|(proxy, new)| Some((before.get(proxy)?, new))).collect();
    let lines = both.iter().flat_map(|(old, new)| difference::between(&old.routes, &new.routes));
    (!both.is_empty()).then(|| lines.collect())
}
