//! What proxies are called: their container in Kubernetes, else their systemd unit, else their container, else their process.
//!
//! A name never changes once it is given, is the same after every restart of proxytrace, and is none that somebody else has: who
//! comes first does not matter. So it is made of what the host says; what a process or a container says of itself goes into it
//! only beside something that the host says (the user, the container's id). Where proxies share a name, each has the path of its
//! configuration in it.

pub mod cgroup;
pub mod pod;
mod seen;
mod sharing;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::{self, Owner};

use crate::escape;
use pod::{Located, Pod};
use seen::{Seen, inspect, of_owner};

/// How long a name waits for what it depends on: where its proxy runs, and, where it is shared, which configuration it has. Both
/// take milliseconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The same in a pod: what is called by its container's id stays so for good, while an agent that starts on a busy node is soon less busy.
const POD_TIMEOUT: Duration = Duration::from_secs(10);

/// Who says what a proxy is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// systemd: its unit.
    Unit,
    /// Kubelet: the host's files name its pod.
    Pod,
    /// Its container: namespace and pod are what files in the container say.
    PodClaimed,
    /// The container engine: its id.
    Container,
    /// The process itself.
    Process,
    /// Nobody: it ended before it could be read, and is called what was asked for.
    #[default]
    Option,
}

impl Source {
    /// All of them, the most reliable first.
    #[cfg(test)]
    pub const ALL: [Self; 6] =
        [Self::Unit, Self::Pod, Self::Container, Self::PodClaimed, Self::Process, Self::Option];

    /// As a label has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Pod => "pod",
            Self::PodClaimed => "pod_claimed",
            Self::Container => "container",
            Self::Process => "process",
            Self::Option => "option",
        }
    }
}

/// What is known of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What it is called where it shares that with nobody.
    name: String,
    /// What its first process calls itself.
    process: String,
    /// Who says so.
    pub source: Source,
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
pub struct ProxyNames {
    /// What a proxy is called that ended before it could be read.
    fallback: String,
    /// Whose they are, as the kernel half says.
    owners: HashMap<u64, Owner>,
    seen: HashMap<u64, Seen>,
    /// The proxies of which it was asked where they run, since when.
    asked: HashMap<u64, Instant>,
    /// Those that run in Kubernetes.
    pods: HashMap<u64, Pod>,
    /// Why the host does not name their pods.
    problems: HashMap<u64, String>,
    /// The paths of their configurations, as they see them; `None` for one that has none.
    configurations: HashMap<u64, Option<PathBuf>>,
    given: HashMap<u64, Arc<str>>,
    /// The configurations of proxies that have ended, by their names, as long as something is kept under those.
    ended: HashMap<Arc<str>, PathBuf>,
    /// What people should hear of the names that were given.
    doubts: Vec<String>,
}

impl ProxyNames {
    /// No proxy known yet.
    #[must_use]
    pub fn new(fallback: String) -> Self {
        Self {
            fallback,
            owners: HashMap::new(),
            seen: HashMap::new(),
            asked: HashMap::new(),
            pods: HashMap::new(),
            problems: HashMap::new(),
            configurations: HashMap::new(),
            given: HashMap::new(),
            ended: HashMap::new(),
            doubts: Vec::new(),
        }
    }

    /// Notes whose `proxy` is, for its name if it ends before it can be read.
    pub fn owned(&mut self, proxy: u64, owner: Owner) {
        // While it is being entered it has none yet.
        if owner != Owner::ZERO {
            self.owners.insert(proxy, owner);
        }
    }

    /// Whose `proxy` is, once that is known.
    #[must_use]
    pub fn owner(&self, proxy: u64) -> Option<Owner> {
        self.owners.get(&proxy).copied()
    }

