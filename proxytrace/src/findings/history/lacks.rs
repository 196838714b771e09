//! What a proxy says itself of requests that fail before it connects.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::{
    findings::evidence::Trouble,
    model::{Complaint, Lack},
};

/// More than the time between two looks at the log: what the proxy said of connects within is known by then.
const READ_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// What a proxy lacks, by [`Lack`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Lacks {
    lacks: [OfLack; Lack::ALL.len()],
    /// Connects in the tick that is going on.
    connects: u64,
}

#[derive(Clone, Debug, Default)]
struct OfLack {
    /// Against the connects that the proxy makes meanwhile.
    trouble: Trouble,
    /// What it said last, and when.
    words: Option<Arc<str>>,
    said: Option<Timestamp>,
    /// Connects since then, while it may have said more that is not read yet.
    unread: u64,
}

/// Something that a proxy lacks for sure.
#[derive(Debug)]
pub(crate) struct Lacking<'a> {
    pub(crate) lack: Lack,
    pub(crate) trouble: &'a Trouble,
    pub(crate) words: &'a Arc<str>,
}

impl Lacks {
    /// Takes in what the proxy said.
    pub(super) fn add(&mut self, time: Timestamp, complaints: &[Complaint]) {
        for Complaint { lack, words, times } in complaints {
            let of_lack = &mut self.lacks[*lack as usize];
            of_lack.trouble.add(time, std::mem::take(&mut of_lack.unread), *times);
            (of_lack.words, of_lack.said) = (Some(Arc::clone(words)), Some(time));
        }
    }

    /// The proxy did connect, so many times.
    pub(super) const fn note_connects(&mut self, connects: u64) {
        self.connects = self.connects.saturating_add(connects);
    }

    /// All rows of a tick were taken in.
    pub(super) fn end_tick(&mut self, time: Timestamp) {
        let connects = std::mem::take(&mut self.connects);
        for of_lack in &mut self.lacks {
            of_lack.unread = of_lack.unread.saturating_add(connects);
            if of_lack.said.is_none_or(|said| time.duration_since(said) >= READ_AFTER) {
                of_lack.trouble.add(time, std::mem::take(&mut of_lack.unread), 0);
            }
        }
    }

    /// What is proven, and not over.
    pub(crate) fn proven(&self) -> impl Iterator<Item = Lacking<'_>> {
        let proven = Lack::ALL.into_iter().zip(&self.lacks).filter(|(_, of_lack)| of_lack.trouble.is_proof());
        proven.filter_map(|(lack, OfLack { trouble, words, .. })| {
            Some(Lacking { lack, trouble, words: words.as_ref()? })
        })
    }
}
