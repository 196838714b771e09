//! What a guard sees of the proxies, and what it makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{observer::Observer, scope::Scope, seen::Seen};
use crate::{
    kernel::Error,
    model::{Body, Exit, Finding, Generation, ReloadResult, Subject},
    session::Update,
    watch::Running,
};

/// How often it is looked whether a reload is still open.
const LOOK: Duration = Duration::from_millis(250);

/// What a guard sees.
pub(super) struct Watching {
    observer: Observer,
    /// Which proxies are looked at.
    scope: Scope,
    /// Others that have taken something new meanwhile.
    pub(super) others: BTreeSet<Arc<str>>,
    /// What was counted.
    pub(super) seen: Seen,
    /// What stood when the change began.
    stood: BTreeSet<Subject>,
    /// The proxies that did not take what they were asked to load last, and why, as far as they said.
    rejected: BTreeMap<Arc<str>, Option<Arc<str>>>,
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
    pub(super) fn new(observer: Observer) -> Self {
        Self {
            observer,
            scope: Scope::default(),
            others: BTreeSet::new(),
            seen: Seen::default(),
            stood: BTreeSet::new(),
            rejected: BTreeMap::new(),
            generations: BTreeMap::new(),
            loaded: None,
            ended: Vec::new(),
            ticked: None,
        }
    }

    /// The proxies that run, whoever they belong to.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub(super) fn all_running(&self) -> Result<Vec<Running>, Error> {
        self.observer.running()
    }

    /// From now on it is about these proxies only.
    pub(super) fn limit(&mut self, scope: Scope) {
        self.scope = scope;
    }

    /// Whether any of them has its configuration in the directory that is put back.
    pub(super) const fn reads_directory(&self) -> bool {
        self.scope.is_in_directory()
    }

    /// The proxies that run and that the change is about.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub(super) fn running(&mut self) -> Result<Vec<Running>, Error> {
        let mut running = self.all_running()?;
        running.retain(|running| self.scope.has(running));
        Ok(running)
    }

    /// Whether it is known what runs, and how that is configured.
    pub(super) const fn has_started(&self) -> bool {
        self.observer.has_started()
    }

    /// A change begins now.
    ///
    /// # Errors
    /// Nothing can be seen any more.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        for update in self.observer.renew().await? {
            self.take(&update)?;
        }
        let running = self.all_running()?;
        self.seen.begin(running.into_iter().map(|running| running.of));
        self.others.clear();
        self.stood = self.observer.findings().into_iter().map(|finding| finding.subject).collect();
        self.rejected.clear();
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
        let update = self.observer.next().await?;
        Ok(self.take(&update)?)
    }

    /// Waits `within` that time until a proxy takes what it is asked to load, or says that it does not.
    pub(super) async fn takes(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.generations.is_empty() && self.rejected.is_empty() {
            if Instant::now() >= deadline && !self.is_reload_open() {
                return false;
            }
            // What cannot be seen is not waited for.
            if timeout_at(deadline.max(Instant::now() + LOOK), self.step())
                .await
                .is_ok_and(|stepped| stepped.is_err())
            {
                return true;
            }
        }
        true
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
                    if !self.scope.has_name(&proxy) {
                        continue;
                    }
                    match reload.result {
                        ReloadResult::Accepted => drop(self.rejected.remove(&proxy)),
                        ReloadResult::Rejected => drop(self.rejected.insert(proxy, reload.reason.clone())),
                    }
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
        let (running, others): (Vec<_>, Vec<_>) =
            self.all_running()?.into_iter().partition(|running| self.scope.has(running));
        let is_new = |other: &Running| self.seen.is_new(&other.of);
        self.others.extend(others.into_iter().filter(is_new).map(|other| other.of.proxy));
        if let Some(new) = self.seen.running(running.iter().map(|running| running.of.clone())) {
            let is_known =
                |of: &Generation| self.generations.get(&of.proxy).is_some_and(|running| running.of == *of);
            // Of several proxies, what one has taken says nothing of the others.
            for of in new.iter().filter(|of| !is_known(of)) {
                self.rejected.remove(&of.proxy);
            }
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
        self.observer.reloading().iter().any(|proxy| self.scope.has_name(proxy))
    }

    /// What was found since the change began, and stands; not what is about a generation that is gone by now, or about a proxy
    /// that was not reloaded.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let is_new = |finding: &Finding| {
            let newest = self.generations.get(&finding.subject.proxy).map(|running| running.of.number);
            let is_of_it =
                newest.is_some_and(|newest| finding.evidence.generation.is_none_or(|of| of == newest));
            is_of_it && !self.stood.contains(&finding.subject)
        };
        self.observer.findings().into_iter().filter(is_new).collect()
    }

    /// Why nginx did not take the change, in a sentence.
    pub(super) fn rejection(&self) -> Option<String> {
        let (proxy, reason) = self.rejected.first_key_value()?;
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
