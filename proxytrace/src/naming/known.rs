//! What one generation is configured to do, and what it calls an address. Names that the proxy follows are looked up again.

use std::{
    collections::{HashMap, HashSet},
    mem,
    time::{Duration, Instant},
};

use crate::{
    declared::{AddressNames, Configuration, Resolved, SettingsByPeer},
    model::Address,
    reader::{Lookup, Owner},
};

/// Names that the proxy follows are not looked up more often, whatever their answers say, or how many addresses are new.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// For so long an answer about names is waited for: more than it takes to give those up that nobody answers for (8 s).
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(12);

/// How long an address holds that no name server gave a time for: from /etc/hosts, or none at all.
const UNLIMITED: Duration = Duration::from_secs(30);

/// So many addresses are remembered, of all names together, and of one; with more the oldest answers are forgotten.
const MAX_ADDRESSES: usize = 65_536;
const MAX_ADDRESSES_OF_NAME: usize = 4096;
/// As many are remembered of each name, however many there are.
const MIN_ADDRESSES_OF_NAME: usize = 16;

/// What one generation is configured to do.
pub(super) struct KnownConfig {
    pub(super) configuration: Configuration,
    /// Whose proxy that is.
    pub(super) owner: Owner,
    /// What is kept of it takes so many bytes.
    pub(super) bytes: usize,
    pub(super) names: AddressNames,
    pub(super) peer_settings: SettingsByPeer,
    /// The proxy looks names up while it runs; and how long their answers hold where its configuration says that.
    is_followed: bool,
    valid: Option<Duration>,
    /// The configuration does not say where all connects go to.
    is_open: bool,
    /// By port the upstream of a host that nobody answered for; `None` where several have such a host.
    unanswered: HashMap<u16, Option<usize>>,
    /// When the last lookup of followed names was begun that has ended, and when it ended.
    begun: Instant,
    looked_up: Instant,
    /// They are being looked up, since then.
    asked: Option<Instant>,
    /// A lookup has ended: before the first has, host names have no addresses.
    is_complete: bool,
    /// Addresses that no name had, and when they were first seen: only a lookup that is begun later can say what they are.
    unmatched: HashMap<Address, Instant>,
}

/// What is found of an address.
pub(super) enum Found<'a> {
    Named(&'a str),
    /// That takes a lookup of the names that are followed.
    Pending,
    /// The configuration does not say where it connects to.
    Open,
    Undeclared,
}

impl KnownConfig {
    /// All that is known but for what host names resolve to.
    pub(super) fn new(configuration: Configuration, owner: Owner, bytes: usize) -> Self {
        let now = Instant::now();
        let routes = &configuration.routes;
        let valid_ms = routes.followed().filter_map(|(_, resolver)| resolver?.valid_ms).min();
        let mut known = Self {
            owner,
            bytes,
            names: AddressNames::default(),
            peer_settings: SettingsByPeer::default(),
            is_followed: routes.is_followed(),
            valid: valid_ms.map(Duration::from_millis),
            is_open: false,
            unanswered: HashMap::new(),
            configuration,
            begun: now,
            looked_up: now,
            asked: None,
            is_complete: false,
            unmatched: HashMap::new(),
        };
        known.derive();
        known
    }

    /// What follows from what names resolve to, so that an address is found without a look at the whole configuration.
    fn derive(&mut self) {
        let Configuration { routes, resolved: Resolved { addresses, .. }, .. } = &self.configuration;
        self.names = AddressNames::new(routes, addresses);
        self.peer_settings = SettingsByPeer::new(routes, addresses);
        self.is_open = routes.is_open(addresses);
        self.unanswered.clear();
        for (index, upstream) in routes.upstreams.iter().enumerate() {
            let has_no_answer = |host| !addresses.contains_key(host);
            for peer in upstream.peers.iter().filter(|peer| peer.endpoint.host().is_some_and(has_no_answer)) {
                let only = self.unanswered.entry(peer.endpoint.port()).or_insert(Some(index));
                *only = only.filter(|only| *only == index);
            }
        }
    }

