//! What is known of each generation of each proxy, and how much of that is kept.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    budget::{self, Kept, Limit, Shelf},
    known::KnownConfig,
};
use crate::{
    declared::Configuration,
    reader::{GenerationId, Owner},
};

/// How long a configuration is waited for: more than the reader gives itself (20 s).
const CONFIGURATION_TIMEOUT: Duration = Duration::from_secs(22);

/// What is known of a generation.
pub(super) enum State {
    /// The configuration was asked for.
    Asked(Asked),
    Known(Box<KnownConfig>),
    /// The proxy was reloaded again before its configuration was read: what was read for that generation holds for this one
    /// as well, as it is the same files at the same time.
    As(u32),
    /// None of its processes is of a proxy that is known yet.
    NoKnownProxy,
    Unknown,
}

/// A question about a configuration.
pub(super) struct Asked {
    since: Instant,
    /// The processes that were named.
    pids: Vec<u32>,
    /// One that was forked since then, and may know more.
    pub(super) forked: Option<u32>,
}

impl Asked {
    /// The question was put now, about these processes.
    pub(super) fn now(pids: Vec<u32>) -> Self {
        Self { since: Instant::now(), pids, forked: None }
    }

    /// Whether the answer may still come.
    pub(super) fn is_open(&self) -> bool {
        self.since.elapsed() < CONFIGURATION_TIMEOUT
    }
}

/// All generations of which something is known, or was asked.
#[derive(Default)]
pub(super) struct Generations {
    states: BTreeMap<GenerationId, State>,
    shelf: Shelf,
}

impl Generations {
    /// Whether the configuration of `id` was asked for.
    pub(super) fn is_asked(&self, id: GenerationId) -> bool {
        self.states.contains_key(&id)
    }

    /// Whether the answer about any may still come.
    pub(super) fn is_asking(&self) -> bool {
        self.states.values().any(|state| match state {
            State::Asked(asked) => asked.is_open(),
            State::Known(known) => known.is_asked(),
            State::As(_) | State::NoKnownProxy | State::Unknown => false,
        })
    }

    /// The generation whose configuration was read for `id`: mostly that itself.
    pub(super) fn read_for(&self, id: GenerationId) -> GenerationId {
        match self.states.get(&id) {
            Some(State::As(generation)) => GenerationId { generation: *generation, ..id },
            _ => id,
        }
    }

    /// What is known of `id` itself.
    pub(super) fn get(&self, id: GenerationId) -> Option<&State> {
        self.states.get(&id)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: GenerationId) -> Option<&mut State> {
        self.states.get_mut(&id)
    }

    /// The configuration that was read for `id`.
    pub(super) fn known(&self, id: GenerationId) -> Option<&KnownConfig> {
        match self.states.get(&self.read_for(id))? {
            State::Known(known) => Some(known),
            _ => None,
        }
    }

    /// Notes what is known of `id` now.
    pub(super) fn set(&mut self, id: GenerationId, state: State) {
        self.states.insert(id, state);
    }

    /// Notes that nothing is known of `id`, unless something is.
    pub(super) fn set_ended(&mut self, id: GenerationId) {
        self.states.entry(id).or_insert(State::Unknown);
    }

    /// Forgets what is known of `id`.
    pub(super) fn forget(&mut self, id: GenerationId) {
        self.states.remove(&id);
    }

    /// Keeps a configuration, for older generations as well whose questions gave way to that about `id`. Gives the processes that
    /// were named in that question.
    ///
    /// # Errors
    /// What is in the way of keeping it.
    pub(super) fn keep(
        &mut self,
        id: GenerationId,
        owner: Owner,
        mut configuration: Configuration,
    ) -> Result<Vec<u32>, Limit> {
        configuration.routes = self.shelf.share(configuration.routes);
        let bytes = budget::bytes(&configuration.routes);
        if let Some(limit) = self.evict_older(id, owner, &configuration, bytes) {
            return Err(limit);
        }
        let mut known = KnownConfig::new(configuration, owner, bytes);
        if let Some(older) = self.newest_before(id) {
            known.inherit(older);
        }
        let known = State::Known(Box::new(known));
        let pids = match self.states.insert(id, known) {
            Some(State::Asked(asked)) => asked.pids,
            _ => Vec::new(),
        };
        self.settle_older(id, || State::As(id.generation));
        Ok(pids)
    }

