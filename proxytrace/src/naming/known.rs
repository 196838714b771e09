//! What one generation is configured to do, and what it calls an address. Names that nginx follows are looked up again.

use std::{
    collections::HashMap,
    mem,
    time::{Duration, Instant},
};

use super::PATIENCE;
use crate::{
    model::Address,
    nginx::names::Names,
    reader::{Addresses, Configuration, Lookup},
};

/// Names that nginx follows are not looked up more often, whatever their answers say, or how many addresses are new.
const SELDOM: Duration = Duration::from_secs(1);

/// How long an address holds that no name server gave a time for: from /etc/hosts, or none at all.
const UNLIMITED: Duration = Duration::from_secs(30);

/// So many addresses of one name are remembered; with more the oldest answers are forgotten.
const MOST_ADDRESSES: usize = 4096;

/// What one generation is configured to do.
pub(super) struct Known {
    pub(super) configuration: Configuration,
    pub(super) names: Names,
    /// When the last lookup of followed names was begun that has ended, and when it ended.
    begun: Instant,
    looked_up: Instant,
    /// They are being looked up, since then.
    asked: Option<Instant>,
    /// A lookup has ended: before the first has, host names have no addresses.
    is_complete: bool,
    /// Addresses that no name had, and when they were first seen: only a lookup that is begun later can tell.
    unmatched: HashMap<Address, Instant>,
}

/// What is found of an address.
pub(super) enum Found<'a> {
    Named(&'a str),
    /// Names that are followed have to be looked up again to tell.
    Pending,
    /// The configuration cannot tell where it connects to.
    Open,
    Undeclared,
}

impl Known {
    /// All that is known but for what host names resolve to.
    pub(super) fn new(configuration: Configuration) -> Self {
        let names = Names::new(&configuration.routes, &configuration.addresses.of);
        let now = Instant::now();
        Self {
            configuration,
            names,
            begun: now,
            looked_up: now,
            asked: None,
            is_complete: false,
            unmatched: HashMap::new(),
        }
    }

    pub(super) fn find(&mut self, address: &Address) -> Found<'_> {
        let routes = &self.configuration.routes;
        if let Some(named) = self.names.find(address) {
            return Found::Named(&named.upstream);
        }
        if !self.is_complete && self.asked.is_some_and(|since| since.elapsed() < PATIENCE) {
            return Found::Pending;
        }
        if routes.is_followed() {
            if self.unmatched.len() >= MOST_ADDRESSES {
                self.unmatched.clear();
            }
            // nginx may have learned of it after we last looked.
            let first = *self.unmatched.entry(address.clone()).or_insert_with(Instant::now);
            if first >= self.begun {
                return Found::Pending;
            }
        }
        match self.of_a_host_without_answer(address.port()) {
            Some(upstream) => Found::Named(upstream),
            None if routes.is_open(&self.configuration.addresses.of) => Found::Open,
            None => Found::Undeclared,
        }
    }

    /// The upstream of a host that nobody answered for, where only one has such a port: nginx got an answer when it started.
    fn of_a_host_without_answer(&self, port: u16) -> Option<&str> {
        let Configuration { routes, addresses, .. } = &self.configuration;
        let mut candidates = routes.upstreams.iter().filter(|upstream| {
            upstream.peers.iter().any(|peer| {
                peer.endpoint.host().is_some_and(|host| !addresses.of.contains_key(host))
                    && peer.endpoint.port() == port
            })
        });
        let only = candidates.next()?;
        candidates.next().is_none().then_some(&only.name)
    }

    pub(super) fn is_due(&self) -> bool {
        let Configuration { routes, addresses, .. } = &self.configuration;
        let configured = routes.followed().filter_map(|(_, resolver)| resolver?.valid_ms).min();
        let told = addresses.valid_seconds.map(|seconds| u64::from(seconds) * 1000);
        let valid = configured.or(told).map_or(UNLIMITED, Duration::from_millis).max(SELDOM);
        match self.asked {
            Some(since) => since.elapsed() >= PATIENCE,
            None => routes.is_followed() && self.looked_up.elapsed() >= valid,
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

    /// What there is to look up then.
    pub(super) fn lookups(&self) -> Vec<Lookup> {
        Lookup::followed(&self.configuration.routes)
    }

    /// Whether a lookup that is begun now could tell the name of this address.
    pub(super) fn needs_lookup(&self, address: &Address) -> bool {
        self.asked.is_none() && self.looked_up.elapsed() >= SELDOM && self.unmatched.contains_key(address)
    }

    /// A lookup has ended. Gives whether it was the first.
    pub(super) fn note_lookup(&mut self) -> bool {
        self.looked_up = Instant::now();
        self.begun = self.asked.take().unwrap_or(self.looked_up);
        !mem::replace(&mut self.is_complete, true)
    }

    /// Takes what names resolve to now, and says whether that names any address anew, or is the first time. Addresses that a name had before keep it:
    /// connects to them may still be under way.
    pub(super) fn update(&mut self, addresses: Addresses) -> bool {
        let is_first = self.note_lookup();
        let known = &mut self.configuration.addresses;
        known.valid_seconds = addresses.valid_seconds;
        let mut is_new = false;
        for (name, found) in addresses.of {
            let all = known.of.entry(name).or_default();
            is_new |= found.iter().any(|one| !all.contains(one));
            all.retain(|one| !found.contains(one));
            all.extend(found);
            all.drain(..all.len().saturating_sub(MOST_ADDRESSES));
        }
        if is_new {
            self.names = Names::new(&self.configuration.routes, &known.of);
        }
        is_new || is_first
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        net::SocketAddr,
        time::{Duration, Instant},
    };

    use super::{Addresses, Configuration, Found, Known};
    use crate::nginx::{routes::Routes, tests::config};

    fn known(text: &str, hosts: &[(&str, &[&str])]) -> Known {
        let of = hosts
            .iter()
            .map(|(host, ips)| {
                ((*host).to_owned(), ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect())
            })
            .collect();
        let mut known = Known::new(Configuration {
            path: "/etc/nginx/nginx.conf".into(),
            exe: "/usr/sbin/nginx".into(),
            routes: Routes::of(&config(text)),
            changed: None,
            addresses: Addresses { of, ..Addresses::default() },
        });
        known.note_lookup();
        known
    }

    #[track_caller]
    fn check(known: &mut Known, address: &str, expected: &str) {
        let found = match known.find(&address.parse().unwrap()) {
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
        let of = HashMap::from([("app".to_owned(), vec!["10.0.0.6:0".parse().unwrap()])]);
        assert!(known.update(Addresses { of, ..Addresses::default() }));
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
        // One that was under way already tells nothing of it.
        let answer = |ip: &str| Addresses {
            of: HashMap::from([("app.test".to_owned(), vec![SocketAddr::new(ip.parse().unwrap(), 0)])]),
            ..Addresses::default()
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
}
