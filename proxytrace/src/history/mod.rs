//! What the agent remembers: records, in bounded memory, and for whoever follows also those that come.
//!
//! Whoever is called comes after it began, so what was first is kept longest. Failures that repeat are folded: [`fold`] says how,
//! [`store`] what goes when there is no more room. Nobody who reads holds up the thread that remembers: a reader takes a page at a
//! time, and of what comes it misses what it does not take in time, which is counted to it.

mod class;
mod course;
mod file;
mod fold;
mod keeper;
mod last;
mod live;
mod minutes;
#[cfg(test)]
mod properties;
mod store;
mod tag;
mod under_way;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, SyncSender},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use course::Course;
pub use course::{Wrong, Wrongs};
pub use keeper::Keeper;
use keeper::Message;
pub use last::{Known, Last, Left};
use live::Live;
pub use live::{Following, Follows};
use minutes::Minutes;
pub use minutes::{RECENT, Recent, STEP, Sums, Trouble};
pub use store::Page;
use store::{Cursor, Store};
pub use tag::Line;
use tag::{Tag, Tagged};

use crate::model::{Body, Finding, Lost, Record, Subject, UpstreamKey};

/// Evidence that grows is written no more often than that.
const EVIDENCE: SignedDuration = SignedDuration::from_secs(10);

/// An agent that is killed loses no more of what is under way.
pub const OFTEN: Duration = Duration::from_secs(5);

/// The end of an agent waits so long for its file.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A smaller history is of no use, in bytes.
const MIN_BYTES: u64 = 256 << 10;

/// What is remembered, shared by the thread that does and those that tell.
#[derive(Clone, Debug)]
pub struct History(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    minutes: Mutex<Minutes>,
    course: Mutex<Course>,
    live: Live,
    /// When this agent began, and of which host it tells.
    header: Line,
    record: Record,
    /// Of no more than so many bytes in memory.
    bytes: u64,
    /// Which boot of the host this is.
    boot: Line,
    /// What an agent before this one saw last, as far as it still holds.
    inherited: Mutex<Option<Last>>,
    /// What was seen last, and when that was written.
    last: Mutex<Option<(Last, Timestamp)>>,
    /// Who writes it to a file.
    keeper: OnceLock<SyncSender<Message>>,
    /// Lines that the files lack.
    unwritten: AtomicU64,
}