    /// The newest older generation of the same proxy whose configuration is known.
    fn newest_before(&self, id: GenerationId) -> Option<&KnownConfig> {
        let older = self.states.range(GenerationId { generation: 0, ..id }..id).rev();
        older.map(|(_, state)| state).find_map(|state| match state {
            State::Known(known) => Some(&**known),
            _ => None,
        })
    }

    /// The configuration of `id` is not to be had, nor are those of older generations whose questions gave way to that about it.
    pub(super) fn give_up(&mut self, id: GenerationId) {
        self.states.insert(id, State::Unknown);
        self.settle_older(id, || State::Unknown);
    }

    fn settle_older(&mut self, id: GenerationId, state: impl Fn() -> State) {
        let older = self.states.range_mut(GenerationId { generation: 0, ..id }..id);
        for (_, older) in older.filter(|(_, state)| matches!(state, State::Asked(_))) {
            *older = state();
        }
    }

    /// Forgets the configurations of a proxy's oldest generations until the new one fits; gives what is in the way if it does
    /// not even then. What rows of those were called before they stay.
    fn evict_older(
        &mut self,
        id: GenerationId,
        owner: Owner,
        configuration: &Configuration,
        bytes: usize,
    ) -> Option<Limit> {
        let new = Kept { proxy: id.proxy, owner, routes: &configuration.routes, bytes };
        loop {
            let kept = self.states.iter().filter_map(|(id, state)| match state {
                State::Known(known) => {
                    let KnownConfig { configuration, owner, bytes, .. } = &**known;
                    Some(Kept {
                        proxy: id.proxy,
                        owner: *owner,
                        routes: &configuration.routes,
                        bytes: *bytes,
                    })
                }
                _ => None,
            });
            let limit = budget::exceeded(new, kept)?;
            let mut older = self.states.range_mut(GenerationId { generation: 0, ..id }..id);
            let Some((_, oldest)) = older.find(|(_, state)| matches!(state, State::Known(_))) else {
                return Some(limit);
            };
            *oldest = State::Unknown;
        }
    }

    /// The newest generation of each proxy of which names are due to be looked up.
    pub(super) fn due(&self) -> Vec<GenerationId> {
        let mut due: Vec<GenerationId> = Vec::new();
        for (id, state) in self.states.iter().rev() {
            let is_known = due.last().is_some_and(|last| last.proxy == id.proxy);
            let is_due = || matches!(state, State::Known(known) if !known.due().is_empty());
            if !is_known && is_due() && !self.is_asked_for_names(id.proxy) {
                due.push(*id);
            }
        }
        due
    }

    /// What is known of the generations of a proxy.
    pub(super) fn of_proxy(&mut self, proxy: u64) -> impl Iterator<Item = (GenerationId, &mut KnownConfig)> {
        let all = GenerationId { proxy, generation: 0 }..=GenerationId { proxy, generation: u32::MAX };
        self.states.range_mut(all).filter_map(|(id, state)| match state {
            State::Known(known) => Some((*id, &mut **known)),
            _ => None,
        })
    }

    /// Whether names of a proxy are being looked up: its generations share the answers.
    pub(super) fn is_asked_for_names(&self, proxy: u64) -> bool {
        let all = GenerationId { proxy, generation: 0 }..=GenerationId { proxy, generation: u32::MAX };
        self.states.range(all).any(|(_, state)| matches!(state, State::Known(known) if known.is_asked()))
    }

    /// Forgets all but these. What was read for several stays as long as one of them does.
    pub(super) fn retain(&mut self, generations: &HashSet<GenerationId>) {
        let used: HashSet<_> = generations.iter().flat_map(|id| [*id, self.read_for(*id)]).collect();
        self.states.retain(|id, _| used.contains(id));
        self.shelf.tidy();
    }
}
