//! By which programs a guard sees: those of the agent of this host, where it traces the proxies; else its own, also from the moment on in
//! which the agent ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, timeout};

use crate::{
    client::{Agent, Lines},
    feed::{Mirror, pid_namespace},
    kernel::Error,
    model::{Address, Body, Counted, Counts, Finding},
    session::{Pump, Session, Update},
    watch::Running,
};

/// Begins to trace.
pub type Start = dyn FnOnce() -> anyhow::Result<(Session, Pump)>;

/// An agent that is not stuck says what it sees within that, and again and again.
const SAYS: Duration = Duration::from_secs(5);
/// What it has said already is read within that, also where nobody has listened for long.
const READ: Duration = Duration::from_millis(50);

/// By which means a guard can see.
pub struct Means {
    /// The agent of this host, where it traces what is meant; of the processes with these names.
    pub agent: Option<(Agent, BTreeSet<String>)>,
    /// Loads programs.
    pub start: Box<Start>,
}

/// By which programs a guard sees.
pub(super) enum Observer {
    /// An agent's.
    Agent(Box<Borrowed>),
    /// Its own.
    Own(Box<Own>),
}

/// What an agent sees.
pub(super) struct Borrowed {
    agent: Agent,
    lines: Lines,
    mirror: Mirror,
    /// What was counted so far.
    counted: HashMap<Row, Counts>,
    /// When it has said something last.
    heard: Instant,
    /// Loads programs once the agent has ended, or is stuck.
    start: Box<Start>,
}

/// A trace of its own.
pub(super) struct Own {
    session: Session,
    pump: Pump,
    before: Before,
}

/// A proxy with its first process, a generation, and a destination.
type Row = (Arc<str>, u32, u32, Arc<str>, Address);

/// What an agent had seen that has ended: generations and counts go on from there.
#[derive(Debug, Default)]
struct Before {
    /// Of each proxy, by its name and first process.
    generations: BTreeMap<(Arc<str>, u32), u32>,
    counted: HashMap<Row, Counts>,
}

impl Means {
    /// Begins to see.
    ///
    /// # Errors
    /// The host does not let us trace.
    pub(super) async fn open(self) -> anyhow::Result<Observer> {
        let Self { agent, start } = self;
        let Some((agent, processes)) = agent else { return Observer::own(start, Before::default()) };
        match first(&agent, processes).await {
            Ok((lines, mirror)) => Ok(Observer::Agent(Box::new(Borrowed {
                agent,
                lines,
                mirror,
                counted: HashMap::new(),
                heard: Instant::now(),
                start,
            }))),
            Err(error) => {
                tracing::warn!("{error:#}; loads programs of its own instead");
                Observer::own(start, Before::default())
            }
        }
    }
}

/// The agent's lines, after the first, and what that says.
async fn first(agent: &Agent, processes: BTreeSet<String>) -> anyhow::Result<(Lines, Mirror)> {
    let mut lines = agent.changes().await?;
    let next = timeout(SAYS, lines.next_change()).await.context("the agent does not say what it sees")?;
    let change = next?.context("the agent has ended")?;
    let whole = change.whole.context("the agent begins in the middle")?;
    anyhow::ensure!(whole.pid_namespace == pid_namespace()?, "the agent runs in another pid namespace");
    let mut mirror = Mirror::new(processes);
    mirror.take(change);
    Ok((lines, mirror))
}

impl Observer {
    fn own(start: Box<Start>, before: Before) -> anyhow::Result<Self> {
        let (mut session, pump) = start()?;
        session.hasten(true);
        Ok(Self::Own(Box::new(Own { session, pump, before })))
    }

    /// Whether they are the agent's.
    pub(super) const fn is_borrowed(&self) -> bool {
        matches!(self, Self::Agent(_))
    }

