//! Which upstreams share addresses. What is counted at such an address goes by all of their names at once ([`AddressNames`]), as nobody can
//! tell whose a connect is: each of them is as that row is, which has the numbers.
//!
//! [`AddressNames`]: crate::declared::AddressNames

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    model::{Key, UpstreamKey},
    watch::View,
};

/// Which upstreams share addresses.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Of an upstream, the rows that it has with others; of such a row, the upstreams.
    with: BTreeMap<UpstreamKey, BTreeSet<Arc<str>>>,
    /// Whose addresses are all such, and have counted nothing themselves.
    wholly: BTreeSet<UpstreamKey>,
    /// The rows of such addresses.
    rows: HashSet<Key>,
}

impl Sharing {
    pub(super) fn of(view: &View) -> Self {
        let mut sharing = Self::default();
        let joined: Vec<_> = view.series.keys().filter(|key| key.upstream.contains(',')).collect();
        if joined.is_empty() {
            return sharing;
        }
        let known: HashSet<UpstreamKey> = view.series.keys().map(Key::of_upstream).collect();
        let mut declared: HashMap<_, Vec<&Arc<str>>> = HashMap::new();
        for key in &view.declared {
            declared.entry((&key.proxy, &key.address)).or_default().push(&key.upstream);
        }
        for key in joined {
            let row = key.of_upstream();
            let declared = declared.get(&(&key.proxy, &key.address)).into_iter().flatten();
            let names = declared.map(|name| Arc::clone(name)).chain(names(&key.upstream).map(Arc::from));
            for name in names {
                let upstream = (Arc::clone(&key.proxy), name);
                if upstream != row && known.contains(&upstream) {
                    sharing.with.entry(row.clone()).or_default().insert(Arc::clone(&upstream.1));
                    sharing.with.entry(upstream).or_default().insert(Arc::clone(&row.1));
                    sharing.rows.insert(key.clone());
                }
            }
        }
        let shared: HashSet<_> = sharing.rows.iter().map(|key| (&key.proxy, &key.address)).collect();
        let has_own: HashSet<UpstreamKey> = view
            .series
            .iter()
            .filter(|(key, row)| row.attempts > 0 || !shared.contains(&(&key.proxy, &key.address)))
            .map(|(key, _)| key.of_upstream())
            .collect();
        sharing.wholly = sharing.with.keys().filter(|key| !has_own.contains(*key)).cloned().collect();
        sharing
    }

    /// Of an upstream, the rows that it has with others; of such a row, the upstreams.
    pub(super) fn with(&self, key: &UpstreamKey) -> impl Iterator<Item = &Arc<str>> {
        self.with.get(key).into_iter().flatten()
    }

    /// Whether everything of an upstream is counted in rows that it has with others.
    pub(super) fn is_whole(&self, key: &UpstreamKey) -> bool {
        self.wholly.contains(key)
    }

    /// Whether that is a row which several upstreams have.
    pub(super) fn is_row(&self, key: &Key) -> bool {
        self.rows.contains(key)
    }
}

/// The names in that of a row which several upstreams have: behind the last may stand how many more there are.
pub(super) fn names(joined: &str) -> impl Iterator<Item = &str> {
    let last = joined.rsplit_once('+').filter(|(_, more)| more.parse::<u32>().is_ok());
    joined.split(',').chain(last.and_then(|(names, _)| names.rsplit(',').next()))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_joined_name_has_each_of_its_parts() {
        assert_eq!(names("app,unix:/run/a.sock").collect::<Vec<_>>(), ["app", "unix:/run/a.sock"]);
        assert_eq!(names("a,b,c+25").collect::<Vec<_>>(), ["a", "b", "c+25", "c"]);
        assert_eq!(names("c++").collect::<Vec<_>>(), ["c++"]);
    }
}
