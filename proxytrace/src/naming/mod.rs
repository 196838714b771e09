//! Which upstream a connect belongs to: asks the reader for the configuration of each generation of each proxy, and names
//! addresses by it. An answer takes some milliseconds, so a name can be pending.

mod known;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::RowKey;

use crate::{
    model::{Address, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
    nginx::names::Names,
    reader::{Answer, Configuration, Of, Question, Reply, Request, client::Reader},
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
    /// The configuration was asked for, then; where a process that was forked since then may know more, that one.
    Asked(Instant, Option<u32>),
    Known(Box<Known>),
    /// None of its processes is an nginx yet.
    NoNginx,
    Unknown,
}

/// What an answer has brought.
#[derive(Debug, Default)]
pub struct Heard {
    /// What people should hear.
    pub problems: Vec<String>,
    /// Whether addresses have other names than before.
    pub names_anew: bool,
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
            State::Known(known) => known.is_asked(),
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

    /// Asks where the proxy runs. Gives false where there is nobody to answer.
    pub fn locate(&mut self, of: Of, pids: Vec<u32>) -> bool {
        self.send(of, pids, Question::Pod)
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

    /// Takes an answer.
    pub fn answer(&mut self, reply: Reply) -> Heard {
        let Some(state) = self.states.get_mut(&reply.of) else { return Heard::default() };
        match (reply.answer, state) {
            (Answer::Configuration(configuration), state) => {
                let problems = configuration.addresses.problems.clone();
                *state = State::Known(Box::new(Known::new(*configuration)));
                Heard { problems, names_anew: true }
            }
            (Answer::Addresses(addresses), State::Known(known)) => {
                Heard { problems: Vec::new(), names_anew: known.update(addresses) }
            }
            // It says nothing of upstreams.
            (Answer::Pod(_), _) => Heard::default(),
            // Names that could not be looked up again: what was found before holds.
            (Answer::Unreadable(_) | Answer::NoNginx, State::Known(known)) => {
                known.note_lookup();
                Heard::default()
            }
            (Answer::Unreadable(why), state) => {
                *state = State::Unknown;
                let problem = format!("{why}; its upstreams are traced as {UNKNOWN_UPSTREAM:?}");
                Heard { problems: vec![problem], names_anew: false }
            }
            (Answer::NoNginx | Answer::Addresses(_), state) => {
                let forked = if let State::Asked(_, forked) = state { forked.take() } else { None };
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
        let is_asked = self.send(of, pids, Question::Addresses(known.lookups()));
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
