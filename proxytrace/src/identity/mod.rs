//! What proxies are called: their container in Kubernetes, else their systemd unit, else their container, else their process.

mod cgroup;
pub mod pod;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use procfs::process::Process;

use pod::Pod;

/// So long a name waits for the answer where its proxy runs: it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What /proc says of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What it is called before names are made unique.
    name: String,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// The first 12 digits of its container's id.
    pub container: Option<String>,
    /// Its container in Kubernetes.
    pub pod: Option<Pod>,
}

/// The names of proxies. A name is given when it is first asked for, to one living proxy at a time: a proxy that is
/// restarted takes up its predecessor's.
#[derive(Debug)]
pub struct Names {
    /// What a proxy is called that ended before it could be looked at.
    fallback: String,
    /// What /proc said of a proxy, before names are made unique.
    seen: HashMap<u64, Identity>,
    /// The proxies of which it was asked where they run, since when.
    asked: HashMap<u64, Instant>,
    /// Those that run in Kubernetes.
    pods: HashMap<u64, Pod>,
    given: HashMap<u64, Arc<str>>,
}

impl Names {
    /// No proxy known yet.
    #[must_use]
    pub fn new(fallback: String) -> Self {
        Self {
            fallback,
            seen: HashMap::new(),
            asked: HashMap::new(),
            pods: HashMap::new(),
            given: HashMap::new(),
        }
    }

    /// Looks at a process of `proxy` while it is alive. Gives true the first time that there is something to be seen: then
    /// somebody with more privileges should be asked where it runs.
    pub fn look(&mut self, proxy: u64, pid: u32) -> bool {
        if self.seen.contains_key(&proxy) {
            return false;
        }
        let identity = of_process(pid);
        let is_first = identity.is_some();
        self.seen.extend(identity.map(|identity| (proxy, identity)));
        is_first
    }

    /// It was asked where `proxy` runs.
    pub fn asked(&mut self, proxy: u64) {
        self.asked.insert(proxy, Instant::now());
    }

    /// The answer to that: in Kubernetes, or elsewhere.
    pub fn found(&mut self, proxy: u64, pod: Option<Pod>) {
        self.asked.remove(&proxy);
        self.pods.extend(pod.map(|pod| (proxy, pod)));
    }

    /// Whether all is known that the name of `proxy` depends on, or was waited for in vain. Before that it should be shown
    /// nowhere, as it never changes once it is given.
    #[must_use]
    pub fn is_settled(&self, proxy: u64) -> bool {
        self.asked.get(&proxy).is_none_or(|since| since.elapsed() >= PATIENCE)
    }

    /// Whether an answer is waited for.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.asked.values().any(|since| since.elapsed() < PATIENCE)
    }

    /// The name of `proxy`, once it is settled; `living` as below.
    pub fn settled(&mut self, proxy: u64, living: &HashSet<u64>) -> Option<Arc<str>> {
        self.is_settled(proxy).then(|| self.name(proxy, living))
    }

    /// The name of `proxy`, where `living` are the proxies that have processes. It never changes from then on.
    pub fn name(&mut self, proxy: u64, living: &HashSet<u64>) -> Arc<str> {
        if let Some(name) = self.given.get(&proxy) {
            return Arc::clone(name);
        }
        let base = match (self.pods.get(&proxy), self.seen.get(&proxy)) {
            (Some(pod), _) => &pod.proxy(),
            (None, Some(seen)) => &seen.name,
            (None, None) => &self.fallback,
        };
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
        let seen = self.seen.get(&proxy).cloned().unwrap_or_default();
        Identity { pod: self.pods.get(&proxy).cloned(), ..seen }
    }

    /// Whether the name of `proxy` has been given: only a new one makes it necessary to know who lives.
    #[must_use]
    pub fn given(&self, proxy: u64) -> Option<Arc<str>> {
        self.given.get(&proxy).cloned()
    }

    /// Forgets the proxies for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.seen.retain(|&proxy, _| keep(proxy));
        self.asked.retain(|&proxy, _| keep(proxy));
        self.pods.retain(|&proxy, _| keep(proxy));
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
    Some(Identity { name, unit, container, pod: None })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Instant};

    use super::{Names, PATIENCE, pod::Pod};

    #[test]
    fn a_name_waits_for_the_answer_where_its_proxy_runs() {
        let mut names = Names::new("nginx".to_owned());
        assert!(names.is_settled(1), "nobody was asked");
        assert!(names.look(1, std::process::id()), "it is seen for the first time");
        names.asked(1);
        assert!(!names.is_settled(1) && names.is_asking());
        let [namespace, name, container] = ["shop", "edge-0", "nginx"].map(str::to_owned);
        names.found(1, Some(Pod { namespace, name, container }));
        assert!(names.is_settled(1) && !names.is_asking());
        assert_eq!(&*names.name(1, &HashSet::from([1])), "shop/edge-0/nginx");
        assert!(!names.look(1, std::process::id()), "it was seen before");
        names.asked(2);
        names.found(2, None);
        assert_eq!(&*names.name(2, &HashSet::from([1, 2])), "nginx");
        names.asked.extend(Instant::now().checked_sub(PATIENCE).map(|since| (3, since)));
        assert!(names.is_settled(3) && !names.is_asking(), "an answer that does not come is not waited for");
    }

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