    /// Reads what /proc says of a process of `proxy` while it is alive. Gives true the first time that it can be read: then
    /// somebody with more privileges should be asked where it runs.
    pub fn inspect(&mut self, proxy: u64, pid: u32) -> bool {
        if self.seen.contains_key(&proxy) {
            return false;
        }
        let Some((seen, configuration)) = inspect(pid) else { return false };
        self.seen.insert(proxy, seen);
        if configuration.is_some() {
            self.configurations.insert(proxy, configuration);
        }
        true
    }

    /// It was asked where `proxy` runs.
    pub fn asked(&mut self, proxy: u64) {
        self.asked.insert(proxy, Instant::now());
    }

    /// The answer to that.
    pub fn found(&mut self, proxy: u64, Located { pod, problem }: Located) {
        self.asked.remove(&proxy);
        self.pods.extend(pod.map(|pod| (proxy, pod)));
        self.problems.extend(problem.map(|problem| (proxy, problem)));
    }

    /// The configuration of `proxy` was found, at that path as the proxy sees it, or cannot be. What was known before holds.
    pub fn configured(&mut self, proxy: u64, path: Option<&Path>) {
        self.configurations.entry(proxy).or_insert_with(|| path.map(Path::to_owned));
    }

    /// Whether all is known that the name of `proxy` depends on, or the time to wait for it is over. Before that it should be shown
    /// nowhere, as it never changes once it is given.
    #[must_use]
    pub fn is_settled(&self, proxy: u64) -> bool {
        self.given.contains_key(&proxy) || (self.is_located(proxy) && !self.is_sharing_open(proxy))
    }

    fn is_located(&self, proxy: u64) -> bool {
        self.asked.get(&proxy).is_none_or(|since| !self.is_in_time(proxy, *since))
    }

    /// Whether an answer about `proxy` may still come that it was asked for at that time.
    fn is_in_time(&self, proxy: u64, since: Instant) -> bool {
        let is_in_pod = self.seen.get(&proxy).is_some_and(|seen| seen.is_in_pod);
        since.elapsed() < if is_in_pod { POD_TIMEOUT } else { SETTLE_TIMEOUT }
    }

