//! What comes, for whoever follows: each reader gets it at its own pace, and nobody waits for one that is slow.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use proxytrace_ebpf::outcome::Outcome;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::tag::Line;
use crate::model::{Body, Record};

/// So many lines wait for whoever follows; one that is slower misses the oldest. About 1.5 MB, whatever the number of readers.
const MAX_WAITING: usize = 4096;

/// What somebody follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follows {
    /// Only what was is wanted.
    #[default]
    Nothing,
    /// What comes.
    Failures,
    /// Established connects as well.
    All,
}

/// Where what comes is handed on.
#[derive(Debug)]
pub(super) struct Live {
    lines: broadcast::Sender<Coming>,
    /// How many of those that follow want established connects as well.
    want_established: Arc<AtomicUsize>,
    /// How many records those that follow have missed.
    missed: Arc<AtomicU64>,
}

/// A line that comes.
#[derive(Clone, Debug)]
struct Coming {
    line: Line,
    is_established: bool,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            lines: broadcast::Sender::new(MAX_WAITING),
            want_established: Arc::default(),
            missed: Arc::default(),
        }
    }
}

impl Live {
    /// Hands on a record; gives whether it is to be remembered as well.
    pub(super) fn take(&self, record: &Record) -> bool {
        let is_established =
            matches!(&record.body, Body::Connect(attempt) if attempt.outcome == Some(Outcome::Established));
        if self.lines.receiver_count() > 0
            && let Ok(line) = record.json_line()
        {
            // Nobody follows any more: nobody misses it.
            let _ = self.lines.send(Coming { line: line.into(), is_established });
        }
        !is_established
    }

    /// Whether anybody wants established connects as well.
    pub(super) fn wants_established(&self) -> bool {
        self.want_established.load(Relaxed) > 0
    }

    /// How many follow, and how many records they have missed.
    pub(super) fn readers(&self) -> (usize, u64) {
        (self.lines.receiver_count(), self.missed.load(Relaxed))
    }

    /// What comes from now on, if anything is wanted.
    pub(super) fn follow(&self, follows: Follows) -> Option<Following> {
        (follows != Follows::Nothing).then(|| Following {
            lines: self.lines.subscribe(),
            established: (follows == Follows::All).then(|| Wanted::new(&self.want_established)),
            missed: Arc::clone(&self.missed),
        })
    }
}

/// The lines that come, for one reader.
#[derive(Debug)]
pub struct Following {
    lines: broadcast::Receiver<Coming>,
    established: Option<Wanted>,
    missed: Arc<AtomicU64>,
}

impl Following {
    /// The next line.
    ///
    /// # Errors
    /// Lines were missed, or no more will come.
    pub async fn next(&mut self) -> Result<Line, RecvError> {
        loop {
            let coming = self.lines.recv().await.inspect_err(|error| {
                if let RecvError::Lagged(count) = error {
                    self.missed.fetch_add(*count, Relaxed);
                }
            })?;
            if self.wants(&coming) {
                return Ok(coming.line);
            }
        }
    }

    /// The next line, where it is there already.
    ///
    /// # Errors
    /// There is none, or lines were missed.
    pub fn try_next(&mut self) -> Result<Line, TryRecvError> {
        loop {
            let coming = self.lines.try_recv().inspect_err(|error| {
                if let TryRecvError::Lagged(count) = error {
                    self.missed.fetch_add(*count, Relaxed);
                }
            })?;
            if self.wants(&coming) {
                return Ok(coming.line);
            }
        }
    }

    const fn wants(&self, coming: &Coming) -> bool {
        !coming.is_established || self.established.is_some()
    }
}

/// That a reader wants something, for as long as this is there.
#[derive(Debug)]
struct Wanted(Arc<AtomicUsize>);

impl Wanted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
