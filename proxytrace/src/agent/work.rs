//! The thread that owns the trace: it takes events and answers in their order, looks for findings, and hands out what pages
//! are made of. Nobody waits for it but a page.

use std::sync::Arc;

use proxytrace_ebpf::abi::Event;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{
    health::{Health, Loop},
    pages::{Ask, Material},
};
use crate::{
    commands::Pace,
    kernel::Error,
    model::{Body, Change, State},
    reader::Reply,
    watch::Watch,
};

/// What is sent to the thread.
#[derive(Debug)]
pub struct Outbox {
    /// Events, a batch at a time.
    pub events: Sender<Vec<Event>>,
    /// Answers about configurations.
    pub replies: Sender<Reply>,
    /// Questions about pages.
    pub asks: Sender<Ask>,
}

/// Where the thread finds it.
#[derive(Debug)]
pub struct Inbox {
    events: Receiver<Vec<Event>>,
    replies: Receiver<Reply>,
    asks: Receiver<Ask>,
}

/// Both ends. Whoever sends waits where the thread does not come after; so the kernel counts the events that are lost.
#[must_use]
pub fn channels() -> (Outbox, Inbox) {
    let (events, batches) = mpsc::channel(1);
    let (replies, answers) = mpsc::channel(1);
    let (asks, asked) = mpsc::channel(1);
    (Outbox { events, replies, asks }, Inbox { events: batches, replies: answers, asks: asked })
}

/// Works until nobody sends any more.
pub async fn work(mut watch: Watch, mut inbox: Inbox, health: Arc<Health>) {
    let mut pace = Pace::new();
    // The first look comes soon: the agent is ready after it.
    pace.note_news();
    loop {
        health.note_round(Loop::Work);
        let noted = tokio::select! {
            batch = inbox.events.recv() => {
                let Some(batch) = batch else { return };
                pace.note_news();
                note(&mut watch, &batch)
            }
            Some(reply) = inbox.replies.recv() => {
                pace.note_news();
                watch.answer(reply)
            }
            Some(Ask { page, answer }) = inbox.asks.recv() => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(Material::of(page, &mut watch));
                Ok(())
            }
            () = pace.due() => {
                pace.note_look();
                let looked = look(&mut watch);
                health.note_unnamed(watch.unnamed().to_vec());
                // With the list of this look: that of an earlier one holds proxies whose answers have come since.
                if watch.has_started() {
                    health.note_answered();
                }
                health.note_trouble(looked.as_ref().err().map(ToString::to_string));
                if watch.is_reload_open() {
                    // That it is rejected shows in no event.
                    pace.note_news();
                }
                looked
            }
        };
        if let Err(error) = noted {
            tracing::error!("{error}");
        }
    }
}

/// Notes events for names, and to look soon: what is counted is read from the kernel's tables.
fn note(watch: &mut Watch, batch: &[Event]) -> Result<(), Error> {
    batch.iter().try_for_each(|event| watch.note(event).map(drop))
}

/// Looks, and logs each finding once when it comes, and once when it goes.
fn look(watch: &mut Watch) -> Result<(), Error> {
    watch.follow_names()?;
    // Those found here are in the counts of the next look.
    watch.note_rejected_reloads();
    for record in watch.look()?.changes {
        if let Body::Finding(Change { state, finding }) = record.body {
            match state {
                State::Raised => tracing::warn!("finding: {finding}"),
                State::Cleared => tracing::info!("cleared: {finding}"),
            }
        }
    }
    Ok(())
}