    /// Whether an answer is waited for.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.asked.iter().any(|(proxy, since)| self.is_in_time(*proxy, *since))
    }

    /// The name of `proxy`, where `living` are the proxies that have processes. It never changes from then on.
    pub fn name(&mut self, proxy: u64, living: &HashSet<u64>) -> Arc<str> {
        if let Some(name) = self.given.get(&proxy) {
            return Arc::clone(name);
        }
        let taken: HashSet<&str> =
            living.iter().filter_map(|other| self.given.get(other)).map(|name| &**name).collect();
        let (name, rank) = self.wanted(proxy, living);
        let name = escape::name(&name);
        // There are fewer proxies than numbers.
        let numbered = (rank..).map(|n| if n == 0 { name.to_string() } else { format!("{name}-{}", n + 1) });
        let name: Arc<str> =
            numbered.into_iter().find(|name| !taken.contains(&**name)).unwrap_or_default().into();
        self.given.insert(proxy, Arc::clone(&name));
        if let Some(doubt) = self.doubt(proxy) {
            self.doubts.push(format!("proxy {name}, process {}: {doubt}", abi::root_pid(proxy)));
        }
        name
    }

    /// What people should hear of names that were given since the last time: see [`Self::doubt`].
    pub fn take_doubts(&mut self) -> Vec<String> {
        mem::take(&mut self.doubts)
    }

    /// Whether it only does an errand, such as `nginx -t`, and is no proxy.
    #[must_use]
    pub fn is_errand(&self, proxy: u64) -> bool {
        self.seen.get(&proxy).is_some_and(|seen| seen.is_errand)
    }

    /// What the first process of `proxy` calls itself; empty for one that ended before it could be read.
    #[must_use]
    pub fn process(&self, proxy: u64) -> &str {
        self.seen.get(&proxy).map_or("", |seen| &seen.identity.process)
    }

    /// Why the name of `proxy` is less than it should be, or is one that others can take as well.
    #[must_use]
    pub fn doubt(&self, proxy: u64) -> Option<String> {
        let seen = self.seen.get(&proxy).filter(|seen| !seen.is_errand)?;
        let late = || "nobody answered in time".to_owned();
        let why = || self.problems.get(&proxy).cloned().unwrap_or_else(late);
        match self.identity(proxy).source {
            Source::PodClaimed => {
                Some(format!("its namespace and pod are what its own files say, as the host does not: {}", why()))
            }
            Source::Container if seen.is_in_pod => {
                Some(format!("it is called by its container's id, as the name of its pod is not known: {}", why()))
            }
            Source::Process if seen.is_elsewhere || self.is_of_another_root(proxy) => Some(
                "it is called as its process calls itself, which others can as well: it runs in a pid namespace of its own, and no \
                 control group of the host's says in which container or unit"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether it is of the root of a container, as the kernel half says.
    fn is_of_another_root(&self, proxy: u64) -> bool {
        self.owners.get(&proxy).is_some_and(|owner| owner.uid == 0 && *owner != Owner::HOST_ROOT)
    }

    /// What `proxy` is called where it shares that with nobody.
    fn base(&self, proxy: u64) -> Cow<'_, str> {
        match (self.pods.get(&proxy), self.seen.get(&proxy)) {
            (Some(pod), Some(seen)) => {
                pod.proxy(seen.identity.container.as_deref().unwrap_or_default()).into()
            }
            (_, Some(seen)) => (&*seen.identity.name).into(),
            (_, None) => match self.owners.get(&proxy) {
                Some(owner) => of_owner(&self.fallback, *owner).into(),
                None => (&*self.fallback).into(),
            },
        }
    }

    /// What is known of `proxy` besides its name.
    #[must_use]
    pub fn identity(&self, proxy: u64) -> Identity {
        let seen = self.seen.get(&proxy).map(|seen| seen.identity.clone()).unwrap_or_default();
        match self.pods.get(&proxy) {
            Some(pod) => {
                let source = if pod.is_claimed { Source::PodClaimed } else { Source::Pod };
                Identity { pod: Some(pod.clone()), source, ..seen }
            }
            None => seen,
        }
    }

    /// Whether the name of `proxy` has been given: only a new one makes it necessary to know who lives.
    #[must_use]
    pub fn given(&self, proxy: u64) -> Option<Arc<str>> {
        self.given.get(&proxy).cloned()
    }

    /// Forgets the proxies for which `keep` is false, but for what distinguishes those that are called the same later.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        for (proxy, name) in self.given.iter().filter(|(proxy, _)| !keep(**proxy)) {
            if let Some(Some(path)) =
                self.configurations.get(proxy).filter(|_| self.is_called_by_process(*proxy))
            {
                self.ended.insert(Arc::clone(name), path.clone());
            }
        }
        self.owners.retain(|&proxy, _| keep(proxy));
        self.seen.retain(|&proxy, _| keep(proxy));
        self.asked.retain(|&proxy, _| keep(proxy));
        self.pods.retain(|&proxy, _| keep(proxy));
        self.problems.retain(|&proxy, _| keep(proxy));
        self.configurations.retain(|&proxy, _| keep(proxy));
        self.given.retain(|&proxy, _| keep(proxy));
    }

    /// Nothing is kept any more under names of proxies that have ended, but these.
    pub fn forget_ended(&mut self, is_kept: impl Fn(&Arc<str>) -> bool) {
        self.ended.retain(|name, _| is_kept(name));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path, time::Instant};

    use super::{
        Identity, Owner, ProxyNames, SETTLE_TIMEOUT, Seen, Source,
        pod::{Located, Pod},
        seen::fingerprint,
    };

    /// Proxies with their names, configurations and what else they were started with.
    pub(super) fn names(proxies: &[(u64, &str, Option<&str>, &str)]) -> ProxyNames {
        let mut names = ProxyNames::new("fallback".to_owned());
        for (proxy, name, configuration, arguments) in proxies {
            let identity = Identity { name: (*name).to_owned(), ..Identity::default() };
            let fingerprint = fingerprint([b"/", arguments.as_bytes()]);
            let (since, started) = (Instant::now(), *proxy);
            names.owned(*proxy, Owner::HOST_ROOT);
            let seen = Seen {
                identity,
                since,
                started,
                fingerprint,
                is_errand: false,
                is_in_pod: false,
                is_elsewhere: false,
            };
            names.seen.insert(*proxy, seen);
            if let Some(path) = configuration {
                names.configured(*proxy, Some(Path::new(path)));
            }
        }
        names
    }

    #[test]
    fn a_name_waits_for_the_answer_where_its_proxy_runs() {
        let mut names = ProxyNames::new("nginx".to_owned());
        assert!(names.is_settled(1), "nobody was asked");
        assert!(names.inspect(1, std::process::id()), "it is seen for the first time");
        names.asked(1);
        assert!(!names.is_settled(1) && names.is_asking());
        let [namespace, name, container] = ["shop", "edge-0", "nginx"].map(str::to_owned);
        let pod = Some(Pod { namespace, name, container, is_claimed: false });
        names.found(1, Located { pod, problem: None });
        assert!(names.is_settled(1) && !names.is_asking());
        assert_eq!(&*names.name(1, &HashSet::from([1])), "shop/edge-0/nginx");
        assert_eq!(names.identity(1).source, Source::Pod);
        assert!(!names.inspect(1, std::process::id()), "it was seen before");
        names.asked(2);
        names.found(2, Located::default());
        assert_eq!(&*names.name(2, &HashSet::from([1, 2])), "nginx");
        names.asked.extend(Instant::now().checked_sub(SETTLE_TIMEOUT).map(|since| (3, since)));
        assert!(names.is_settled(3) && !names.is_asking(), "an answer that does not come is not waited for");
        names.inspect(3, std::process::id());
        names.seen.get_mut(&3).unwrap().is_in_pod = true;
        assert!(!names.is_settled(3) && names.is_asking(), "for longer in a pod");
    }

    #[test]
    fn a_name_that_the_host_does_not_vouch_for_is_said_to_be_one() {
        let mut names =
            names(&[(1, "nginx", None, ""), (2, "nginx@0", None, ""), (3, "container:0123", None, "")]);
        for (proxy, source) in [(1, Source::Process), (2, Source::Process), (3, Source::Container)] {
            names.seen.get_mut(&proxy).unwrap().identity.source = source;
        }
        names.seen.get_mut(&2).unwrap().is_elsewhere = true;
        let doubt = |names: &ProxyNames, proxy: u64| names.doubt(proxy).unwrap_or_default();
        assert_eq!(doubt(&names, 1), "", "the host's own root");
        assert!(doubt(&names, 2).contains("which others can as well"));
        assert_eq!(doubt(&names, 3), "", "an engine's id");
        names.seen.get_mut(&3).unwrap().is_in_pod = true;
        assert!(doubt(&names, 3).ends_with("its pod is not known: nobody answered in time"));
        let [namespace, name, container] = ["shop", "edge-0", "nginx"].map(str::to_owned);
        let pod = Some(Pod { namespace, name, container, is_claimed: true });
        names.found(
            3,
            Located { pod, problem: Some("look below /proc/1/root: Permission denied".to_owned()) },
        );
        assert!(
            doubt(&names, 3).ends_with("as the host does not: look below /proc/1/root: Permission denied")
        );
        names.seen.get_mut(&2).unwrap().is_errand = true;
        assert_eq!(doubt(&names, 2), "", "it is gone in a moment");
    }

    #[test]
    fn a_process_that_runs_has_a_name() {
        let mut names = ProxyNames::new("fallback".to_owned());
        names.inspect(1, std::process::id());
        assert_ne!(&*names.name(1, &HashSet::from([1])), "fallback");
        assert_ne!(names.identity(1).source, Source::Option);
    }
}