impl History {
    /// Remembers nothing yet, and later no more than `bytes`; with 0 nothing at all. `header` says when it began, `boot` in which
    /// boot of the host.
    ///
    /// # Errors
    /// The header cannot be written as JSON; that does not happen.
    pub fn new(bytes: u64, header: &Record, boot: &str) -> serde_json::Result<Self> {
        let room = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self(Arc::new(Shared {
            store: Mutex::new(Store::new(room)),
            minutes: Mutex::new(Minutes::new(room / 4, header.time)),
            course: Mutex::default(),
            live: Live::default(),
            header: header.json_line()?.into(),
            record: header.clone(),
            bytes,
            boot: boot.into(),
            inherited: Mutex::default(),
            last: Mutex::default(),
            keeper: OnceLock::new(),
            unwritten: AtomicU64::new(0),
        })))
    }

    /// Opens the files in which it is kept across a restart. Nothing is written before the keeper [runs](Keeper::run).
    ///
    /// # Errors
    /// The directory cannot be written to, or another agent has them.
    pub fn keep_in(&self, directory: &Path) -> io::Result<Keeper> {
        Keeper::open(self.clone(), directory)
    }

    /// When this agent began, as a record.
    #[must_use]
    pub fn header(&self) -> Record {
        self.0.record.clone()
    }

    /// When this agent began.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.0.record.time
    }

    /// Takes what has happened.
    pub fn take(&self, records: &[Record]) {
        let told: Vec<_> = records.iter().filter(|record| !record.body.is_for_replay()).collect();
        if told.is_empty() {
            return;
        }
        // Under the lock, so that whoever begins to follow gets each record once.
        let mut store = self.store();
        let mut kept = Vec::new();
        for record in told {
            if self.0.live.take(record) {
                kept.extend(store.take(record));
            }
        }
        drop(store);
        let mut minutes = self.minutes();
        records.iter().for_each(|record| minutes.note_failure(record));
        drop(minutes);
        self.write(kept);
    }

    /// Takes what this agent sees to stand, and where requests wait for too long: to be called as often as that is looked at.
    pub fn note<'a>(
        &self,
        now: Timestamp,
        findings: impl Iterator<Item = &'a Finding>,
        late: impl Iterator<Item = UpstreamKey>,
    ) {
        lock(&self.0.course).note(now, findings, late);
    }

    /// Takes a finding that stands by what an agent before this one saw.
    pub fn note_inherited(&self, now: Timestamp, finding: &Finding) {
        lock(&self.0.course).stands(now, finding);
    }

    /// Since when a finding that stands has been as severe as it is.
    #[must_use]
    pub fn severe_since(&self, subject: &Subject) -> Option<Timestamp> {
        lock(&self.0.course).severe_since(subject)
    }

    /// What was wrong with each upstream.
    #[must_use]
    pub fn wrongs(&self) -> Wrongs {
        lock(&self.0.course).wrongs().clone()
    }

    /// Takes what was counted of each upstream so far, each [`STEP`].
    pub fn sample(&self, now: Timestamp, sums: Sums) {
        let mut kept = self.store().tick(now);
        kept.extend(self.minutes().take(now, sums));
        self.write(kept);
    }

    /// What an agent before this one saw last, as far as it still holds.
    #[must_use]
    pub fn inherited(&self) -> Option<Last> {
        lock(&self.0.inherited).clone()
    }

    /// Whether something stands by that alone.
    #[must_use]
    pub fn inherits_findings(&self) -> bool {
        lock(&self.0.inherited).as_ref().is_some_and(|last| !last.findings.is_empty())
    }

    /// What still holds of it: nothing that was refuted comes back.
    pub fn inherit(&self, last: Option<Last>) {
        *lock(&self.0.inherited) = last;
    }

    /// Which boot of the host this is.
    #[must_use]
    pub fn boot(&self) -> Line {
        Arc::clone(&self.0.boot)
    }

    /// Takes what is seen now, for an agent that is started after this one.
    pub fn note_last(&self, last: &Last) {
        let mut known = lock(&self.0.last);
        let written = known.as_ref().and_then(|(known, written)| {
            let is_recent = last.time.duration_since(*written) < EVIDENCE;
            (known.is_like(last) && is_recent || known.is_same(last)).then_some(*written)
        });
        let line = if written.is_none() { last.line() } else { None };
        *known = Some((last.clone(), written.unwrap_or(last.time)));
        drop(known);
        self.write(line.map(|line| (Tag::Standing, line)).into_iter().collect());
    }

    /// Has written what is under way, so that little of it is lost where this agent is killed: to be called every [`OFTEN`].
    pub fn keep_under_way(&self) {
        let Some(keeper) = self.0.keeper.get() else { return };
        let half = under_way::MAX_TEXT / 2;
        let records = self.store().under_way(half).into_iter().map(|line| (Tag::Repeat, line));
        let minutes = self.minutes().under_way(half).into_iter().map(|line| (Tag::Minute, line));
        // The next one says the same and more.
        let _ = keeper.try_send(Message::UnderWay(records.chain(minutes).collect()));
    }

    /// The agent ends: writes what is under way.
    pub fn end(&self) {
        let mut kept = self.store().tick(Timestamp::MAX);
        kept.extend(self.minutes().close());
        kept.extend(self.standing());
        self.write(kept);
        if let Some(keeper) = self.0.keeper.get() {
            let (done, is_done) = mpsc::sync_channel(1);
            if keeper.try_send(Message::Flush(done)).is_ok() {
                let _ = is_done.recv_timeout(LAST_WORDS);
            }
        }
    }

    /// What a file begins with that takes over from a full one.
    fn kept(&self) -> Vec<Tagged> {
        let firsts: Vec<_> = self.store().firsts().map(|line| (Tag::First, Arc::clone(line))).collect();
        let minutes: Vec<_> = self.minutes().past().map(|line| (Tag::Minute, Arc::clone(line))).collect();
        firsts.into_iter().chain(minutes).chain(self.standing()).collect()
    }

    /// What was seen last.
    fn standing(&self) -> Option<Tagged> {
        lock(&self.0.last).as_ref().and_then(|(last, _)| last.line()).map(|line| (Tag::Standing, line))
    }

    /// Has lines written, where they are to be. Waits for nobody: what finds no place is missing in the file.
    fn write(&self, lines: Vec<Tagged>) {
        let Some(keeper) = self.0.keeper.get().filter(|_| !lines.is_empty()) else { return };
        let count = lines.len() as u64;
        if keeper.try_send(Message::Lines(lines)).is_err() {
            self.0.unwritten.fetch_add(count, Relaxed);
        }
    }

    /// What is remembered, and who reads it.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let (of_records, oldest) = self.store().extent();
        let (readers, missed) = self.0.live.readers();
        Extent {
            bytes: (of_records + self.minutes().bytes()) as u64,
            capacity: self.0.bytes,
            oldest,
            unwritten: self.0.unwritten.load(Relaxed),
            readers: readers as u64,
            missed,
        }
    }

    /// What was counted within about the last minute, up to the last [sample](Self::sample).
    #[must_use]
    pub fn recent(&self) -> Recent {
        self.minutes().recent()
    }

    /// The lines of the minutes from `since` until `until`.
    #[must_use]
    pub fn between(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Page {
        self.minutes().between(since.unwrap_or(Timestamp::MIN), until.unwrap_or(Timestamp::MAX))
    }

    /// Whether anybody follows who wants established connects as well: the kernel is to report them then.
    #[must_use]
    pub fn wants_established(&self) -> bool {
        self.0.live.wants_established()
    }

    /// What is remembered from `since` until `until`, and what comes after that where somebody `follows`.
    #[must_use]
    pub fn read(&self, since: Option<Timestamp>, until: Option<Timestamp>, follows: Follows) -> Lines {
        let store = self.store();
        let cursor = store.begin(since, until);
        let live = self.0.live.follow(follows);
        Lines { header: Arc::clone(&self.0.header), past: Past { history: self.clone(), cursor }, live }
    }

    fn minutes(&self) -> MutexGuard<'_, Minutes> {
        lock(&self.0.minutes)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.0.store)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is remembered, and who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// What it takes in memory.
    pub bytes: u64,
    /// What it may take.
    pub capacity: u64,
    /// When the oldest record was.
    pub oldest: Option<Timestamp>,
    /// Lines that the files lack.
    pub unwritten: u64,
    /// Clients that follow.
    pub readers: u64,
    /// Records that they missed.
    pub missed: u64,
}