    /// What the configuration calls the address. A name that is followed may have come to stand for it a moment ago.
    pub(super) fn find(&self, address: &Address) -> Found<'_> {
        if let Some(named) = self.names.find(address) {
            return Found::Named(&named.upstream);
        }
        if self.is_waiting() {
            return Found::Pending;
        }
        // The proxy may have learned of it after we last looked.
        if self.is_followed && self.unmatched.get(address).is_none_or(|first| *first >= self.begun) {
            return Found::Pending;
        }
        match self.of_a_host_without_answer(address.port()) {
            Some(upstream) => Found::Named(upstream),
            None if self.is_open => Found::Open,
            None => Found::Undeclared,
        }
    }

    /// Remembers since when no name is known for the address, where a name that is followed may come to stand for it.
    pub(super) fn note_unmatched(&mut self, address: &Address) {
        if self.is_followed && !self.is_waiting() && self.names.find(address).is_none() {
            if self.unmatched.len() >= MAX_ADDRESSES_OF_NAME {
                self.unmatched.clear();
            }
            self.unmatched.entry(address.clone()).or_insert_with(Instant::now);
        }
    }

    /// Whether the answer about its host names is on its way.
    fn is_waiting(&self) -> bool {
        !self.is_complete && self.asked.is_some_and(|since| since.elapsed() < LOOKUP_TIMEOUT)
    }

    /// The upstream of a host that nobody answered for, where only one has such a port: the proxy got an answer when it started.
    fn of_a_host_without_answer(&self, port: u16) -> Option<&str> {
        let index = self.unanswered.get(&port).copied().flatten()?;
        self.configuration.routes.upstreams.get(index).map(|upstream| upstream.name.as_str())
    }

    pub(super) fn is_due(&self) -> bool {
        let of_answers =
            self.configuration.resolved.valid_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let valid = self.valid.or(of_answers).unwrap_or(UNLIMITED).max(MIN_INTERVAL);
        match self.asked {
            Some(since) => since.elapsed() >= LOOKUP_TIMEOUT,
            None => self.is_followed && self.looked_up.elapsed() >= valid,
        }
    }

    /// Whether followed names are being looked up.
    pub(super) const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether host names have been looked up, with whatever success.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// They are, from now on.
    pub(super) fn note_asked(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// Everything that there is to look up.
    pub(super) fn all_lookups(&self) -> Vec<Lookup> {
        Lookup::all(&self.configuration.routes)
    }

    /// What there is to look up again.
    pub(super) fn followed_lookups(&self) -> Vec<Lookup> {
        Lookup::followed(&self.configuration.routes)
    }

    /// Whether a lookup that is begun now could name this address.
    pub(super) fn needs_lookup(&self, address: &Address) -> bool {
        self.asked.is_none()
            && self.looked_up.elapsed() >= MIN_INTERVAL
            && self.unmatched.contains_key(address)
    }

    /// A lookup has ended. Gives whether it was the first.
    pub(super) fn note_lookup(&mut self) -> bool {
        self.looked_up = Instant::now();
        self.begun = self.asked.take().unwrap_or(self.looked_up);
        !mem::replace(&mut self.is_complete, true)
    }

    /// Takes what names resolve to now, and says whether that names any address anew, or is the first time. Addresses that a name had before keep it:
    /// connects to them may still be under way.
    pub(super) fn update(&mut self, resolved: Resolved) -> bool {
        let is_first = self.note_lookup();
        let known = &mut self.configuration.resolved;
        known.valid_seconds = resolved.valid_seconds;
        let names = known.addresses.len().max(resolved.addresses.len()).max(1);
        let max = (MAX_ADDRESSES / names).clamp(MIN_ADDRESSES_OF_NAME, MAX_ADDRESSES_OF_NAME);
        let mut is_new = false;
        for (name, found) in resolved.addresses {
            // That a name has no address is news as well: before, nobody had answered.
            is_new |= !known.addresses.contains_key(&name);
            let all = known.addresses.entry(name).or_default();
            let before: HashSet<_> = all.iter().copied().collect();
            is_new |= found.iter().any(|one| !before.contains(one));
            let now: HashSet<_> = found.iter().copied().collect();
            all.retain(|one| !now.contains(one));
            all.extend(found);
            all.drain(..all.len().saturating_sub(max));
        }
        if is_new {
            self.derive();
        }
        is_new || is_first
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        fmt::Write as _,
        net::SocketAddr,
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::{Configuration, Found, KnownConfig, MAX_ADDRESSES_OF_NAME, Owner, Resolved};
    use crate::{nginx::tests::routes_of, reader::tests::time_of_thread};

    fn known(text: &str, hosts: &[(&str, &[&str])]) -> KnownConfig {
        let addresses = hosts
            .iter()
            .map(|(host, ips)| {
                ((*host).to_owned(), ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect())
            })
            .collect();
        let configuration = Configuration {
            path: "/etc/nginx/nginx.conf".into(),
            exe: "/usr/sbin/nginx".into(),
            routes: Arc::new(routes_of(text)),
            changed: None,
            resolved: Resolved { addresses, ..Resolved::default() },
        };
        let mut known = KnownConfig::new(configuration, Owner::UNKNOWN, 0);
        known.note_lookup();
        known
    }

    #[track_caller]
    fn check(known: &mut KnownConfig, address: &str, expected: &str) {
        let parsed = address.parse().unwrap();
        known.note_unmatched(&parsed);
        let found = match known.find(&parsed) {
            Found::Named(name) => name,
            Found::Pending => "(pending)",
            Found::Open => "(open)",
            Found::Undeclared => "(undeclared)",
        };
        assert_eq!(found, expected, "{address}");
    }

    #[test]
    fn an_address_has_the_name_that_the_configuration_gives_it_or_none() {
        let mut plain = known(
            "http { upstream api { server 10.0.0.5:8080; server app:81; } }",
            &[("app", &["10.0.0.6"])],
        );
        check(&mut plain, "10.0.0.5:8080", "api");
        check(&mut plain, "10.0.0.6:81", "api");
        check(&mut plain, "10.0.0.5:8081", "(undeclared)");
        let mut open = known("http { server { location / { proxy_pass http://$arg_to; } } }", &[]);
        check(&mut open, "10.0.0.5:80", "(open)");
    }

    #[test]
    fn until_host_names_are_looked_up_only_what_is_written_as_an_address_has_a_name() {
        let mut known = known("http { upstream api { server 10.0.0.5:8080; server app:81; } }", &[]);
        known.is_complete = false;
        known.note_asked();
        check(&mut known, "10.0.0.5:8080", "api");
        check(&mut known, "10.0.0.6:81", "(pending)");
        let addresses = HashMap::from([("app".to_owned(), vec!["10.0.0.6:0".parse().unwrap()])]);
        assert!(known.update(Resolved { addresses, ..Resolved::default() }));
        check(&mut known, "10.0.0.6:81", "api");
        check(&mut known, "10.0.0.7:81", "(undeclared)");
    }

    #[test]
    fn a_host_that_nobody_answered_for_has_the_addresses_at_its_port() {
        let mut one = known("http { upstream api { server app:81; } }", &[]);
        check(&mut one, "10.0.0.6:81", "api");
        check(&mut one, "10.0.0.6:82", "(undeclared)");
        let mut two = known("http { upstream api { server app:81; } upstream web { server web:81; } }", &[]);
        check(&mut two, "10.0.0.6:81", "(undeclared)");
    }

    #[test]
    fn where_a_configuration_leads_to_what_it_does_not_list_nothing_is_undeclared() {
        for upstream in
            ["server app.test service=http resolve;", "zone z 1m; state a.state;", "balancer_by_lua_file a;"]
        {
            let mut known = known(&format!("http {{ upstream api {{ {upstream} }} }}"), &[]);
            known.begun = Instant::now() + Duration::from_secs(1);
            check(&mut known, "10.0.0.5:80", "(open)");
        }
        let mut mail =
            known("mail { auth_http 10.0.0.5:9000/a; server { listen 143; protocol imap; } }", &[]);
        check(&mut mail, "10.0.0.5:9000", "auth_http");
        check(&mut mail, "10.0.0.6:143", "(open)");
    }

    #[test]
    fn an_address_of_a_followed_name_is_judged_by_a_lookup_that_is_begun_later() {
        let text = "http { resolver 127.0.0.1; server { set $app app.test; location / { proxy_pass http://$app:81; } } }";
        let mut known = known(text, &[("app.test", &["10.0.0.5"])]);
        check(&mut known, "10.0.0.5:81", "app.test");
        check(&mut known, "10.0.0.6:81", "(pending)");
        // One that was under way already says nothing of it.
        let answer = |ip: &str| Resolved {
            addresses: HashMap::from([(
                "app.test".to_owned(),
                vec![SocketAddr::new(ip.parse().unwrap(), 0)],
            )]),
            ..Resolved::default()
        };
        known.asked = Some(known.begun);
        assert!(!known.update(answer("10.0.0.5")), "nothing new");
        check(&mut known, "10.0.0.6:81", "(pending)");
        known.note_asked();
        assert!(known.update(answer("10.0.0.6")), "an address is new");
        check(&mut known, "10.0.0.6:81", "app.test");
        // What it was before, it stays.
        check(&mut known, "10.0.0.5:81", "app.test");
        check(&mut known, "10.0.0.7:81", "(pending)");
        known.note_asked();
        assert!(!known.update(answer("10.0.0.6")), "nothing new");
        check(&mut known, "10.0.0.7:81", "(undeclared)");
    }

    /// What 8 times as much takes may be so many times as much: 8, and some more on a machine that has other things to do.
    const LINEAR: u32 = 8 * 5;

    #[track_caller]
    fn check_is_linear(what: &str, time: impl Fn(usize) -> Duration) {
        let (few, many) = (time(500), time(4_000));
        assert!(many < few * LINEAR, "{what}: {few:?}, with 8 times as much {many:?}");
    }

    /// Upstreams of one host name and of one address each, and all of them of one more address.
    fn many(count: usize) -> KnownConfig {
        let mut text = "http { resolver 127.0.0.1; ".to_owned();
        for n in 0..count {
            let (high, low) = (n / 250, n % 250);
            write!(
                text,
                "upstream u{n} {{ zone u{n} 1m; server h{n}.test:81 resolve; server 10.0.{high}.{low}:80; server 10.9.9.9:80; }} "
            )
            .unwrap();
        }
        text.push('}');
        known(&text, &[])
    }

    #[test]
    fn to_find_an_address_takes_no_longer_in_a_large_configuration() {
        check_is_linear("finding what is not there", |count| {
            let mut known = many(count);
            known.begun = Instant::now() + Duration::from_secs(60);
            let start = time_of_thread();
            for n in 0..count {
                let address = format!("10.1.{}.{}:99", n / 250, n % 250);
                check(&mut known, &address, "(undeclared)");
            }
            time_of_thread() - start
        });
    }

    #[test]
    fn what_names_resolve_to_is_taken_in_linear_time() {
        check_is_linear("indexing", |count| {
            let start = time_of_thread();
            let _ = many(count);
            time_of_thread() - start
        });
        check_is_linear("taking addresses", |count| {
            let mut known = many(count);
            let addresses = (0..count).map(|n| (format!("h{n}.test"), vec!["10.0.0.1:0".parse().unwrap()]));
            let addresses: HashMap<_, _> = addresses.collect();
            let start = time_of_thread();
            assert!(known.update(Resolved { addresses, ..Resolved::default() }));
            time_of_thread() - start
        });
    }

    #[test]
    fn of_a_name_that_always_has_other_addresses_the_newest_are_remembered() {
        let mut known = known("http { upstream a { server app.test:80; } }", &[]);
        let addresses = |from: u32| -> Vec<SocketAddr> {
            let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n);
            (from..from + 1000).map(|n| SocketAddr::new(ip(n).into(), 0)).collect()
        };
        for round in 0..10 {
            let addresses = HashMap::from([("app.test".to_owned(), addresses(round * 1000))]);
            known.update(Resolved { addresses, ..Resolved::default() });
        }
        let all = &known.configuration.resolved.addresses["app.test"];
        assert_eq!(all.len(), MAX_ADDRESSES_OF_NAME);
        assert!(all.ends_with(&addresses(9000)));
    }
}
