//! Makes the lines of the feed of a running trace.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::{Change, Channel, Configured, Runs, Whole, pid_namespace};
use crate::{
    declared::Configuration,
    escape,
    model::{Body, Finding, Record},
    session::{Session, Update},
    watch::Running,
};

/// Publishes what has changed.
#[derive(Debug)]
pub struct Publisher {
    channel: Channel,
    published: Published,
    has_subscribers: bool,
}

/// What subscribers have.
#[derive(Debug, Default)]
struct Published {
    running: Vec<Runs>,
    /// How these are configured.
    configurations: Vec<Configured>,
    /// How many configurations were published.
    numbers: u64,
    findings: Vec<Finding>,
    reloading: BTreeSet<Arc<str>>,
}

impl Publisher {
    /// Publishes it there.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel, published: Published::default(), has_subscribers: false }
    }

    /// Where it publishes.
    #[must_use]
    pub const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Waits until a subscriber lacks a whole line. Safe to cancel.
    pub async fn whole_wanted(&self) {
        self.channel.whole_wanted().await;
    }

    /// Publishes a whole line.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub fn publish_whole(&mut self, session: &mut Session) -> anyhow::Result<()> {
        self.note_subscribers(session);
        if !self.has_subscribers {
            return Ok(());
        }
        let time = Timestamp::now();
        let counted = session.counted()?;
        self.published = Published { numbers: self.published.numbers, ..Published::default() };
        let records = counted.into_iter().map(|row| Record { time, body: Body::Counts(row) });
        let mut change = Change {
            whole: Some(Whole { pid_namespace: pid_namespace()? }),
            records: records.collect(),
            ..Change::default()
        };
        self.note_running(session.watch().running()?, &mut change);
        self.note_findings(session, &mut change);
        change.running.get_or_insert_default();
        change.findings.get_or_insert_default();
        change.reloading.get_or_insert_default();
        self.publish(time, session, change)
    }

    /// Publishes what an update has brought, where anybody subscribes.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub fn publish_update(&mut self, update: &Update, session: &mut Session) -> anyhow::Result<()> {
        self.note_subscribers(session);
        if !self.has_subscribers {
            return Ok(());
        }
        let records = update.records.iter().filter(|record| is_published(&record.body)).cloned();
        let mut change = Change {
            tick: update.is_tick,
            entered: update.entered,
            records: records.collect(),
            ..Change::default()
        };
        let is_about_processes = |record: &Record| !matches!(record.body, Body::Counts(_));
        if update.is_tick || update.entered.is_some() || change.records.iter().any(is_about_processes) {
            self.note_running(session.watch().running()?, &mut change);
        }
        self.note_findings(session, &mut change);
        let has_happened = change.tick || change.entered.is_some() || !change.records.is_empty();
        if has_happened || change.running.is_some() || change.findings.is_some() || change.reloading.is_some()
        {
            self.publish(Timestamp::now(), session, change)?;
        }
        Ok(())
    }

    /// Subscribers want to know soon.
    fn note_subscribers(&mut self, session: &mut Session) {
        let has_subscribers = self.channel.has_subscribers();
        if self.has_subscribers != has_subscribers {
            self.has_subscribers = has_subscribers;
            session.hasten(has_subscribers);
        }
        if !has_subscribers {
            self.published = Published { numbers: self.published.numbers, ..Published::default() };
        }
    }

    fn note_running(&mut self, running: Vec<Running>, change: &mut Change) {
        let (mut all, mut configurations) = (Vec::new(), Vec::new());
        for Running { of, process, master, workers, is_read, configuration } in running {
            let configuration = configuration.map(|configuration| {
                let configured = self.published.configured(configuration);
                let number = configured.number;
                configurations.push(configured);
                number
            });
            all.push(Runs { of, process, master, workers, is_read, configuration });
        }
        let published = &self.published.configurations;
        let is_new = |configured: &&Configured| published.iter().all(|old| old.number != configured.number);
        change.configurations = configurations.iter().filter(is_new).cloned().collect();
        self.published.configurations = configurations;
        if self.published.running != all {
            self.published.running.clone_from(&all);
            change.running = Some(all);
        }
    }

    fn note_findings(&mut self, session: &Session, change: &mut Change) {
        let findings: Vec<_> = session.watch().findings().cloned().collect();
        if self.published.findings != findings {
            self.published.findings.clone_from(&findings);
            change.findings = Some(findings);
        }
        let reloading: BTreeSet<_> = session.watch().open_reloads().collect();
        if self.published.reloading != reloading {
            self.published.reloading.clone_from(&reloading);
            change.reloading = Some(reloading);
        }
    }

    fn publish(&self, time: Timestamp, session: &Session, change: Change) -> anyhow::Result<()> {
        let change = Change { time, started: session.watch().has_started(), ..change };
        let line = serde_json::to_string(&change)?;
        self.channel.publish(escape::json(&line).into_owned() + "\n", change.whole.is_some());
        Ok(())
    }
}

impl Published {
    /// That configuration with its number, a new one where it was not published yet.
    fn configured(&mut self, configuration: Configuration) -> Configured {
        let known =
            |old: &&Configured| old.configuration == configuration && old.addresses == configuration.resolved;
        if let Some(known) = self.configurations.iter().find(known) {
            return known.clone();
        }
        self.numbers += 1;
        let addresses = configuration.resolved.clone();
        Configured { number: self.numbers, configuration, addresses }
    }
}

/// What `guard` uses.
const fn is_published(body: &Body) -> bool {
    matches!(body, Body::Counts(_) | Body::Reload(_) | Body::WorkerStarted(_) | Body::WorkerExited(_))
}
