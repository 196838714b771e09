//! The thread that owns the trace: it logs which findings come and go, says how the agent is, and hands out what pages are made
//! of. Nobody waits for it but a page.

use jiff::tz::TimeZone;
use tokio::sync::mpsc::Receiver;

use super::{
    health::{Health, Loop},
    notify::Notifier,
    pages::{Ask, Material},
};
use crate::{
    model::{Body, State},
    session::{Session, Update},
};

/// Works until the session ends.
pub async fn work(mut session: Session, mut asked: Receiver<Ask>, health: &Health, notifier: &Notifier) {
    loop {
        health.note_round(Loop::Work);
        let update = tokio::select! {
            update = session.next() => update,
            Some(Ask { page, answer }) = asked.recv() => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(Material::of(page, session.watch()));
                continue;
            }
        };
        match update {
            None => return,
            Some(Ok(update)) => take(&update, &session, health, notifier),
            Some(Err(error)) => {
                tracing::error!("{error}");
                health.note_trouble(Some(error.to_string()));
            }
        }
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

/// What the service manager shows.
fn status(findings: usize) -> String {
    match findings {
        0 => "tracing; no finding".to_owned(),
        1 => "tracing; 1 finding: see /findings".to_owned(),
        findings => format!("tracing; {findings} findings: see /findings"),
    }
}
