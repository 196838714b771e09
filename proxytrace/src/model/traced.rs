//! What is traced.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What is traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Processes of these names.
    pub processes: BTreeSet<String>,
    /// These, with what they start.
    pub pids: BTreeSet<u32>,
}
