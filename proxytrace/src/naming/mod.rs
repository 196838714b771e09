//! Which upstream a connect belongs to: asks the reader for the configuration of each generation of each proxy, and names
//! addresses by it. An answer takes some milliseconds, so a name can be pending.

mod budget;
mod known;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io, mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::RowKey;

use crate::{
    declared::{AddressNames, Configuration},
    model::{Address, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
    reader::{Answer, GenerationId, Lookup, Owner, Question, Reply, Request, client::Client},
};
use budget::{Kept, Limit, Shelf};
use known::{Found, Known};

/// How long an answer is waited for: more than the reader gives itself (20 s).
const PATIENCE: Duration = Duration::from_secs(22);

/// More names of one proxy are not looked up.
const MAX_LOOKUPS: usize = 4096;

/// The upstreams of all traced proxies.
pub struct Naming {
    /// `None` once it is gone.
    reader: Option<Client>,
    /// Instead of the configuration that the running process names.
    config: Option<PathBuf>,
    states: BTreeMap<GenerationId, State>,
    shelf: Shelf,
    /// What a row of the ledger was called when it was first seen: a counter must not change its name.
    decided: HashMap<RowKey, Arc<str>>,
    undeclared: Arc<str>,
    unknown: Arc<str>,
}

enum State {
    /// The configuration was asked for.
    Asked(Asked),
    Known(Box<Known>),
    /// The proxy was reloaded again before its configuration was read: what was read for that generation holds for this one
    /// as well, as it is the same files at the same time.
    As(u32),
    /// None of its processes is of a proxy that is known yet.
    NoKnownProxy,
    Unknown,
}

/// A question about a configuration.
struct Asked {
    since: Instant,
    /// The processes that were named.
    pids: Vec<u32>,
    /// One that was forked since then, and may know more.
    forked: Option<u32>,
}

/// What an answer has brought.
#[derive(Debug, Default)]
pub struct Heard {
    /// What people should hear.
    pub problems: Vec<String>,
    /// Whether addresses have other names than before.
    pub names_anew: bool,
    /// Whether it is known what every host name resolves to, as far as that can be known.
    pub is_complete: bool,
}

impl Naming {
    /// Nothing known yet. `config` is read instead of the file that the running process names.
    #[must_use]
    pub fn new(reader: Client, config: Option<PathBuf>) -> Self {
        Self {
            reader: Some(reader),
            config,
            states: BTreeMap::new(),
            shelf: Shelf::default(),
            decided: HashMap::new(),
            undeclared: UNDECLARED_UPSTREAM.into(),
            unknown: UNKNOWN_UPSTREAM.into(),
        }
    }

    /// Whether the configuration of `of` was asked for.
    #[must_use]
    pub fn is_asked(&self, of: GenerationId) -> bool {
        self.states.contains_key(&of)
    }

    /// Whether an answer is on its way.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.states.values().any(|state| match state {
            State::Asked(asked) => asked.since.elapsed() < PATIENCE,
            State::Known(known) => known.is_asked(),
            State::As(_) | State::NoKnownProxy | State::Unknown => false,
        })
    }

    /// Whether the upstreams of `of` can be named; `None` for what is no known proxy.
    #[must_use]
    pub fn is_ready(&self, of: GenerationId) -> Option<bool> {
        match self.states.get(&self.read_for(of)) {
            Some(State::Known(known)) => Some(known.is_complete() || !known.is_asked()),
            Some(State::NoKnownProxy) => None,
            Some(State::Asked(_) | State::As(_) | State::Unknown) | None => Some(false),
        }
    }

    /// Asks for the configuration, once; `pids` are the processes of it, the most likely master first. A proxy has one such
    /// question that waits, about its newest generation: the answer is that of the older ones too that have none yet.
    pub fn ask(&mut self, of: GenerationId, pids: Vec<u32>) {
        if self.is_asked(of) {
            return;
        }
        let is_asked = self.send(of, pids.clone(), Question::Configuration);
        let asked = Asked { since: Instant::now(), pids, forked: None };
        self.states.insert(of, if is_asked { State::Asked(asked) } else { State::Unknown });
    }

    /// Nobody runs it any more who could tell the configuration.
    pub fn ended(&mut self, of: GenerationId) {
        self.states.entry(of).or_insert(State::Unknown);
    }

    /// Whether it is known what the row is called.
    #[must_use]
    pub fn is_decided(&self, row: &RowKey) -> bool {
        self.decided.contains_key(row)
    }

    /// Asks where the proxy runs. Gives false where there is nobody to answer.
    pub fn locate(&mut self, of: GenerationId, pids: Vec<u32>) -> bool {
        self.send(of, pids, Question::Pod)
    }

    /// A process of it was forked: the first of a known proxy in a tree, perhaps.
    pub fn forked(&mut self, of: GenerationId, pid: u32) {
        match self.states.get_mut(&of) {
            Some(State::Asked(asked)) => asked.forked = Some(pid),
            Some(State::NoKnownProxy) => {
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
        let of = self.read_for(of_row(row));
        let name = match self.states.get_mut(&of)? {
            State::Asked(asked) if asked.since.elapsed() < PATIENCE => return None,
            State::Asked(..) | State::As(_) | State::NoKnownProxy | State::Unknown => {
                Arc::clone(&self.unknown)
            }
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

    /// Whether its configuration is being read.
    #[must_use]
    pub fn is_reading(&self, of: GenerationId) -> bool {
        matches!(self.states.get(&of), Some(State::Asked(_)))
    }

    /// Stands for an upstream that is not known.
    #[must_use]
    pub fn unknown(&self) -> Arc<str> {
        Arc::clone(&self.unknown)
    }

    /// The generation whose configuration was read for `of`: mostly that itself.
    fn read_for(&self, of: GenerationId) -> GenerationId {
        match self.states.get(&of) {
            Some(State::As(generation)) => GenerationId { generation: *generation, ..of },
            _ => of,
        }
    }

    /// Takes an answer.
    pub fn answer(&mut self, reply: Reply) -> Heard {
        let Reply { of, owner, answer } = reply;
        let Some(state) = self.states.get_mut(&of) else { return Heard::default() };
        match (answer, state) {
            (Answer::Configuration(configuration), _) => self.take_configuration(of, owner, *configuration),
            (Answer::Addresses(mut resolved), State::Known(known)) => {
                // Said once.
                let problems = mem::take(&mut resolved.problems);
                let problems = if known.is_complete() { Vec::new() } else { problems };
                Heard { problems, names_anew: known.update(resolved), is_complete: true }
            }
            // They say nothing of upstreams.
            (Answer::Pod(_) | Answer::Rejection { .. }, _) => Heard::default(),
            // Names that could not be looked up again: what was found before holds.
            (Answer::Unreadable(why), State::Known(known)) => {
                let problems = if known.is_complete() { Vec::new() } else { vec![why] };
                Heard { problems, names_anew: known.note_lookup(), is_complete: true }
            }
            (Answer::NoKnownProxy, State::Known(known)) => {
                Heard { names_anew: known.note_lookup(), is_complete: true, ..Heard::default() }
            }
            (Answer::Unreadable(why), _) => self.give_up(of, &why),
            (Answer::NoKnownProxy | Answer::Addresses(_), state) => {
                let forked = if let State::Asked(asked) = state { asked.forked } else { None };
                *state = State::NoKnownProxy;
                if let Some(pid) = forked {
                    self.forked(of, pid);
                }
                Heard::default()
            }
        }
    }

    fn take_configuration(
        &mut self,
        of: GenerationId,
        owner: Owner,
        mut configuration: Configuration,
    ) -> Heard {
        configuration.routes = self.shelf.share(configuration.routes);
        let bytes = budget::bytes(&configuration.routes);
        if let Some(limit) = self.make_room(of, owner, &configuration, bytes) {
            return self.give_up(of, &format!("{}: {}", configuration.path.display(), limit.problem()));
        }
        let mut lookups = Lookup::all(&configuration.routes);
        let mut problems: Vec<_> = configuration.changed.iter().map(ToString::to_string).collect();
        if lookups.len() > MAX_LOOKUPS {
            problems.push(format!(
                "it has {} host names, of which {MAX_LOOKUPS} are looked up: connects to the others are traced as \
                 {UNKNOWN_UPSTREAM:?} or \"{UNDECLARED_UPSTREAM}\"",
                lookups.len()
            ));
            lookups.truncate(MAX_LOOKUPS);
        }
        let is_complete = lookups.is_empty();
        let known = State::Known(Box::new(Known::new(configuration, owner, bytes)));
        let pids = match self.states.insert(of, known) {
            Some(State::Asked(asked)) => asked.pids,
            _ => Vec::new(),
        };
        self.settle_older(of, || State::As(of.generation));
        // Addresses that stand there as such have their names by now, whatever a name server makes of the rest.
        if !is_complete {
            self.look_up(of, pids, lookups);
        }
        Heard { problems, names_anew: true, is_complete }
    }

    /// Its configuration is not to be had.
    fn give_up(&mut self, of: GenerationId, why: &str) -> Heard {
        self.states.insert(of, State::Unknown);
        self.settle_older(of, || State::Unknown);
        let problem = format!("{why}; its upstreams are traced as {UNKNOWN_UPSTREAM:?}");
        Heard { problems: vec![problem], ..Heard::default() }
    }

    /// Generations before `of` whose questions gave way to that about it.
    fn settle_older(&mut self, of: GenerationId, state: impl Fn() -> State) {
        let older = self.states.range_mut(GenerationId { generation: 0, ..of }..of);
        for (_, older) in older.filter(|(_, state)| matches!(state, State::Asked(_))) {
            *older = state();
        }
    }

    /// Forgets the configurations of a proxy's oldest generations until the new one fits; gives what is in the way if it does
    /// not even then. What rows of those were called before they stay.
    fn make_room(
        &mut self,
        of: GenerationId,
        owner: Owner,
        configuration: &Configuration,
        bytes: usize,
    ) -> Option<Limit> {
        let new = Kept { proxy: of.proxy, owner, routes: &configuration.routes, bytes };
        loop {
            let kept = self.states.iter().filter_map(|(of, state)| match state {
                State::Known(known) => {
                    let Known { configuration, owner, bytes, .. } = &**known;
                    Some(Kept {
                        proxy: of.proxy,
                        owner: *owner,
                        routes: &configuration.routes,
                        bytes: *bytes,
                    })
                }
                _ => None,
            });
            let limit = budget::exceeded(new, kept)?;
            let mut older = self.states.range_mut(GenerationId { generation: 0, ..of }..of);
            let Some((_, oldest)) = older.find(|(_, state)| matches!(state, State::Known(_))) else {
                return Some(limit);
            };
            *oldest = State::Unknown;
        }
    }

    /// The generations whose followed names are due to be looked up again.
    pub fn due(&self) -> Vec<GenerationId> {
        let due = self.states.iter().filter_map(|(of, state)| match state {
            State::Known(known) if known.is_due() => Some(*of),
            _ => None,
        });
        due.collect()
    }

    /// Looks the followed names of `of` up again.
    pub fn follow(&mut self, of: GenerationId, pids: Vec<u32>) {
        let of = self.read_for(of);
        let Some(State::Known(known)) = self.states.get(&of) else { return };
        let mut lookups = known.lookups();
        lookups.truncate(MAX_LOOKUPS);
        self.look_up(of, pids, lookups);
    }

    fn look_up(&mut self, of: GenerationId, pids: Vec<u32>, lookups: Vec<Lookup>) {
        let is_asked = self.send(of, pids, Question::Addresses(lookups));
        if let Some(State::Known(known)) = self.states.get_mut(&of).filter(|_| is_asked) {
            known.note_asked();
        }
    }

    /// Whether the address would be named by an answer that is due or on its way.
    #[must_use]
    pub fn needs_lookup(&self, of: GenerationId, address: &Address) -> bool {
        let of = self.read_for(of);
        matches!(self.states.get(&of), Some(State::Known(known)) if known.needs_lookup(address))
    }

    /// The configuration of a generation, where it is known.
    #[must_use]
    pub fn configuration(&self, of: GenerationId) -> Option<(&Configuration, &AddressNames)> {
        match self.states.get(&self.read_for(of))? {
            State::Known(known) => Some((&known.configuration, &known.names)),
            _ => None,
        }
    }

    /// Forgets all generations and rows but these.
    pub fn retain(&mut self, generations: &HashSet<GenerationId>, rows: &HashSet<RowKey>) {
        self.decided.retain(|row, _| rows.contains(row));
        // What was read for several stays as long as one of them does.
        let used: HashSet<_> = generations.iter().flat_map(|of| [*of, self.read_for(*of)]).collect();
        self.states.retain(|of, _| used.contains(of));
        self.shelf.tidy();
    }

    /// Asks why the master `pid` rejected the reload that it was asked for then, boot time in nanoseconds. Gives false where
    /// nobody can say.
    pub fn ask_why(&mut self, of: GenerationId, pid: u32, asked_ns: u64) -> bool {
        self.send(of, vec![pid], Question::Rejection(asked_ns))
    }

    fn send(&mut self, of: GenerationId, pids: Vec<u32>, question: Question) -> bool {
        let Some(reader) = &self.reader else { return false };
        match reader.ask(Request { of, pids, config: self.config.clone(), question }) {
            Ok(()) => true,
            Err(error) => {
                // That it is gone is said where its answers are read.
                if error.kind() == io::ErrorKind::BrokenPipe {
                    self.reader = None;
                }
                false
            }
        }
    }
}

/// The generation that a row counts for.
#[must_use]
pub const fn of_row(row: &RowKey) -> GenerationId {
    GenerationId { proxy: row.proxy, generation: row.generation }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc, time::Instant};

    use proxytrace_ebpf::abi::RowKey;

    use super::{
        Answer, Asked, BTreeMap, Configuration, GenerationId, HashMap, Naming, Owner, Reply, Shelf, State,
        budget::{MAX_OF_OWNER, MAX_OF_PROXY},
    };
    use crate::{
        declared::{Resolved, Routes, Upstream},
        model::Address,
        nginx::tests::routes_of,
    };

    /// A proxy's generations, of which the configuration was asked for.
    fn asked(generations: &[GenerationId]) -> Naming {
        let state = || State::Asked(Asked { since: Instant::now(), pids: Vec::new(), forked: None });
        Naming {
            reader: None,
            config: None,
            states: generations.iter().map(|of| (*of, state())).collect::<BTreeMap<_, _>>(),
            shelf: Shelf::default(),
            decided: HashMap::new(),
            undeclared: "undeclared".into(),
            unknown: "unknown".into(),
        }
    }

    const fn of(proxy: u64, generation: u32) -> GenerationId {
        GenerationId { proxy, generation }
    }

    fn reply(of: GenerationId, uid: u32, text: &str) -> Reply {
        let configuration = Configuration {
            path: "/etc/nginx/nginx.conf".into(),
            exe: "/usr/sbin/nginx".into(),
            routes: Arc::new(routes_of(text)),
            changed: None,
            resolved: Resolved::default(),
        };
        let owner = Owner { uid, pid_namespace: 0 };
        Reply { of, owner, answer: Answer::Configuration(Box::new(configuration)) }
    }

    /// What a row of the generation is called now; empty where that is not known.
    fn name(naming: &mut Naming, of: GenerationId, address: &str) -> String {
        let address: Address = address.parse().unwrap();
        let row = RowKey { proxy: of.proxy, generation: of.generation, address: address.to_abi().unwrap() };
        naming.upstream(&row, &address).map_or_else(String::new, |name| name.to_string())
    }

    #[test]
    fn what_was_read_for_a_generation_names_the_older_ones_that_were_not_read() {
        const TEXT: &str = "http { upstream api { server 10.0.0.5:80; } }";
        let mut naming = asked(&[of(1, 3), of(1, 4), of(1, 5), of(2, 3)]);
        naming.answer(reply(of(1, 4), 0, TEXT));
        assert_eq!(name(&mut naming, of(1, 3), "10.0.0.5:80"), "api");
        assert_eq!(name(&mut naming, of(1, 4), "10.0.0.5:80"), "api");
        assert_eq!(name(&mut naming, of(1, 5), "10.0.0.5:80"), "", "it is newer");
        assert_eq!(name(&mut naming, of(2, 3), "10.0.0.5:80"), "", "it is another");
        assert!(naming.configuration(of(1, 3)).is_some());
        // It stays as long as somebody uses it.
        naming.retain(&HashSet::from([of(1, 3)]), &HashSet::new());
        assert!(naming.is_asked(of(1, 3)));
        assert_eq!(name(&mut naming, of(1, 3), "10.0.0.6:80"), "undeclared");
        naming.retain(&HashSet::new(), &HashSet::new());
        assert!(naming.states.is_empty());
    }

    #[test]
    fn why_a_configuration_cannot_be_read_holds_for_older_generations_as_well() {
        let mut naming = asked(&[of(1, 0), of(1, 1)]);
        let answer = Answer::Unreadable("no such file".to_owned());
        let heard = naming.answer(Reply { of: of(1, 1), owner: Owner::UNKNOWN, answer });
        assert_eq!(heard.problems, ["no such file; its upstreams are traced as \"unknown\""]);
        assert_eq!(name(&mut naming, of(1, 0), "10.0.0.5:80"), "unknown");
    }

    #[test]
    fn a_proxys_oldest_generations_make_room_and_what_does_not_fit_is_unknown() {
        /// The same with one more upstream, whose name is as long as that.
        fn large(of: GenerationId, uid: u32, mark: &str, bytes: usize) -> Reply {
            let mut reply = reply(of, uid, &format!("http {{ upstream {mark} {{ server 10.0.0.6:80; }} }}"));
            if let Answer::Configuration(configuration) = &mut reply.answer {
                let mut routes = Routes::clone(&configuration.routes);
                routes.upstreams.push(Upstream {
                    name: "a".repeat(bytes),
                    peers: Vec::new(),
                    ..routes.upstreams[0].clone()
                });
                configuration.routes = Arc::new(routes);
            }
            reply
        }
        let mut naming = asked(&[of(1, 0), of(1, 1), of(2, 0), of(3, 0)]);
        let two_thirds = MAX_OF_PROXY / 3 * 2;
        for generation in 0..2 {
            let heard = naming.answer(large(of(1, generation), 1, &format!("g{generation}"), two_thirds));
            assert!(heard.problems.is_empty(), "{:?}", heard.problems);
        }
        assert_eq!(name(&mut naming, of(1, 1), "10.0.0.6:80"), "g1");
        assert_eq!(name(&mut naming, of(1, 0), "10.0.0.6:80"), "unknown", "it made room");
        // Another of the same owner does not drive it out, another owner's has room.
        let part = MAX_OF_OWNER / 10 * 6;
        let heard = naming.answer(large(of(2, 0), 1, "g2", part));
        assert!(
            heard.problems[0].contains("of all proxies of the same user at most 48 MiB"),
            "{:?}",
            heard.problems
        );
        assert_eq!(name(&mut naming, of(2, 0), "10.0.0.6:80"), "unknown");
        assert!(naming.answer(large(of(3, 0), 2, "g2", part)).problems.is_empty());
        assert_eq!(name(&mut naming, of(3, 0), "10.0.0.6:80"), "g2");
    }
}
