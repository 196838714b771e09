//! What a proxy says itself of requests that fail before it connects.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    findings::evidence::Trouble,
    model::{Complaint, Lack},
};

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
    /// What it said last.
    words: Option<Arc<str>>,
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
            of_lack.trouble.add(time, 0, *times);
            of_lack.words = Some(Arc::clone(words));
        }
    }

    /// The proxy did connect, so many times.
    pub(super) const fn note_connects(&mut self, connects: u64) {
        self.connects = self.connects.saturating_add(connects);
    }

    /// All rows of a tick were taken in.
    pub(super) fn end_tick(&mut self, time: Timestamp) {
        let connects = std::mem::take(&mut self.connects);
        self.lacks.iter_mut().for_each(|of_lack| of_lack.trouble.add(time, connects, 0));
    }

    /// What is proven, and not over.
    pub(crate) fn proven(&self) -> impl Iterator<Item = Lacking<'_>> {
        let proven = Lack::ALL.into_iter().zip(&self.lacks).filter(|(_, of_lack)| of_lack.trouble.is_proof());
        proven.filter_map(|(lack, OfLack { trouble, words })| {
            Some(Lacking { lack, trouble, words: words.as_ref()? })
        })
    }
}
