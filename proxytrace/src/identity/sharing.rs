//! Names that several proxies share: what each has in its own besides, and how long one waits to learn that.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use crate::escape;

use super::{ProxyNames, SETTLE_TIMEOUT, Source};

/// Those that share a name.
#[derive(Clone, Copy, Debug, Default)]
struct Shared {
    count: usize,
    /// What distinguishes one of them is still to come.
    is_open: bool,
}

impl ProxyNames {
    /// Whether it shares its name, or did before the other ended, and what distinguishes them may still come.
    pub(super) fn is_sharing_open(&self, proxy: u64) -> bool {
        let base = self.base(proxy);
        let same = self.seen.keys().copied().filter(|other| self.base(*other) == base);
        let mut shared = Shared::default();
        same.for_each(|other| self.share(other, &mut shared));
        self.is_open(proxy, shared)
    }

    /// Whether its process gives it its name. A unit or a container is the same whatever configuration it has.
    pub(super) fn is_called_by_process(&self, proxy: u64) -> bool {
        let seen = self.seen.get(&proxy).filter(|_| !self.pods.contains_key(&proxy));
        seen.is_some_and(|seen| seen.identity.source == Source::Process && !seen.is_errand)
    }

    /// Whether one that was called so has ended, and had another configuration than `proxy`: then they are not the same.
    fn is_of_another(&self, name: &str, proxy: u64, living: &HashSet<u64>) -> bool {
        let Some(Some(own)) = self.configurations.get(&proxy).filter(|_| self.is_called_by_process(proxy))
        else {
            return false;
        };
        let has_ended =
            |other: u64| other != proxy && !living.contains(&other) && self.is_called_by_process(other);
        let remembered = self.given.iter().filter(|(other, given)| &***given == name && has_ended(**other));
        let mut paths = remembered.filter_map(|(other, _)| self.configurations.get(other)?.as_ref());
        paths.any(|path| path != own) || self.ended.get(name).is_some_and(|path| path != own)
    }

    /// Adds `proxy` to those that share its name.
    fn share(&self, proxy: u64, shared: &mut Shared) {
        if let Some(seen) = self.seen.get(&proxy).filter(|seen| !seen.is_errand) {
            shared.count += 1;
            shared.is_open |=
                !self.configurations.contains_key(&proxy) && seen.since.elapsed() < SETTLE_TIMEOUT;
        }
    }

    /// Whether `proxy` waits for one of those that share its name: not for longer than [`SETTLE_TIMEOUT`], whoever comes meanwhile.
    fn is_open(&self, proxy: u64, shared: Shared) -> bool {
        let Some(seen) = self.seen.get(&proxy) else { return false };
        let others = shared.count - usize::from(!seen.is_errand);
        let has_followed = || self.ended.contains_key(&*escape::name(&self.base(proxy)));
        let lacks_own = !self.configurations.contains_key(&proxy) && has_followed();
        ((shared.is_open && others > 0) || lacks_own) && seen.since.elapsed() < SETTLE_TIMEOUT
    }

    /// Gives those of these proxies their names whose owners are known and whose names are settled by now, where `living` are the
    /// proxies that have processes.
    pub fn settle(&mut self, proxies: impl Iterator<Item = u64>, living: &HashSet<u64>) {
        let nameless: HashSet<u64> = proxies
            .filter(|proxy| !self.given.contains_key(proxy) && self.owners.contains_key(proxy))
            .collect();
        if nameless.is_empty() {
            return;
        }
        // All that were seen are read once: thousands may share a name.
        let mut shared: HashMap<Cow<'_, str>, Shared> = HashMap::new();
        for &proxy in self.seen.keys() {
            self.share(proxy, shared.entry(self.base(proxy)).or_default());
        }
        let is_settled = |proxy: &u64| {
            let shared = shared.get(&self.base(*proxy)).copied().unwrap_or_default();
            self.is_located(*proxy) && !self.is_open(*proxy, shared)
        };
        let settled: Vec<u64> = nameless.into_iter().filter(is_settled).collect();
        drop(shared);
        for proxy in settled {
            self.name(proxy, living);
        }
    }

