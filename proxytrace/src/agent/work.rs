//! The thread that owns the trace: it logs which findings come and go, says how the agent is, and hands out what pages are made
//! of. Nobody waits for it but a page.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::{mpsc::Receiver, watch};

use super::{
    health::{Health, Loop},
    notify::Notifier,
    pages::{self, Ask, Material},
    shown::Shown,
};
use crate::{
    feed::Publisher,
    history::{self, History},
    model::{Body, Record, State},
    session::{Session, Update},
    status::Source,
};

/// What the thread works with.
pub struct Work {
    /// The trace.
    pub session: Session,
    /// The pages that are asked for.
    pub asked: Receiver<Ask>,
    /// What SIGHUP changes of them.
    pub shown: watch::Receiver<Shown>,
    /// What is remembered.
    pub history: History,
    /// What other commands on this host see of it.
    pub publisher: Publisher,
    /// How the agent is.
    pub health: Arc<Health>,
    /// Who waits for it.
    pub notifier: Arc<Notifier>,
}

/// Works until the session ends.
pub async fn work(
    Work { mut session, mut asked, mut shown, history, mut publisher, health, notifier }: Work,
) {
    let (history, health, notifier) = (&history, &*health, &*notifier);
    let now = Instant::now();
    let mut memory = Memory { history, sampled: now, kept: now, noted: now, is_news: true };
    history.take(&[history.header()]);
    loop {
        health.note_round(Loop::Work);
        let update = tokio::select! {
            update = session.next() => update,
            Some(Ask { page, answer }) = asked.recv() => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(Material::of(page, session.watch(), history, publisher.channel()));
                continue;
            }
            () = publisher.whole_wanted() => {
                note(publisher.publish_whole(&mut session), health);
                continue;
            }
            Ok(()) = shown.changed() => {
                let max = shown.borrow_and_update().max_addresses as usize;
                note(session.limit_addresses(max).map_err(Into::into), health);
                tracing::info!("max-addresses {max} is in force");
                continue;
            }
        };
        match update {
            None => return,
            Some(Ok(update)) => {
                take(&update, &session, health, notifier);
                memory.take(&update, &session);
                note(publisher.publish_update(&update, &mut session), health);
                let established = session.report_established(history.wants_established());
                note(established.map_err(Into::into), health);
            }
            Some(Err(error)) => note(Err(error.into()), health),
        }
    }
}

/// Logs what went wrong, and says so to whoever asks how the agent is.
fn note(done: anyhow::Result<()>, health: &Health) {
    if let Err(error) = done {
        tracing::error!("{error:#}");
        health.note_trouble(Some(format!("{error:#}")));
    }
}

/// Logs each finding once when it comes, and once when it goes.
fn take(update: &Update, session: &Session, health: &Health, notifier: &Notifier) {
    for record in &update.records {
        if let Body::Finding(change) = &record.body {
            let words = change.in_zone(&TimeZone::UTC);
            match change.state {
                State::Raised => tracing::warn!("finding: {words}"),
                State::Cleared => tracing::info!("cleared: {words}"),
            }
        }
    }
    if update.is_tick {
        notifier.status(&status(session.watch().findings().count()));
        health.note_trouble(None);
        health.note_unnamed(session.watch().unnamed().to_vec());
        // With the list of this tick: that of an earlier one holds proxies whose answers have come since.
        if session.watch().has_started() {
            health.note_answered();
        }
    }
}

/// What is remembered, and when that was brought up to date.
struct Memory<'a> {
    history: &'a History,
    /// When what was counted was taken.
    sampled: Instant,
    /// When what is under way was written.
    kept: Instant,
    /// When it was noted what stands.
    noted: Instant,
    /// Whether that may have changed since.
    is_news: bool,
}

impl Memory<'_> {
    /// What stands is noted no more often than that, and as often where anything does: evidence grows.
    const SOON: Duration = Duration::from_millis(250);
    const OTHERWISE: Duration = Duration::from_secs(60);

    fn take(&mut self, update: &Update, session: &Session) {
        self.history.take(&update.records);
        let is_news = |record: &Record| matches!(record.body, Body::Finding(_) | Body::Reload(_));
        self.is_news |= update.records.iter().any(is_news);
        if self.kept.elapsed() >= history::OFTEN {
            self.kept = Instant::now();
            self.history.keep_under_way();
        }
        if !update.is_tick || !session.watch().has_started() {
            return;
        }
        self.history.note(Timestamp::now(), session.watch().findings(), session.watch().late());
        let noted = self.noted.elapsed();
        let stands = || session.watch().findings().next().is_some() || self.history.inherited().is_some();
        // What stands by the word of an agent before may be refuted by now.
        let inherits = noted >= history::STEP.unsigned_abs() && self.history.inherits_findings();
        let is_due =
            inherits || (self.is_news && noted >= Self::SOON) || (noted >= Self::OTHERWISE && stands());
        let done = if is_due {
            (self.noted, self.sampled, self.is_news) = (Instant::now(), Instant::now(), false);
            pages::seen(Source::Agent, session.watch(), self.history).map(drop)
        } else if self.sampled.elapsed() >= history::STEP.unsigned_abs() {
            self.sampled = Instant::now();
            pages::sums(session.watch()).map(|sums| self.history.sample(Timestamp::now(), sums))
        } else {
            return;
        };
        // The next tick reports it.
        if let Err(error) = done {
            tracing::debug!("{error:#}");
        }
    }
}

/// What the service manager shows.
fn status(findings: usize) -> String {
    match findings {
        0 => "tracing; no finding".to_owned(),
        1 => "tracing; 1 finding: see /findings".to_owned(),
        findings => format!("tracing; {findings} findings: see /findings"),
    }
}
