//! What `proxytrace doctor --json` says, as far as it is read here.

use serde::Deserialize;

/// The whole object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Doctor {
    pub(crate) hooks: Vec<Hook>,
}

/// How a hook was attached, and how often it was seen to fire.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) via: Option<String>,
    /// Nothing where it has no program of its own.
    pub(crate) seen: Option<u64>,
}

/// The way that is no program of its own: another hook, whose firing is counted there, sees the same.
const OF_ANOTHER: &str = "state";

impl Hook {
    /// The way it was attached, if it was seen to fire.
    pub(crate) fn working_way(&self) -> Option<&str> {
        self.via.as_deref().filter(|via| self.seen.map_or(*via == OF_ANOTHER, |seen| seen > 0))
    }

    /// Attached, but not seen to fire: the kernel took the program and does not run it.
    pub(crate) fn is_mute(&self) -> bool {
        self.via.is_some() && self.working_way().is_none()
    }
}
