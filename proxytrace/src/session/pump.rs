//! Takes events out of the ring buffer and answers from the reader, and hands them to the session. Nothing here takes long, so
//! the ring buffer is emptied whatever the session does.

use std::mem;

use proxytrace_ebpf::abi::Event;
use tokio::sync::mpsc::Sender;

use crate::{
    kernel::Events,
    reader::{
        Reply,
        client::{Gone, Replies},
    },
};

/// Events that wait to be worked on, at most: 3 MiB. What does not fit stays in the ring buffer.
const MAX_WAITING: usize = 32 << 10;

/// The side of a trace that waits for the kernel and the reader.
pub struct Pump {
    events: Events,
    replies: Replies,
    event_sender: Sender<Vec<Event>>,
    reply_sender: Sender<Reply>,
    /// Events that the session has not taken yet.
    waiting: Vec<Event>,
    /// The same of an answer.
    answer: Option<Reply>,
}

impl Pump {
    pub(super) const fn new(
        events: Events,
        replies: Replies,
        event_sender: Sender<Vec<Event>>,
        reply_sender: Sender<Reply>,
    ) -> Self {
        Self { events, replies, event_sender, reply_sender, waiting: Vec::new(), answer: None }
    }

    /// Does the next step: something was taken or handed on. Safe to cancel.
    ///
    /// # Errors
    /// Once, when the reader is gone; events go on.
    pub async fn step(&mut self) -> Result<(), Gone> {
        let Self { events, replies, event_sender, reply_sender, waiting, answer } = self;
        let capacity = MAX_WAITING - waiting.len();
        tokio::select! {
            () = events.next_batch(capacity, |event| waiting.push(event)), if capacity > 0 => {}
            Ok(place) = event_sender.reserve(), if !waiting.is_empty() => place.send(mem::take(waiting)),
            reply = replies.next(), if answer.is_none() => *answer = Some(reply?),
            Ok(place) = reply_sender.reserve(), if answer.is_some() => if let Some(reply) = answer.take() {
                place.send(reply);
            },
        }
        Ok(())
    }

    /// Hands over the events that are left, without waiting.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Event)) {
        mem::take(&mut self.waiting).into_iter().for_each(&mut take);
        self.events.drain(take);
    }

    /// Waits for the next answer; `None` when the reader is gone. Safe to cancel.
    pub(super) async fn next_reply(&mut self) -> Option<Reply> {
        match self.answer.take() {
            Some(reply) => Some(reply),
            None => self.replies.next().await.ok(),
        }
    }
}