    /// What `proxy` is to be called, and how many others are to be called the same that were started before it.
    ///
    /// All that share a name have something more in theirs, the first as well: it is the same whoever is there first.
    pub(super) fn wanted(&self, proxy: u64, living: &HashSet<u64>) -> (String, usize) {
        let base = self.base(proxy);
        let is_errand = |other: &u64| self.seen.get(other).is_some_and(|seen| seen.is_errand);
        let mut same: Vec<u64> = living
            .iter()
            .copied()
            .filter(|other| *other != proxy && !is_errand(other) && self.base(*other) == base)
            .collect();
        let mut name = base.into_owned();
        let keys: [&dyn Fn(u64) -> Option<String>; 2] = [
            &|proxy| {
                let path = self.configurations.get(&proxy)?.as_ref()?;
                Some(escape::printable(&path.to_string_lossy()).into_owned())
            },
            &|proxy| self.seen.get(&proxy).map(|seen| format!("{:08x}", seen.fingerprint)),
        ];
        for key in keys {
            let own = key(proxy);
            if let Some(own) = own.as_ref().filter(|_| !same.is_empty()) {
                name = format!("{name}:{own}");
            }
            same.retain(|other| key(*other) == own);
        }
        if self.is_of_another(&escape::name(&name), proxy, living)
            && let Some(own) = keys[0](proxy)
        {
            name = format!("{name}:{own}");
        }
        let age = |proxy: u64| (self.seen.get(&proxy).map(|seen| seen.started), proxy);
        (name, same.into_iter().filter(|other| age(*other) < age(proxy)).count())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path, time::Duration};

    use proxytrace_ebpf::abi::Owner;

    use super::{SETTLE_TIMEOUT, Source};
    use crate::identity::{seen::fingerprint, tests::names};

