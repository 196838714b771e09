//! What came of a connect to an address. Pure.

use std::{fmt, sync::Arc};

use proxytrace_ebpf::outcome::Outcome;
use serde::{Deserialize, Serialize};

use crate::model::Address;

/// What came of a connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probed {
    /// Whose it is.
    pub(super) proxy: Arc<str>,
    /// Whose address it is.
    pub(super) upstream: Arc<str>,
    /// Where it is declared: `path:line`.
    pub(super) place: String,
    /// The address.
    pub(super) address: Address,
    /// `established`, `refused` and so on; `not_tried` where the time for all was over.
    pub(super) outcome: String,
    /// The same in words.
    #[serde(skip)]
    pub(super) meaning: String,
    /// How long it took, in microseconds.
    pub(super) duration_us: u64,
}

impl Probed {
    /// Whether it is about that upstream.
    pub(super) fn is_of(&self, proxy: &str, upstream: &str) -> bool {
        *self.proxy == *proxy && self.upstream.split(',').any(|one| one == upstream)
    }

    /// Whether it was established.
    pub(super) fn is_well(&self) -> bool {
        self.outcome == Outcome::Established.name()
    }
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upstream, address, outcome, meaning, place, .. } = self;
        write!(f, "upstream \"{upstream}\": a connect to {address} fails: {outcome}")?;
        if !meaning.is_empty() {
            write!(f, " ({meaning})")?;
        }
        write!(f, "; see {place}")
    }
}
