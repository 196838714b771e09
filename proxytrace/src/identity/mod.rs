//! What proxies are called: their systemd unit, else their container, else their process.

mod cgroup;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use procfs::process::Process;

/// What /proc says of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What it is called before names are made unique.
    name: String,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// The first 12 digits of its container's id.
    pub container: Option<String>,
}

/// The names of proxies. A name is given when it is first asked for, to one living proxy at a time: a proxy that is
/// restarted takes up its predecessor's.
#[derive(Debug)]
pub struct Names {
    /// What a proxy is called that ended before it could be looked at.
    fallback: String,
    /// What /proc said of a proxy, before names are made unique.
    seen: HashMap<u64, Identity>,
    given: HashMap<u64, Arc<str>>,
}

impl Names {
    /// No proxy known yet.
    #[must_use]
    pub fn new(fallback: String) -> Self {
        Self { fallback, seen: HashMap::new(), given: HashMap::new() }
    }

    /// Looks at a process of `proxy` while it is alive.
    pub fn look(&mut self, proxy: u64, pid: u32) {
        if !self.seen.contains_key(&proxy)
            && let Some(identity) = of_process(pid)
        {
            self.seen.insert(proxy, identity);
        }
    }

    /// The name of `proxy`, where `living` are the proxies that have processes.
    pub fn name(&mut self, proxy: u64, living: &HashSet<u64>) -> Arc<str> {
        if let Some(name) = self.given.get(&proxy) {
            return Arc::clone(name);
        }
        let base = self.seen.get(&proxy).map_or(&self.fallback, |seen| &seen.name);
        let is_taken =
            |name: &str| self.given.iter().any(|(other, given)| &**given == name && living.contains(other));
        let name: Arc<str> = if is_taken(base) {
            // There are fewer proxies than numbers.
            (2..)
                .map(|n| format!("{base}-{n}"))
                .find(|name| !is_taken(name))
                .unwrap_or_else(|| base.clone())
                .into()
        } else {
            base.as_str().into()
        };
        self.given.insert(proxy, Arc::clone(&name));
        name
    }

    /// What is known of `proxy` besides its name.
    #[must_use]
    pub fn identity(&self, proxy: u64) -> Identity {
        self.seen.get(&proxy).cloned().unwrap_or_default()
    }

    /// Whether the name of `proxy` has been given: only a new one makes it necessary to know who lives.
    #[must_use]
    pub fn given(&self, proxy: u64) -> Option<Arc<str>> {
        self.given.get(&proxy).cloned()
    }

    /// Forgets the proxies for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.seen.retain(|&proxy, _| keep(proxy));
        self.given.retain(|&proxy, _| keep(proxy));
    }
}

fn of_process(pid: u32) -> Option<Identity> {
    let process = Process::new(pid.cast_signed()).ok()?;
    // Version 2 and the named version 1 hierarchies alike: any that tells is right.
    let groups = process.cgroups().ok()?;
    let paths = || groups.0.iter().map(|group| group.pathname.as_str());
    let container = paths().find_map(cgroup::container).map(str::to_owned);
    // A container is more telling than the unit of the engine that started it.
    let unit = paths().find_map(cgroup::unit).filter(|_| container.is_none());
    let name = match (&container, &unit) {
        (Some(id), _) => format!("container:{id}"),
        (None, Some(unit)) => unit.clone(),
        (None, None) => process.stat().ok()?.comm,
    };
    Some(Identity { name, unit, container })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Names;

    #[test]
    fn living_proxies_of_one_name_are_numbered_and_a_restarted_one_takes_its_name_up() {
        let mut names = Names::new("nginx".to_owned());
        assert_eq!(&*names.name(1, &HashSet::from([1])), "nginx");
        assert_eq!(&*names.name(2, &HashSet::from([1, 2])), "nginx-2");
        assert_eq!(&*names.name(1, &HashSet::from([1, 2])), "nginx");
        assert_eq!(&*names.name(3, &HashSet::from([2, 3])), "nginx");
        names.retain(|proxy| proxy == 3);
        assert_eq!(names.given(2), None);
        assert_eq!(&*names.name(4, &HashSet::from([3, 4])), "nginx-2");
    }

    #[test]
    fn a_process_that_runs_has_a_name() {
        let mut names = Names::new("fallback".to_owned());
        names.look(1, std::process::id());
        assert_ne!(&*names.name(1, &HashSet::from([1])), "fallback");
    }
}
