//! The thread that writes what is remembered to a file, so that nobody waits for a disk; and what it reads there at the start.

use std::{
    io, mem,
    path::Path,
    sync::{
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use jiff::Timestamp;

use super::{
    History, Last,
    file::Files,
    lock,
    tag::{Tag, Tagged},
    under_way::UnderWay,
};
use crate::model::{Minute, Remembered};

/// So many messages wait for the disk.
const MAX_WAITING: usize = 1024;

/// What the thread is told.
#[derive(Debug)]
pub enum Message {
    /// Write these.
    Lines(Vec<Tagged>),
    /// These are under way.
    UnderWay(Vec<Tagged>),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

/// Writes what is remembered.
#[derive(Debug)]
pub struct Keeper {
    history: History,
    files: Files,
    under_way: UnderWay,
    /// What was under way when the agent before this one was killed.
    rescued: Vec<Tagged>,
    messages: Receiver<Message>,
    /// Lines that the files lack, as far as that was said.
    unwritten: u64,
    /// Why the last lines are not in the file.
    failure: Option<String>,
}

impl Keeper {
    /// Opens the files, and has everything from now on come here.
    pub fn open(history: History, directory: &Path) -> io::Result<Self> {
        let files = Files::open(directory, history.0.bytes)?;
        let under_way = UnderWay::new(Files::open_under_way(directory)?);
        let (sender, messages) = sync_channel(MAX_WAITING);
        // There is one file only.
        let _ = history.0.keeper.set(sender);
        Ok(Self { history, files, under_way, rescued: Vec::new(), messages, unwritten: 0, failure: None })
    }

    /// Reads what earlier agents remembered, and gives how many lines were damaged.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn restore(&mut self) -> io::Result<u64> {
        let (now, mut unknown, mut last) = (Timestamp::now(), 0, None);
        let mut rescued = Rescued::of(self.under_way.read()?);
        let history = &self.history;
        let damaged = self.files.read(|tag, text| {
            let is_known = match tag {
                Tag::Begin | Tag::Whole => true,
                Tag::First | Tag::Repeat => serde_json::from_str::<Remembered>(text)
                    .map(|remembered| {
                        rescued.leave_out(&remembered);
                        history.store().restore(&remembered, tag == Tag::First);
                    })
                    .is_ok(),
                Tag::Minute => serde_json::from_str::<Minute>(text)
                    .map(|minute| {
                        rescued.leave_out_minute(&minute);
                        history.minutes().restore(now, &minute);
                    })
                    .is_ok(),
                Tag::Standing => {
                    last = serde_json::from_str::<Last>(text).ok();
                    last.is_some()
                }
            };
            unknown += u64::from(!is_known);
        })?;
        rescued.records.iter().for_each(|remembered| history.store().restore(remembered, false));
        rescued.minutes.iter().for_each(|minute| history.minutes().restore(now, minute));
        self.rescued = rescued.lines();
        let (last, ended): (Vec<_>, Vec<_>) = last.into_iter().partition(|last| last.boot == history.0.boot);
        *lock(&history.0.inherited) = last.into_iter().next();
        let gone = ended.iter().flat_map(|last| &last.findings);
        let gone: Vec<_> = gone.map(|left| left.finding.gone(now, "the host was started anew")).collect();
        history.take(&gone);
        Ok(damaged + unknown)
    }

    /// Writes until nobody remembers any more.
    pub fn run(mut self) {
        let rescued = mem::take(&mut self.rescued);
        self.write(&rescued);
        while let Ok(message) = self.messages.recv() {
            let (mut lines, mut under_way, mut waiting) = (Vec::new(), None, Vec::new());
            for message in std::iter::once(message).chain(self.messages.try_iter()) {
                match message {
                    Message::Lines(more) => lines.extend(more),
                    Message::UnderWay(newer) => under_way = Some(newer),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            self.write(&lines);
            if let Some(lines) = under_way {
                self.write_under_way(&lines);
            }
            for done in waiting {
                // Whoever waited may have given up.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, lines: &[Tagged]) {
        if lines.is_empty() {
            return;
        }
        let written = self.files.append(lines, || self.history.kept());
        let all = &self.history.0.unwritten;
        let late = all.load(Relaxed) - self.unwritten;
        if late > 0 {
            tracing::warn!("{late} lines of the history are not in its file, as the disk was too slow");
        }
        self.unwritten += late;
        if written.is_err() {
            self.unwritten += lines.len() as u64;
            all.fetch_add(lines.len() as u64, Relaxed);
        }
        self.note(written);
    }

    fn write_under_way(&mut self, lines: &[Tagged]) {
        let written = self.under_way.write(lines);
        // That one can be written says nothing of the others.
        if written.is_err() {
            self.note(written);
        }
    }

    /// Says once that the disk is full, and once that it is not any more.
    fn note(&mut self, written: io::Result<()>) {
        let failure = written.err().map(|error| error.to_string());
        if failure != self.failure {
            match &failure {
                Some(error) => tracing::warn!("write the history: {error}; it goes on in memory"),
                None => tracing::info!("the history is written again"),
            }
            self.failure = failure;
        }
    }
}

/// What was under way when an agent was killed, and never became whole.
struct Rescued {
    records: Vec<Remembered>,
    minutes: Vec<Minute>,
}

impl Rescued {
    fn of(lines: Vec<(Tag, String)>) -> Self {
        let (mut records, mut minutes) = (Vec::new(), Vec::new());
        for (tag, text) in lines {
            match tag {
                Tag::Repeat => records.extend(serde_json::from_str(&text).ok()),
                Tag::Minute => minutes.extend(serde_json::from_str(&text).ok()),
                _ => {}
            }
        }
        Self { records, minutes }
    }

    /// It has become whole.
    fn leave_out(&mut self, whole: &Remembered) {
        self.records.retain(|open| open.record != whole.record);
    }

    /// The same of what was counted in a minute.
    fn leave_out_minute(&mut self, whole: &Minute) {
        let of = |minute: &Minute| (minute.time, minute.proxy.clone(), minute.upstream.clone());
        self.minutes.retain(|open| of(open) != of(whole));
    }

    fn lines(&self) -> Vec<Tagged> {
        let records = self.records.iter().filter_map(|one| Some((Tag::Repeat, one.json_line().ok()?.into())));
        let minutes = self.minutes.iter().filter_map(|one| Some((Tag::Minute, one.json_line().ok()?.into())));
        records.chain(minutes).collect()
    }
}
