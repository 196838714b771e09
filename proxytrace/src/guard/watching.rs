//! A running session, as far as a guard looks at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::seen::Seen;
use crate::{
    kernel::Error,
    model::{Body, Exit, Finding, Generation, ReloadResult, Subject},
    session::{Pump, Session, Update},
    watch::Running,
};

/// A running session.
pub(super) struct Watching {
    session: Session,
    pump: Pump,
    /// What was counted.
    pub(super) seen: Seen,
    /// What stood when the change began.
    stood: BTreeSet<Subject>,
    /// Why nginx did not take the change, as far as it said.
    rejected: Option<(Arc<str>, Option<Arc<str>>)>,
    /// What the change has brought: of each proxy the generation that runs.
    pub(super) generations: BTreeMap<Arc<str>, Running>,
    /// Since when the newest of them runs.
    pub(super) loaded: Option<Instant>,
    /// Processes of those generations that have ended.
    ended: Vec<Exit>,
    /// Up to when everything that was counted is known.
    pub(super) ticked: Option<Instant>,
}

impl Watching {
    pub(super) fn new(mut session: Session, pump: Pump) -> Self {
        session.hasten();
        Self {
            session,
            pump,
            seen: Seen::default(),
            stood: BTreeSet::new(),
            rejected: None,
            generations: BTreeMap::new(),
            loaded: None,
            ended: Vec::new(),
            ticked: None,
        }
    }

    /// The proxies that run.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub(super) fn running(&self) -> Result<Vec<Running>, Error> {
        self.session.watch().running()
    }

    /// Whether it is known what runs, and how that is configured.
    pub(super) const fn has_started(&self) -> bool {
        self.session.watch().has_started()
    }

    /// A change begins now.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        let running = self.running()?;
        self.seen.begin(running.into_iter().map(|running| running.of));
        self.stood = self.session.watch().findings().map(|finding| finding.subject.clone()).collect();
        self.rejected = None;
        self.generations.clear();
        self.loaded = None;
        self.ended.clear();
        self.ticked = None;
        Ok(())
    }

    /// Watches on until something is done.
    ///
    /// # Errors
    /// Nothing can be seen any more.
    pub(super) async fn during<T>(&mut self, task: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(task);
        loop {
            tokio::select! {
                done = &mut task => return Ok(done),
                stepped = self.step() => stepped?,
            }
        }
    }

    /// Waits until something has happened, a second at most. Safe to cancel.
    ///
    /// # Errors
    /// Nothing can be seen any more.
    pub(super) async fn step(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                stepped = self.pump.step() => if let Err(gone) = stepped {
                    tracing::error!("{gone}; no upstream is named from now on");
                },
                update = self.session.next() => {
                    let update = update.ok_or_else(|| anyhow::anyhow!("nothing is seen any more"))??;
                    return Ok(self.take(&update)?);
                }
            }
        }
    }

    fn take(&mut self, update: &Update) -> Result<(), Error> {
        if update.is_tick {
            self.ticked = Some(Instant::now());
        }
        let mut may_be_new = update.is_tick || update.entered.is_some();
        for record in &update.records {
            match &record.body {
                Body::Counts(counted) => self.seen.note(counted),
                Body::Reload(reload) => {
                    may_be_new = true;
                    let proxy = Arc::clone(&reload.master.proxy);
                    self.rejected = match reload.result {
                        ReloadResult::Accepted => None,
                        ReloadResult::Rejected => Some((proxy, reload.reason.clone())),
                    };
                }
                Body::WorkerStarted(_) => may_be_new = true,
                Body::WorkerExited(exit) => self.ended.push(exit.clone()),
                _ => {}
            }
        }
        if may_be_new {
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Error> {
        let running = self.running()?;
        if let Some(new) = self.seen.running(running.iter().map(|running| running.of.clone())) {
            self.rejected = None;
            self.loaded = Some(Instant::now());
            self.generations.retain(|proxy, _| new.iter().any(|of| of.proxy == *proxy));
        }
        for running in running {
            if self.seen.is_newest(&running.of) {
                self.generations.insert(Arc::clone(&running.of.proxy), running);
            }
        }
        Ok(())
    }

    /// Whether a proxy was asked to reload, and it is not known what became of that.
    pub(super) fn is_reload_open(&self) -> bool {
        self.session.watch().is_reload_open()
    }

    /// What was found since the change began, and stands; not what is about a generation that is gone by now, or about a proxy
    /// that was not reloaded.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let is_new = |finding: &&Finding| {
            let newest = self.generations.get(&finding.subject.proxy).map(|running| running.of.number);
            let is_of_it =
                newest.is_some_and(|newest| finding.evidence.generation.is_none_or(|of| of == newest));
            is_of_it && !self.stood.contains(&finding.subject)
        };
        self.session.watch().findings().filter(is_new).cloned().collect()
    }

    /// Why nginx did not take the change, in a sentence.
    pub(super) fn rejection(&self) -> Option<String> {
        let (proxy, reason) = self.rejected.as_ref()?;
        Some(match reason {
            Some(reason) => format!("{proxy} did not take the change: {reason}"),
            None => format!("{proxy} did not take the change; its error log says why"),
        })
    }

    /// That no worker is left of a new generation, in a sentence.
    pub(super) fn lost_workers(&self) -> Option<String> {
        let lost = |running: &&Running| {
            let Generation { proxy, number, .. } = &running.of;
            let of = |exit: &&Exit| exit.worker.proxy == *proxy && exit.worker.generation == *number;
            running.workers.is_empty() && self.ended.iter().any(|exit| of(&exit) && !exit.is_orderly())
        };
        let Generation { proxy, number, .. } = &self.generations.values().find(lost)?.of;
        let exits =
            self.ended.iter().filter(|exit| exit.worker.proxy == *proxy && exit.worker.generation == *number);
        let ways: BTreeSet<_> = exits
            .map(|exit| match (exit.signal, exit.code) {
                (Some(signal), _) => format!("by signal {signal}"),
                (None, code) => format!("with code {}", code.unwrap_or_default()),
            })
            .collect();
        let ways: Vec<_> = ways.into_iter().collect();
        Some(format!("{proxy} has no worker left: they exited {}", ways.join(" and ")))
    }
}
