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
        let (routes, addresses) = (Arc::clone(&configuration.routes), configuration.resolved.clone());
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

/// What a change has changed in routing, and is so still.
pub(super) fn remains(
    before: &Configurations,
    change: &Configurations,
    now: &Configurations,
) -> impl Iterator<Item = String> {
    let [by_change, now] = [change, now].map(|all| differences(before, all).unwrap_or_default());
    by_change.into_iter().filter(move |line| now.contains(line))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Configurations, Known, remains};
    use crate::{declared::Addresses, nginx::tests::routes_of};

    fn with_api(port: u16) -> Configurations {
        let text = format!(
            "http {{ upstream api {{ server 10.0.0.5:{port}; }} server {{ listen 80; location / {{ proxy_pass http://api; }} }} }}"
        );
        let known = Known { routes: Arc::new(routes_of(&text)), addresses: Addresses::new() };
        Configurations::from([("nginx".into(), known)])
    }

    #[test]
    fn what_is_as_the_change_left_it_remains() {
        let check = |[before, change, now]: [u16; 3], expected: usize| {
            let all = [before, change, now].map(with_api);
            assert_eq!(remains(&all[0], &all[1], &all[2]).count(), expected);
        };
        check([80, 81, 80], 0);
        check([80, 81, 81], 1);
        check([80, 80, 80], 0);
        // Somebody else's is another one.
        check([80, 81, 82], 0);
        let nothing = Configurations::new();
        assert_eq!(remains(&nothing, &with_api(81), &with_api(81)).count(), 0);
    }
}
