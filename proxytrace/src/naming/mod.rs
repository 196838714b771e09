//! Which upstream a connect belongs to: asks the reader for the configuration of each generation of each proxy, and names
//! addresses by it. An answer takes some milliseconds, so a name can be pending.

mod answers;
mod budget;
mod generations;
mod hosts;
mod known;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use proxytrace_ebpf::abi::RowKey;

use crate::{
    declared::{AddressNames, Configuration, SettingsByPeer},
    model::{Address, NameNow, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
    reader::{Answer, GenerationId, Lookup, Owner, Question, Reply, Request, Resolved, client::Client},
};
use generations::{Asked, Generations, State};
use hosts::MAX_NAMES;
use known::{Found, KnownConfig};

/// The upstreams of all traced proxies.
pub struct Naming {
    /// `None` once it is gone.
    reader: Option<Client>,
    /// Instead of the configuration that the running process names.
    config: Option<PathBuf>,
    /// Whether names are looked up.
    resolves: bool,
    generations: Generations,
    /// What a row of the ledger was called when it was first seen: a counter must not change its name.
    decided: HashMap<RowKey, Arc<str>>,
    undeclared: Arc<str>,
    unknown: Arc<str>,
}

/// What an answer has brought.
#[derive(Debug, Default)]
pub struct Learned {
    /// What people should hear.
    pub problems: Vec<String>,
    /// The generations of which addresses have other names than before, or names other addresses.
    pub anew: Vec<GenerationId>,
    /// Whether it is known what every host name resolves to, as far as that can be known.
    pub is_complete: bool,
}

impl Naming {
    /// Nothing known yet. `config` is read instead of the file that the running process names; names are looked up where it
    /// `resolves`.
    #[must_use]
    pub fn new(reader: Client, config: Option<PathBuf>, resolves: bool) -> Self {
        Self {
            reader: Some(reader),
            config,
            resolves,
            generations: Generations::default(),
            decided: HashMap::new(),
            undeclared: UNDECLARED_UPSTREAM.into(),
            unknown: UNKNOWN_UPSTREAM.into(),
        }
    }

    /// Whether the configuration of `id` was asked for.
    #[must_use]
    pub fn is_asked(&self, id: GenerationId) -> bool {
        self.generations.is_asked(id)
    }

    /// Whether an answer is on its way.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.generations.is_asking()
    }

    /// Whether the upstreams of `id` can be named; `None` for what is no known proxy.
    #[must_use]
    pub fn is_ready(&self, id: GenerationId) -> Option<bool> {
        match self.generations.get(self.generations.read_for(id)) {
            Some(State::Known(known)) => Some(known.is_complete() || !known.is_asked()),
            Some(State::NoKnownProxy) => None,
            Some(State::Asked(_) | State::As(_) | State::Unknown) | None => Some(false),
        }
    }

    /// Asks for the configuration, once; `pids` are the processes of it, the most likely master first. A proxy has one such
    /// question that waits, about its newest generation: the answer is that of the older ones too that have none yet. `taken_ns` is
    /// when the proxy took it, boot time in nanoseconds, where that was seen: what was changed later is not what runs.
    pub fn ask(&mut self, id: GenerationId, pids: Vec<u32>, taken_ns: Option<u64>) {
        if self.is_asked(id) {
            return;
        }
        let is_asked = self.request(id, pids.clone(), taken_ns, Question::Configuration);
        self.generations.set(id, if is_asked { State::Asked(Asked::now(pids)) } else { State::Unknown });
    }

    /// Nobody runs it any more whose configuration could be read.
    pub fn ended(&mut self, id: GenerationId) {
        self.generations.set_ended(id);
    }

    /// Whether it is known what the row is called.
    #[must_use]
    pub fn is_decided(&self, row: &RowKey) -> bool {
        self.decided.contains_key(row)
    }

    /// Asks where the proxy runs. Gives false where there is nobody to answer.
    pub fn locate(&mut self, id: GenerationId, pids: Vec<u32>) -> bool {
        self.send(id, pids, Question::Pod)
    }

    /// A process of it was forked: the first of a known proxy in a tree, perhaps.
    pub fn forked(&mut self, id: GenerationId, pid: u32) {
        match self.generations.get_mut(id) {
            Some(State::Asked(asked)) => asked.forked = Some(pid),
            Some(State::NoKnownProxy) => {
                self.generations.forget(id);
                self.ask(id, vec![pid], None);
            }
            _ => {}
        }
    }

    /// What the upstream at `address` is called; `None` while that is not known yet. It stays so for that row.
    pub fn upstream(&mut self, row: &RowKey, address: &Address) -> Option<Arc<str>> {
        if !self.decided.contains_key(row)
            && let Some(State::Known(known)) =
                self.generations.get_mut(self.generations.read_for(of_row(row)))
        {
            known.note_unmatched(address);
        }
        let name = self.upstream_now(row, address)?;
        self.decided.entry(*row).or_insert_with(|| Arc::clone(&name));
        Some(name)
    }

    /// The same as far as it is known now; nothing is remembered of it.
    #[must_use]
    pub fn upstream_now(&self, row: &RowKey, address: &Address) -> Option<Arc<str>> {
        if let Some(name) = self.decided.get(row) {
            return Some(Arc::clone(name));
        }
        match self.generations.get(self.generations.read_for(of_row(row)))? {
            State::Asked(asked) if asked.is_open() => None,
            State::Asked(..) | State::As(_) | State::NoKnownProxy | State::Unknown => {
                Some(Arc::clone(&self.unknown))
            }
            // Nobody can say whether a configuration has a path that is not known.
            State::Known(_) if address.is_digest() => Some(Arc::clone(&self.unknown)),
            State::Known(known) => match known.find(address) {
                Found::Named(name) => Some(name.into()),
                Found::Pending => None,
                Found::Open => Some(Arc::clone(&self.unknown)),
                Found::Undeclared => Some(Arc::clone(&self.undeclared)),
            },
        }
    }

    /// Whether its configuration is being read.
    #[must_use]
    pub fn is_reading(&self, id: GenerationId) -> bool {
        matches!(self.generations.get(id), Some(State::Asked(_)))
    }

    /// Stands for an upstream that is not known.
    #[must_use]
    pub fn unknown(&self) -> Arc<str> {
        Arc::clone(&self.unknown)
    }

    /// Takes an answer.
    pub fn answer(&mut self, reply: Reply) -> Learned {
        let Reply { id, owner, answer } = reply;
        let Some(state) = self.generations.get_mut(id) else { return Learned::default() };
        match (answer, state) {
            (Answer::Configuration(configuration), _) => self.take_configuration(id, owner, *configuration),
            (Answer::Addresses(resolved), State::Known(_)) => self.take_addresses(id, &resolved),
            // They say nothing of upstreams.
            (
                Answer::Pod(_)
                | Answer::Rejection { .. }
                | Answer::Log { .. }
                | Answer::Hints(_)
                | Answer::Complaints { .. },
                _,
            ) => Learned::default(),
            // Names that could not be looked up again: what was found before holds.
            (Answer::Unreadable(why), State::Known(_)) => {
                self.take_addresses(id, &Resolved { problems: vec![why], ..Resolved::default() })
            }
            (Answer::NoKnownProxy, State::Known(_)) => self.take_addresses(id, &Resolved::default()),
            (Answer::Unreadable(why), _) => self.give_up(id, &why),
            (Answer::NoKnownProxy | Answer::Addresses(_), state) => {
                let forked = if let State::Asked(asked) = state { asked.forked } else { None };
                *state = State::NoKnownProxy;
                if let Some(pid) = forked {
                    self.forked(id, pid);
                }
                Learned::default()
            }
        }
    }

    fn take_configuration(
        &mut self,
        id: GenerationId,
        owner: Owner,
        configuration: Configuration,
    ) -> Learned {
        let path = configuration.path.clone();
        let mut problems: Vec<_> = configuration.changed.iter().map(ToString::to_string).collect();
        let pids = match self.generations.keep(id, owner, configuration) {
            Ok(pids) => pids,
            Err(limit) => return self.give_up(id, &format!("{}: {}", path.display(), limit.problem())),
        };
        let Some(State::Known(known)) = self.generations.get_mut(id) else { return Learned::default() };
        if !self.resolves {
            known.give_up_names();
        }
        if known.hosts.left_out > 0 {
            problems.push(format!(
                "it has {} host names, of which {MAX_NAMES} are looked up: connects to the others are traced as \
                 {UNKNOWN_UPSTREAM:?} or \"{UNDECLARED_UPSTREAM}\"",
                known.hosts.left_out + MAX_NAMES
            ));
        }
        let is_complete = known.is_complete();
        let lookups = known.due();
        // Addresses that stand there as such have their names by now, whatever a name server makes of the rest.
        self.look_up(id, pids, &lookups);
        Learned { problems, anew: vec![id], is_complete }
    }

    /// Takes what names resolve to, for all generations of the proxy that have them.
    fn take_addresses(&mut self, id: GenerationId, resolved: &Resolved) -> Learned {
        let mut learned = Learned { is_complete: true, ..Learned::default() };
        for (other, known) in self.generations.of_proxy(id.proxy) {
            let was_complete = known.is_complete();
            if known.update(resolved.clone()) {
                learned.anew.push(other);
            }
            // Said once.
            if other == id && !was_complete {
                learned.problems.clone_from(&resolved.problems);
            }
        }
        learned
    }

    /// Its configuration is not to be had.
    fn give_up(&mut self, id: GenerationId, why: &str) -> Learned {
        self.generations.give_up(id);
        let problem = format!("{why}; its upstreams are traced as {UNKNOWN_UPSTREAM:?}");
        Learned { problems: vec![problem], ..Learned::default() }
    }

    /// The generations of which names are due to be looked up again.
    #[must_use]
    pub fn due(&self) -> Vec<GenerationId> {
        self.generations.due()
    }

    /// Looks the names of `id` up again that are due.
    pub fn follow(&mut self, id: GenerationId, pids: Vec<u32>) {
        let id = self.generations.read_for(id);
        let lookups = self.generations.known(id).map(KnownConfig::due).unwrap_or_default();
        self.look_up(id, pids, &lookups);
    }

    fn look_up(&mut self, id: GenerationId, pids: Vec<u32>, lookups: &[Lookup]) {
        // One that is on its way may be about the same names.
        if lookups.is_empty() || self.generations.is_asked_for_names(id.proxy) {
            return;
        }
        if self.send(id, pids, Question::Addresses(lookups.to_vec())) {
            self.generations.of_proxy(id.proxy).for_each(|(_, known)| known.note_asked(lookups));
        }
    }

    /// Whether names of a generation are due to be looked up.
    #[must_use]
    pub fn needs_lookup(&self, id: GenerationId) -> bool {
        !self.generations.is_asked_for_names(id.proxy)
            && self.generations.known(id).is_some_and(|known| !known.due().is_empty())
    }

    /// Connects to the address fail in a generation: whether its name stands for another now is to be known soon.
    pub fn note_failing(&mut self, id: GenerationId, address: &Address) {
        if let Some(State::Known(known)) = self.generations.get_mut(self.generations.read_for(id)) {
            known.note_failing(address);
        }
    }

    /// The configuration of a generation, where it is known.
    #[must_use]
    pub fn configuration(&self, id: GenerationId) -> Option<(&Configuration, &AddressNames)> {
        self.generations.known(id).map(|known| (&known.configuration, &known.names))
    }

    /// What the host names of a generation are now that the proxy has looked up once, by name, as far as that is known.
    #[must_use]
    pub fn names_now(&self, id: GenerationId) -> HashMap<String, NameNow> {
        let now = self.generations.known(id).map(KnownConfig::now).unwrap_or_default();
        now.into_iter().filter_map(|(name, now)| Some((name, now?))).collect()
    }

    /// What is known of how long the proxy waits, and for what, where its configuration is known.
    #[must_use]
    pub fn peer_settings(&self, id: GenerationId) -> Option<&SettingsByPeer> {
        self.generations.known(id).map(|known| &known.peer_settings)
    }

    /// Forgets all generations and rows but these.
    pub fn retain(&mut self, generations: &HashSet<GenerationId>, rows: &HashSet<RowKey>) {
        self.decided.retain(|row, _| rows.contains(row));
        self.generations.retain(generations);
    }

    /// Asks why the master `pid` rejected the reload that it was asked for then, boot time in nanoseconds. Gives false where
    /// nobody can say.
    pub fn ask_why(&mut self, id: GenerationId, pid: u32, asked_ns: u64) -> bool {
        self.send(id, vec![pid], Question::Rejection { asked_ns, resolves: self.resolves })
    }

    /// Asks what else is known of why connects to these addresses fail. Gives false where nobody can say.
    pub fn ask_for_hints(&mut self, id: GenerationId, pids: Vec<u32>, addresses: Vec<Address>) -> bool {
        self.send(id, pids, Question::Hints(addresses))
    }

    /// Has the reader follow the error logs of a proxy; `pids` are its processes, the most likely master first.
    pub fn follow_logs(&mut self, id: GenerationId, pids: Vec<u32>) {
        self.send(id, pids, Question::Log);
    }

    fn send(&mut self, id: GenerationId, pids: Vec<u32>, question: Question) -> bool {
        self.request(id, pids, None, question)
    }

    fn request(
        &mut self,
        id: GenerationId,
        pids: Vec<u32>,
        taken_ns: Option<u64>,
        question: Question,
    ) -> bool {
        let Some(reader) = &self.reader else { return false };
        match reader.ask(Request { id, pids, taken_ns, config: self.config.clone(), question }) {
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
