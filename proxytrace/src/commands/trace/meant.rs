//! Which of the agent's proxies are meant where it traces more than `--process` asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    client::{Agent, Error},
    model::Body,
    status::Status,
};

/// Which proxies are meant.
pub(super) enum Meant {
    /// All.
    All,
    /// Those whose processes have one of these names.
    Some {
        /// The names.
        processes: BTreeSet<String>,
        /// The proxies that are known, and whether they are meant.
        known: BTreeMap<Arc<str>, bool>,
    },
}

impl Meant {
    /// Those with `processes` of these names, as far as the agent says which have.
    pub(super) fn of(processes: Option<BTreeSet<String>>, status: &Status) -> Self {
        let traced = status.traced.as_ref().filter(|traced| traced.pids.is_empty());
        match processes {
            Some(processes) if traced.is_none_or(|traced| traced.processes != processes) => {
                let mut meant = Self::Some { processes, known: BTreeMap::new() };
                meant.note(status);
                meant
            }
            _ => Self::All,
        }
    }

    /// Takes in which proxies there are.
    pub(super) fn note(&mut self, status: &Status) {
        let Self::Some { processes, known } = self else { return };
        for proxy in &status.proxies {
            known.insert(Arc::clone(&proxy.proxy), processes.contains(&proxy.process));
        }
    }

    /// Whether a record is about one of them, or about none in particular. Who a proxy is that nobody has heard of, the agent says; one
    /// that has ended by then is meant.
    pub(super) async fn has(&mut self, body: &Body, agent: &Agent) -> Result<bool, Error> {
        let Some(proxy) = body.proxy() else { return Ok(true) };
        if matches!(self, Self::Some { known, .. } if !known.contains_key(proxy)) {
            self.note(&agent.status().await?);
        }
        let Self::Some { known, .. } = self else { return Ok(true) };
        Ok(*known.entry(Arc::clone(proxy)).or_insert(true))
    }

    /// Leaves out of a status what is about others.
    pub(super) fn reduce(&self, status: &mut Status) {
        let Self::Some { known, .. } = self else { return };
        let is_meant = |proxy: &Arc<str>| known.get(proxy).is_none_or(|is_meant| *is_meant);
        status.proxies.retain(|one| is_meant(&one.proxy));
        status.upstreams.retain(|one| is_meant(&one.proxy));
        status.findings.retain(|one| is_meant(&one.finding.subject.proxy));
    }
}
