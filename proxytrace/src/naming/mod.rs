//! Which upstream a connect belongs to: asks the reader for the configuration of each generation of each proxy, and names
//! addresses by it. An answer takes some milliseconds, so a name can be pending.

mod known;

use std::{
    collections::{HashMap, HashSet},
    mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::RowKey;

use crate::{
    model::{Address, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
    nginx::names::Names,
    reader::{Answer, Configuration, Lookup, Of, Question, Reply, Request, client::Reader},
};
use known::{Found, Known};

/// How long an answer is waited for: more than the reader gives itself (10 s).
const PATIENCE: Duration = Duration::from_secs(12);

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
    /// The configuration was asked for.
    Asked(Asked),
    Known(Box<Known>),
    /// None of its processes is an nginx yet.
    NoNginx,
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
            State::Asked(asked) => asked.since.elapsed() < PATIENCE,
            State::Known(known) => known.is_asked(),
            State::NoNginx | State::Unknown => false,
        })
    }

    /// Asks for the configuration, once; `pids` are the processes of it, the most likely master first.
    pub fn ask(&mut self, of: Of, pids: Vec<u32>) {
        if self.is_asked(of) {
            return;
        }
        let is_asked = self.send(of, pids.clone(), Question::Configuration);
        let asked = Asked { since: Instant::now(), pids, forked: None };
        self.states.insert(of, if is_asked { State::Asked(asked) } else { State::Unknown });
    }

    /// Nobody can tell the configuration any more.
    pub fn give_up(&mut self, of: Of) {
        self.states.entry(of).or_insert(State::Unknown);
    }

    /// Whether it is known what the row is called.
    #[must_use]
    pub fn is_decided(&self, row: &RowKey) -> bool {
        self.decided.contains_key(row)
    }

    /// Asks where the proxy runs. Gives false where there is nobody to answer.
    pub fn locate(&mut self, of: Of, pids: Vec<u32>) -> bool {
        self.send(of, pids, Question::Pod)
    }

    /// A process of it was forked: the first nginx in a tree, perhaps.
    pub fn forked(&mut self, of: Of, pid: u32) {
        match self.states.get_mut(&of) {
            Some(State::Asked(asked)) => asked.forked = Some(pid),
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
            State::Asked(asked) if asked.since.elapsed() < PATIENCE => return None,
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

    /// Whether its configuration is being read.
    #[must_use]
    pub fn is_reading(&self, of: Of) -> bool {
        matches!(self.states.get(&of), Some(State::Asked(_)))
    }

    /// Stands for an upstream that is not known.
    #[must_use]
    pub fn unknown(&self) -> Arc<str> {
        Arc::clone(&self.unknown)
    }

    /// Takes an answer.
    pub fn answer(&mut self, reply: Reply) -> Heard {
        let Some(state) = self.states.get_mut(&reply.of) else { return Heard::default() };
        match (reply.answer, state) {
            (Answer::Configuration(configuration), state) => {
                let pids =
                    if let State::Asked(asked) = state { mem::take(&mut asked.pids) } else { Vec::new() };
                let lookups = Lookup::all(&configuration.routes);
                let is_complete = lookups.is_empty();
                let problems = configuration.changed.iter().map(ToString::to_string).collect();
                *state = State::Known(Box::new(Known::new(*configuration)));
                // Addresses that stand there as such have their names by now, whatever a name server makes of the rest.
                if !is_complete {
                    self.look_up(reply.of, pids, lookups);
                }
                Heard { problems, names_anew: true, is_complete }
            }
            (Answer::Addresses(mut addresses), State::Known(known)) => {
                // Said once.
                let problems = mem::take(&mut addresses.problems);
                let problems = if known.is_complete() { Vec::new() } else { problems };
                Heard { problems, names_anew: known.update(addresses), is_complete: true }
            }
            // They say nothing of upstreams.
            (Answer::Pod(_) | Answer::Rejection { .. }, _) => Heard::default(),
            // Names that could not be looked up again: what was found before holds.
            (Answer::Unreadable(why), State::Known(known)) => {
                let problems = if known.is_complete() { Vec::new() } else { vec![why] };
                Heard { problems, names_anew: known.note_lookup(), is_complete: true }
            }
            (Answer::NoNginx, State::Known(known)) => {
                Heard { names_anew: known.note_lookup(), is_complete: true, ..Heard::default() }
            }
            (Answer::Unreadable(why), state) => {
                *state = State::Unknown;
                let problem = format!("{why}; its upstreams are traced as {UNKNOWN_UPSTREAM:?}");
                Heard { problems: vec![problem], ..Heard::default() }
            }
            (Answer::NoNginx | Answer::Addresses(_), state) => {
                let forked = if let State::Asked(asked) = state { asked.forked } else { None };
                *state = State::NoNginx;
                if let Some(pid) = forked {
                    self.forked(reply.of, pid);
                }
                Heard::default()
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
        let lookups = known.lookups();
        self.look_up(of, pids, lookups);
    }

    fn look_up(&mut self, of: Of, pids: Vec<u32>, lookups: Vec<Lookup>) {
        let is_asked = self.send(of, pids, Question::Addresses(lookups));
        if let Some(State::Known(known)) = self.states.get_mut(&of).filter(|_| is_asked) {
            known.note_asked();
        }
    }

    /// Whether the address would be named by an answer that is due or on its way.
    #[must_use]
    pub fn needs_lookup(&self, of: Of, address: &Address) -> bool {
        matches!(self.states.get(&of), Some(State::Known(known)) if known.needs_lookup(address))
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

    /// Asks why the master `pid` rejected the reload that it was asked for then, boot time in nanoseconds. Gives false where
    /// nobody can say.
    pub fn ask_why(&mut self, of: Of, pid: u32, asked_ns: u64) -> bool {
        self.send(of, vec![pid], Question::Rejection(asked_ns))
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

/// The generation that a row counts for.
#[must_use]
pub const fn of_row(row: &RowKey) -> Of {
    Of { proxy: row.proxy, generation: row.generation }
}
