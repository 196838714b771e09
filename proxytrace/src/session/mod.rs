//! A running trace as a stream of updates: the one loop that takes events and answers, and says when it is time for what. A
//! command is a sink for its updates.

mod pump;
mod ticks;

use std::time::Duration;

use jiff::Timestamp;
use proxytrace_ebpf::abi::Event;
use tokio::{
    sync::mpsc::{self, Receiver},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    kernel::{Error, Events},
    model::{Body, Counted, Lost, Record},
    reader::{Reply, client::Replies},
    watch::{OPEN_RELOAD_CHECK, Watch},
};
pub use pump::Pump;
use ticks::Ticks;

/// What has happened since the update before.
#[derive(Debug, Default)]
pub struct Update {
    /// In order: what happened, what findings were shown, which findings came and went, and how many records were lost.
    pub records: Vec<Record>,
    /// The first process of a proxy that was started, if one was.
    pub entered: Option<u32>,
    /// Whether findings are up to date with everything before it.
    pub is_tick: bool,
}

/// A running trace.
pub struct Session {
    watch: Watch,
    inbox: Inbox,
    ticks: Ticks,
    /// When it was checked last what shows in no event. (No timer: a session may move to another runtime.)
    checked: Instant,
    wants_records: bool,
    /// The events that were lost, as far as that has been reported.
    lost: u64,
}

/// What [`Pump`] sends.
struct Inbox {
    events: Receiver<Vec<Event>>,
    replies: Receiver<Reply>,
}

impl Session {
    /// A session, and the pump that feeds it. Without `wants_records`, events become no records. The first tick comes soon where it
    /// `is_waited_for`.
    pub fn new(
        watch: Watch,
        events: Events,
        replies: Replies,
        wants_records: bool,
        is_waited_for: bool,
    ) -> (Self, Pump) {
        // Whoever sends waits where the session does not keep up; so the kernel counts the events that are lost.
        let (event_sender, event_receiver) = mpsc::channel(1);
        let (reply_sender, reply_receiver) = mpsc::channel(1);
        let session = Self {
            watch,
            inbox: Inbox { events: event_receiver, replies: reply_receiver },
            ticks: Ticks::new(is_waited_for),
            checked: Instant::now(),
            wants_records,
            lost: 0,
        };
        (session, Pump::new(events, replies, event_sender, reply_sender))
    }

    /// From now on findings are up to date within 25 ms of what happened, where that `is_wanted`, and within 100 ms otherwise.
    pub const fn hasten(&mut self, is_wanted: bool) {
        self.ticks.hasten(is_wanted);
    }

    /// What was counted of each destination up to now, as far as it has a name.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub fn counted(&mut self) -> Result<Vec<Counted>, Error> {
        self.watch.counted()
    }

    /// From now on established attempts have records as well, or are only counted again.
    ///
    /// # Errors
    /// The kernel half could not be told.
    pub fn report_established(&mut self, are_wanted: bool) -> Result<(), Error> {
        self.watch.report_established(are_wanted)
    }

    /// From now on so many addresses of one owner's proxies get series of their own.
    ///
    /// # Errors
    /// A map in the kernel could not be read; nothing has changed.
    pub fn limit_addresses(&mut self, max: usize) -> Result<(), Error> {
        self.watch.limit_addresses(max)
    }

    /// What is traced.
    pub const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Waits for the next update; there is one every second at the least. `None` once the pump is gone. Safe to cancel.
    ///
    /// # Errors
    /// A map in the kernel could not be read; the next update may be right again.
    pub async fn next(&mut self) -> Option<Result<Update, Error>> {
        let is_open = self.watch.is_reload_open() || self.watch.holds_events();
        tokio::select! {
            batch = self.inbox.events.recv() => Some(self.take_events(&batch?)),
            Some(reply) = self.inbox.replies.recv() => Some(self.take_reply(reply)),
            () = self.ticks.due() => Some(self.tick()),
            () = sleep_until(self.checked + OPEN_RELOAD_CHECK), if is_open => Some(self.check()),
        }
    }

    fn take_events(&mut self, batch: &[Event]) -> Result<Update, Error> {
        self.ticks.note_news();
        batch.iter().try_for_each(|event| self.watch.take(event, self.wants_records))?;
        let entered = batch.iter().find(|event| event.kind == Event::ENTERED).map(|event| event.pid);
        Ok(Update { records: self.watch.records()?, entered, is_tick: false })
    }

    fn take_reply(&mut self, reply: Reply) -> Result<Update, Error> {
        self.ticks.note_news();
        self.watch.answer(reply)?;
        Ok(Update { records: self.watch.records()?, ..Update::default() })
    }

    /// Looks for what shows in no event: that a reload was rejected, or that a name was waited for long enough.
    fn check(&mut self) -> Result<Update, Error> {
        self.checked = Instant::now();
        if self.watch.take_rejected_reloads(self.wants_records) {
            self.ticks.note_news();
        }
        Ok(Update { records: self.watch.records()?, ..Update::default() })
    }

    fn tick(&mut self) -> Result<Update, Error> {
        self.ticks.note_tick();
        let mut records = self.watch.tick()?;
        if self.watch.misses_workers() {
            self.ticks.note_news();
        }
        records.extend(self.losses()?);
        Ok(Update { records, entered: None, is_tick: true })
    }

    /// How many records were lost since that was last asked.
    fn losses(&mut self) -> Result<Option<Record>, Error> {
        let lost = self.watch.events_lost()?;
        let count = lost - std::mem::replace(&mut self.lost, lost);
        Ok((count > 0).then(|| Record { time: Timestamp::now(), body: Body::Lost(Lost { count }) }))
    }

    /// Ends the trace and gives what is left. Detaches first, so that what is shown last is all there is, and agrees with what
    /// was counted. Names are waited for until `name_timeout` is over.
    ///
    /// # Errors
    /// A map in the kernel could not be read.
    pub async fn finish(&mut self, pump: &mut Pump, name_timeout: Duration) -> Result<Update, Error> {
        self.watch.detach();
        let mut batch = Vec::new();
        while let Ok(events) = self.inbox.events.try_recv() {
            batch.extend(events);
        }
        pump.drain(|event| batch.push(event));
        let mut update = self.take_events(&batch)?;
        let answers = async {
            while self.watch.is_naming() {
                let reply = match self.inbox.replies.try_recv() {
                    Ok(reply) => Some(reply),
                    Err(_) => pump.next_reply().await,
                };
                let Some(reply) = reply else { break };
                update.records.extend(self.take_reply(reply)?.records);
            }
            Ok::<_, Error>(())
        };
        // What is named by then is named.
        timeout(name_timeout, answers).await.unwrap_or(Ok(()))?;
        self.watch.stop_waiting_for_names();
        update.records.extend(self.watch.records()?);
        update.records.extend(self.tick()?.records);
        // Its time is when the trace ended.
        update.records.push(Record { time: Timestamp::now(), body: Body::Tick });
        update.is_tick = true;
        Ok(update)
    }
}
