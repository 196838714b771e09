//! Which upstream a connect belongs to: asks the reader for the configuration of each generation of each proxy, and names
//! addresses by it. An answer takes some milliseconds, so a name can be pending.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::RowKey;

use crate::{
    model::{Address, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
    nginx::names::Names,
    reader::{Addresses, Answer, Configuration, Lookup, Of, Question, Reply, Request, client::Reader},
};

/// How long an answer is waited for: more than the reader gives itself (10 s).
const PATIENCE: Duration = Duration::from_secs(12);

/// Names that nginx follows are not looked up more often, whatever their answers say, or how many addresses are new.
const SELDOM: Duration = Duration::from_secs(1);

/// How long an address holds that no name server gave a time for: from /etc/hosts, or none at all.
const UNLIMITED: Duration = Duration::from_secs(30);

/// So many addresses of one name are remembered; with more the oldest answers are forgotten.
const MOST_ADDRESSES: usize = 4096;

/// The upstreams of all traced proxies.
pub struct Naming {
    /// `None` once it is gone.
    reader: Option<Reader>,
    /// Instead of the configuration that the running process names.
    config: Option<PathBuf>,
    states: HashMap<Of, State>,
    /// What a row of the ledger was called when it was first seen: a counter must not change its name.
    decided: HashMap<RowKey, Arc<str>>,
    undeclared: Arc<str>,
    unknown: Arc<str>,
}

enum State {
    /// The configuration was asked for, then; where a process that was forked since then may know more, that one.
    Asked(Instant, Option<u32>),
    Known(Box<Known>),
    /// None of its processes is an nginx yet.
    NoNginx,
    Unknown,
}

/// What one generation is configured to do.
struct Known {
    configuration: Configuration,
    names: Names,
    /// When the last lookup of followed names was begun that has ended, and when it ended.
    begun: Instant,
    looked_up: Instant,
    /// They are being looked up, since then.
    asked: Option<Instant>,
    /// Addresses that no name had, and when they were first seen: only a lookup that is begun later can tell.
    unmatched: HashMap<Address, Instant>,
}

impl Naming {
    /// Nothing known yet. `config` is read instead of the file that the running process names.
    #[must_use]
    pub fn new(reader: Reader, config: Option<PathBuf>) -> Self {
        Self {
            reader: Some(reader),
            config,
            states: HashMap::new(),
            decided: HashMap::new(),
            undeclared: UNDECLARED_UPSTREAM.into(),
            unknown: UNKNOWN_UPSTREAM.into(),
        }
    }

    /// Whether the configuration of `of` was asked for.
    #[must_use]
    pub fn is_asked(&self, of: Of) -> bool {
        self.states.contains_key(&of)
    }

    /// Whether an answer is on its way.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.states.values().any(|state| match state {
            State::Asked(since, _) => since.elapsed() < PATIENCE,
            State::Known(known) => known.asked.is_some(),
            State::NoNginx | State::Unknown => false,
        })
    }

    /// Asks for the configuration, once; `pids` are the processes of it, the most likely master first.
    pub fn ask(&mut self, of: Of, pids: Vec<u32>) {
        if self.is_asked(of) {
            return;
        }
        let is_asked = self.send(of, pids, Question::Configuration);
        self.states.insert(of, if is_asked { State::Asked(Instant::now(), None) } else { State::Unknown });
    }

    /// A process of it was forked: the first nginx in a tree, perhaps.
    pub fn forked(&mut self, of: Of, pid: u32) {
        match self.states.get_mut(&of) {
            Some(State::Asked(_, forked)) => *forked = Some(pid),
            Some(State::NoNginx) => {
                self.states.remove(&of);
                self.ask(of, vec![pid]);
            }
            _ => {}
        }
    }

    /// What the upstream at `address` is called; `None` while that is not known yet.
    pub fn upstream(&mut self, row: &RowKey, address: &Address) -> Option<Arc<str>> {
        if let Some(name) = self.decided.get(row) {
            return Some(Arc::clone(name));
        }
        let name = match self.states.get_mut(&of_row(row))? {
            State::Asked(since, _) if since.elapsed() < PATIENCE => return None,
            State::Asked(..) | State::NoNginx | State::Unknown => Arc::clone(&self.unknown),
            State::Known(known) => match known.find(address) {
                Found::Named(name) => name.into(),
                Found::Pending => return None,
                Found::Open => Arc::clone(&self.unknown),
                Found::Undeclared => Arc::clone(&self.undeclared),
            },
        };
        self.decided.insert(*row, Arc::clone(&name));
        Some(name)
    }

    /// Stands for an upstream that is not known.
    #[must_use]
    pub fn unknown(&self) -> Arc<str> {
        Arc::clone(&self.unknown)
    }

    /// Takes an answer; what of it people should hear, if anything.
    pub fn answer(&mut self, reply: Reply) -> Vec<String> {
        let Some(state) = self.states.get_mut(&reply.of) else { return Vec::new() };
        match (reply.answer, state) {
            (Answer::Configuration(configuration), state) => {
                let problems = configuration.addresses.problems.clone();
                *state = State::Known(Box::new(Known::new(*configuration)));
                problems
            }
            (Answer::Addresses(addresses), State::Known(known)) => {
                known.update(addresses);
                Vec::new()
            }
            // Names that could not be looked up again: what was found before holds.
            (Answer::Unreadable(_) | Answer::NoNginx, State::Known(known)) => {
                known.note_lookup();
                Vec::new()
            }
            (Answer::Unreadable(why), state) => {
                *state = State::Unknown;
                vec![format!("{why}; its upstreams are traced as {UNKNOWN_UPSTREAM:?}")]
            }
            (Answer::NoNginx | Answer::Addresses(_), state) => {
                let forked = if let State::Asked(_, forked) = state { forked.take() } else { None };
                *state = State::NoNginx;
                if let Some(pid) = forked {
                    self.forked(reply.of, pid);
                }
                Vec::new()
            }
        }
    }

    /// The generations whose followed names are due to be looked up again.
    pub fn due(&self) -> Vec<Of> {
        let due = self.states.iter().filter_map(|(of, state)| match state {
            State::Known(known) if known.is_due() => Some(*of),
            _ => None,
        });
        due.collect()
    }

    /// Looks the followed names of `of` up again.
    pub fn follow(&mut self, of: Of, pids: Vec<u32>) {
        let Some(State::Known(known)) = self.states.get(&of) else { return };
        let lookups = Lookup::followed(&known.configuration.routes);
        let is_asked = self.send(of, pids, Question::Addresses(lookups));
        if let Some(State::Known(known)) = self.states.get_mut(&of).filter(|_| is_asked) {
            known.asked = Some(Instant::now());
        }
    }

    /// Whether the address would be named by an answer that is due or on its way.
    #[must_use]
    pub fn needs_lookup(&self, of: Of, address: &Address) -> bool {
        matches!(self.states.get(&of), Some(State::Known(known)) if known.asked.is_none()
            && known.looked_up.elapsed() >= SELDOM && known.unmatched.contains_key(address))
    }

    /// The configuration of a generation, where it is known.
    #[must_use]
    pub fn configuration(&self, of: Of) -> Option<(&Configuration, &Names)> {
        match self.states.get(&of)? {
            State::Known(known) => Some((&known.configuration, &known.names)),
            _ => None,
        }
    }

    /// Forgets all generations and rows but these.
    pub fn retain(&mut self, generations: &HashSet<Of>, rows: &HashSet<RowKey>) -> Vec<(Of, Names)> {
        self.decided.retain(|row, _| rows.contains(row));
        let gone: Vec<_> = self.states.keys().filter(|of| !generations.contains(of)).copied().collect();
        let forgotten = gone.into_iter().filter_map(|of| match self.states.remove(&of)? {
            State::Known(known) => Some((of, known.names)),
            _ => None,
        });
        forgotten.collect()
    }

    fn send(&mut self, of: Of, pids: Vec<u32>, question: Question) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        match reader.ask(&Request { of, pids, config: self.config.clone(), question }) {
            Ok(()) => true,
            // That it is gone is told where its answers are read.
            Err(_) => {
                self.reader = None;
                false
            }
        }
    }
}