    /// The proxies that run, whoever they belong to.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub(super) fn running(&self) -> Result<Vec<Running>, Error> {
        match self {
            Self::Agent(borrowed) => Ok(borrowed.mirror.running.clone()),
            Self::Own(own) => {
                let mut all = own.session.watch().running()?;
                for running in &mut all {
                    running.of.number += own.before.generation(&running.of.proxy, running.of.pid);
                }
                Ok(all)
            }
        }
    }

    /// Whether it is known what runs, and how that is configured.
    pub(super) const fn has_started(&self) -> bool {
        match self {
            Self::Agent(borrowed) => borrowed.mirror.has_started,
            Self::Own(own) => own.session.watch().has_started(),
        }
    }

    /// What is wrong.
    pub(super) fn findings(&self) -> Vec<Finding> {
        match self {
            Self::Agent(borrowed) => borrowed.mirror.findings.clone(),
            Self::Own(own) => {
                let mut all: Vec<_> = own.session.watch().findings().cloned().collect();
                for finding in &mut all {
                    let before = own.before.newest(&finding.subject.proxy);
                    finding.evidence.generation = finding.evidence.generation.map(|number| number + before);
                }
                all
            }
        }
    }

    /// The proxies that were asked to reload, where it is not known what became of that.
    pub(super) fn reloading(&self) -> BTreeSet<Arc<str>> {
        match self {
            Self::Agent(borrowed) => borrowed.mirror.reloading.clone(),
            Self::Own(own) => own.session.watch().open_reloads().collect(),
        }
    }

    /// Sees to it that what is known is as of now.
    ///
    /// # Errors
    /// Nothing can be seen any more.
    pub(super) async fn renew(&mut self) -> anyhow::Result<Vec<Update>> {
        let mut updates = Vec::new();
        let Self::Agent(borrowed) = self else { return Ok(updates) };
        let everything = async {
            // Whoever watches is told everything when somebody else begins to.
            let Ok(_other) = borrowed.agent.changes().await else { return true };
            while let Some((update, is_whole)) = borrowed.next().await {
                updates.push(update);
                if is_whole {
                    return true;
                }
            }
            false
        };
        if !timeout(SAYS, everything).await.unwrap_or(false) {
            self.load_own()?;
        }
        Ok(updates)
    }

    /// Waits for what happens next, a second at most. Safe to cancel.
    ///
    /// # Errors
    /// Nothing can be seen any more.
    pub(super) async fn next(&mut self) -> anyhow::Result<Update> {
        loop {
            match self {
                Self::Agent(borrowed) => match borrowed.next().await {
                    Some((update, _)) => return Ok(update),
                    None => self.load_own()?,
                },
                Self::Own(own) => {
                    if let Some(update) = own.step().await? {
                        return Ok(update);
                    }
                }
            }
        }
    }

    /// Goes on without the agent.
    fn load_own(&mut self) -> anyhow::Result<()> {
        let Self::Agent(borrowed) = self else { return Ok(()) };
        let what = if borrowed.heard.elapsed() < SAYS { "has ended" } else { "says nothing any more" };
        tracing::warn!("the agent {what}; loads programs of its own");
        let gone = || -> anyhow::Result<(Session, Pump)> { anyhow::bail!("nothing is seen any more") };
        let start = std::mem::replace(&mut borrowed.start, Box::new(gone));
        let of = |running: &Running| ((Arc::clone(&running.of.proxy), running.of.pid), running.of.number);
        let before = Before {
            generations: borrowed.mirror.running.iter().map(of).collect(),
            counted: std::mem::take(&mut borrowed.counted),
        };
        *self = Self::own(start, before)?;
        Ok(())
    }
}

impl Borrowed {
    /// The next of what happens, and whether everything is known as of then; `None` once the agent has ended, or says nothing for long.
    /// Safe to cancel.
    async fn next(&mut self) -> Option<(Update, bool)> {
        let patience = SAYS.saturating_sub(self.heard.elapsed()).max(READ);
        let change = match timeout(patience, self.lines.next_change()).await {
            Ok(Ok(change)) => change?,
            Ok(Err(error)) => {
                tracing::warn!("{error}");
                return None;
            }
            Err(_) => return None,
        };
        self.heard = Instant::now();
        let is_whole = change.whole.is_some();
        let update = self.mirror.take(change);
        for record in &update.records {
            if let Body::Counts(counted) = &record.body {
                self.counted.insert(row(counted), counted.counts.clone());
            }
        }
        Some((update, is_whole))
    }
}

impl Own {
    /// Does the next step, and gives what has happened, if anything has. Safe to cancel.
    async fn step(&mut self) -> anyhow::Result<Option<Update>> {
        tokio::select! {
            stepped = self.pump.step() => if let Err(gone) = stepped {
                tracing::error!("{gone}; no upstream is named from now on");
            },
            update = self.session.next() => {
                let mut update = update.ok_or_else(|| anyhow::anyhow!("nothing is seen any more"))??;
                update.records.iter_mut().for_each(|record| self.before.add_to(&mut record.body));
                return Ok(Some(update));
            }
        }
        Ok(None)
    }
}

impl Before {
    /// The generation of a proxy that an agent saw last; 0 for one that it did not see.
    fn generation(&self, proxy: &Arc<str>, pid: u32) -> u32 {
        self.generations.get(&(Arc::clone(proxy), pid)).copied().unwrap_or(0)
    }

    /// The same of whichever process has that name.
    fn newest(&self, proxy: &Arc<str>) -> u32 {
        let of = self.generations.iter().filter(|((name, _), _)| name == proxy);
        of.map(|(_, number)| *number).max().unwrap_or(0)
    }

    fn add_to(&self, body: &mut Body) {
        match body {
            Body::Counts(counted) => {
                counted.generation += self.generation(&counted.proxy, counted.pid);
                if let Some(before) = self.counted.get(&row(counted)) {
                    counted.counts += before;
                }
            }
            Body::Reload(reload) => reload.master.generation += self.newest(&reload.master.proxy),
            Body::WorkerStarted(worker) => worker.generation += self.newest(&worker.proxy),
            Body::WorkerExited(exit) => exit.worker.generation += self.newest(&exit.worker.proxy),
            _ => {}
        }
    }
}

fn row(Counted { proxy, pid, generation, upstream, address, .. }: &Counted) -> Row {
    (Arc::clone(proxy), *pid, *generation, Arc::clone(upstream), address.clone())
}