    #[test]
    fn proxies_that_share_a_name_have_their_configuration_in_it_whoever_is_asked_for_first() {
        let proxies = [
            (1, "nginx", Some("/etc/nginx/nginx.conf"), ""),
            (2, "nginx", Some("/etc/nginx/b.conf"), "-c b"),
            (3, "nginx", Some("/srv/c.conf"), "-c c"),
            (4, "web.service", Some("/srv/c.conf"), "-c c"),
        ];
        let living = HashSet::from([1, 2, 3, 4]);
        for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]] {
            let mut names = names(&proxies);
            for proxy in order {
                names.name(proxy, &living);
            }
            let given = [1, 2, 3, 4].map(|proxy| names.name(proxy, &living).to_string());
            let expected = [
                "nginx:/etc/nginx/nginx.conf",
                "nginx:/etc/nginx/b.conf",
                "nginx:/srv/c.conf",
                "web.service",
            ];
            assert_eq!(given, expected, "{order:?}");
        }
    }

    #[test]
    fn with_the_same_configuration_it_is_what_they_were_started_with_and_then_their_age() {
        let path = Some("/etc/nginx/nginx.conf");
        let proxies = [(1, "nginx", path, ""), (2, "nginx", path, "-p /b"), (3, "nginx", path, "-p /b")];
        let living = HashSet::from([1, 2, 3]);
        let [plain, other] = ["", "-p /b"].map(|arguments| fingerprint([b"/", arguments.as_bytes()]));
        for order in [[1, 2, 3], [3, 2, 1]] {
            let mut names = names(&proxies);
            for proxy in order {
                names.name(proxy, &living);
            }
            let given = [1, 2, 3].map(|proxy| names.name(proxy, &living).to_string());
            let base = "nginx:/etc/nginx/nginx.conf";
            assert_eq!(
                given,
                [
                    format!("{base}:{plain:08x}"),
                    format!("{base}:{other:08x}"),
                    format!("{base}:{other:08x}-2")
                ]
            );
        }
    }

    #[test]
    fn a_name_that_is_given_stays_and_a_restarted_proxy_takes_its_own_up() {
        let (main, other) = (Some("/etc/nginx/nginx.conf"), Some("/etc/nginx/b.conf"));
        let mut names = names(&[(1, "nginx", main, ""), (2, "nginx", other, ""), (3, "nginx", other, "")]);
        assert_eq!(&*names.name(1, &HashSet::from([1])), "nginx", "it is alone");
        assert_eq!(&*names.name(2, &HashSet::from([1, 2])), "nginx:/etc/nginx/b.conf");
        assert_eq!(&*names.name(1, &HashSet::from([1, 2])), "nginx", "it stays");
        assert_eq!(&*names.name(3, &HashSet::from([1, 3])), "nginx:/etc/nginx/b.conf", "it was restarted");
        names.retain(|proxy| proxy == 3);
        assert_eq!(names.given(2), None);
    }

    #[test]
    fn one_of_another_configuration_does_not_take_up_the_name_of_one_that_has_ended() {
        let (one, other) = (Some("/etc/nginx/a.conf"), Some("/etc/nginx/b.conf"));
        let proxies =
            [(1, "nginx", one, ""), (2, "nginx", other, ""), (3, "nginx", one, ""), (4, "nginx", other, "")];
        for forgets in [false, true] {
            let mut names = names(&proxies);
            names.seen.values_mut().for_each(|seen| seen.identity.source = Source::Process);
            assert_eq!(&*names.name(1, &HashSet::from([1])), "nginx");
            if forgets {
                names.retain(|proxy| proxy != 1);
            }
            assert_eq!(&*names.name(2, &HashSet::from([2])), "nginx:/etc/nginx/b.conf");
            assert_eq!(&*names.name(3, &HashSet::from([3])), "nginx", "it was restarted");
            names.retain(|proxy| proxy == 4);
            names.forget_ended(|_| false);
            assert_eq!(&*names.name(4, &HashSet::from([4])), "nginx", "nothing is kept of any");
        }
    }

    #[test]
    fn a_name_that_is_shared_waits_for_what_distinguishes_its_proxies() {
        let mut names = names(&[(1, "nginx", None, ""), (2, "nginx", Some("/b.conf"), "")]);
        names.seen.get_mut(&2).unwrap().is_errand = true;
        assert!(names.is_settled(1), "an errand shares no name");
        names.seen.get_mut(&2).unwrap().is_errand = false;
        assert!(!names.is_settled(1) && !names.is_settled(2));
        names.configured(1, Some(Path::new("/a.conf")));
        names.configured(1, Some(Path::new("/late.conf")));
        assert!(names.is_settled(1) && names.is_settled(2));
        assert_eq!(&*names.name(1, &HashSet::from([1, 2])), "nginx:/a.conf");
        names.configurations.remove(&2);
        names.seen.get_mut(&2).unwrap().since -= SETTLE_TIMEOUT + Duration::from_millis(1);
        assert!(names.is_settled(2), "what does not come is not waited for");
    }

    #[test]
    fn who_shares_a_name_does_not_wait_for_all_that_come_after() {
        let crowd: Vec<_> = (1..=5).map(|proxy| (proxy, "nginx@65534", None, "")).collect();
        let mut names = names(&crowd);
        names.seen.get_mut(&1).unwrap().since -= SETTLE_TIMEOUT;
        names.configured(2, None);
        names.owned(6, Owner::new(65534, Owner::HOST_ROOT.pid_namespace));
        let settled: Vec<_> = (1..=6).filter(|proxy| names.is_settled(*proxy)).collect();
        assert_eq!(settled, [1, 6], "what distinguishes the others may still come");
        names.settle(1..=7, &HashSet::from_iter(1..=5));
        assert_eq!((1..=7).filter(|proxy| names.given(*proxy).is_some()).collect::<Vec<_>>(), settled);
        assert!(names.given(6).unwrap().starts_with("fallback@65534"), "it is not called as root's are");
    }
}