enum Found<'a> {
    Named(&'a str),
    /// Names that are followed have to be looked up again to tell.
    Pending,
    /// The configuration cannot tell where it connects to.
    Open,
    Undeclared,
}

impl Known {
    fn new(configuration: Configuration) -> Self {
        let names = Names::new(&configuration.routes, &configuration.addresses.of);
        let now = Instant::now();
        Self { configuration, names, begun: now, looked_up: now, asked: None, unmatched: HashMap::new() }
    }

    fn find(&mut self, address: &Address) -> Found<'_> {
        let routes = &self.configuration.routes;
        if let Some(named) = self.names.find(address) {
            return Found::Named(&named.upstream);
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
            None if routes.is_open() => Found::Open,
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

    fn is_due(&self) -> bool {
        let Configuration { routes, addresses, .. } = &self.configuration;
        let configured = routes.followed().filter_map(|(_, resolver)| resolver?.valid_ms).min();
        let told = addresses.valid_seconds.map(|seconds| u64::from(seconds) * 1000);
        let valid = configured.or(told).map_or(UNLIMITED, Duration::from_millis).max(SELDOM);
        match self.asked {
            Some(since) => since.elapsed() >= PATIENCE,
            None => routes.is_followed() && self.looked_up.elapsed() >= valid,
        }
    }

    /// A lookup has ended.
    fn note_lookup(&mut self) {
        self.looked_up = Instant::now();
        self.begun = self.asked.take().unwrap_or(self.looked_up);
    }

    /// Addresses that a name had before keep it: connects to them may still be under way.
    fn update(&mut self, addresses: Addresses) {
        let known = &mut self.configuration.addresses;
        known.valid_seconds = addresses.valid_seconds;
        for (host, ips) in addresses.of {
            let all: &mut Vec<IpAddr> = known.of.entry(host).or_default();
            all.retain(|ip| !ips.contains(ip));
            all.extend(ips);
            all.drain(..all.len().saturating_sub(MOST_ADDRESSES));
        }
        self.names = Names::new(&self.configuration.routes, &known.of);
        self.note_lookup();
    }
}

/// The generation that a row counts for.
#[must_use]
pub const fn of_row(row: &RowKey) -> Of {
    Of { proxy: row.proxy, generation: row.generation }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Instant};