/// The lines that a reader asked for.
#[derive(Debug)]
pub struct Lines {
    /// The first line.
    pub header: Line,
    /// What was.
    pub past: Past,
    /// What comes.
    pub live: Option<Following>,
}

/// What was, page by page: nothing of it is kept for a reader that takes its time.
#[derive(Debug)]
pub struct Past {
    history: History,
    cursor: Cursor,
}

impl Past {
    /// The next lines, of about `bytes` in all; none at the end.
    pub fn page(&mut self, bytes: usize) -> Page {
        self.history.store().page(&mut self.cursor, bytes)
    }
}

/// The line that says how many a reader has missed.
#[must_use]
pub fn lost(time: Timestamp, count: u64) -> String {
    let record = Record { time, body: Body::Lost(Lost { count }) };
    record.json_line().unwrap_or_default()
}

/// A size in bytes as people write it: 16M; 0 for none.
///
/// # Errors
/// It is none, or too small to be of use.
pub fn size(text: &str) -> Result<u64, String> {
    match text {
        "0" => Ok(0),
        text => match crate::recording::size(text) {
            Ok(bytes) if bytes >= MIN_BYTES => Ok(bytes),
            Ok(_) => Err("this must be 0, or at least 256K".to_owned()),
            Err(why) => Err(why),
        },
    }
}