    use super::{Addresses, Configuration, Found, Known};
    use crate::nginx::{routes::Routes, tests::config};

    fn known(text: &str, hosts: &[(&str, &[&str])]) -> Known {
        let of = hosts
            .iter()
            .map(|(host, ips)| ((*host).to_owned(), ips.iter().map(|ip| ip.parse().unwrap()).collect()))
            .collect();
        Known::new(Configuration {
            path: "/etc/nginx/nginx.conf".into(),
            exe: "/usr/sbin/nginx".into(),
            routes: Routes::of(&config(text)),
            addresses: Addresses { of, ..Addresses::default() },
        })
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
    fn a_host_that_nobody_answered_for_has_the_addresses_at_its_port() {
        let mut one = known("http { upstream api { server app:81; } }", &[]);
        check(&mut one, "10.0.0.6:81", "api");
        check(&mut one, "10.0.0.6:82", "(undeclared)");
        let mut two = known("http { upstream api { server app:81; } upstream web { server web:81; } }", &[]);
        check(&mut two, "10.0.0.6:81", "(undeclared)");
    }

    #[test]
    fn an_address_of_a_followed_name_is_judged_by_a_lookup_that_is_begun_later() {
        let text = "http { resolver 127.0.0.1; server { set $app app.test; location / { proxy_pass http://$app:81; } } }";
        let mut known = known(text, &[("app.test", &["10.0.0.5"])]);
        check(&mut known, "10.0.0.5:81", "app.test");
        check(&mut known, "10.0.0.6:81", "(pending)");
        // One that was under way already tells nothing of it.
        let answer = |ip: &str| Addresses {
            of: HashMap::from([("app.test".to_owned(), vec![ip.parse().unwrap()])]),
            ..Addresses::default()
        };
        known.asked = Some(known.begun);
        known.update(answer("10.0.0.5"));
        check(&mut known, "10.0.0.6:81", "(pending)");
        known.asked = Some(Instant::now());
        known.update(answer("10.0.0.6"));
        check(&mut known, "10.0.0.6:81", "app.test");
        // What it was before, it stays.
        check(&mut known, "10.0.0.5:81", "app.test");
        check(&mut known, "10.0.0.7:81", "(pending)");
        known.asked = Some(Instant::now());
        known.update(answer("10.0.0.6"));
        check(&mut known, "10.0.0.7:81", "(undeclared)");
    }
}
