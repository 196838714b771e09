//! Findings: what is wrong with what a proxy connects to, as sentences that an engineer can act on.
//!
//! Nothing here does I/O or knows a clock: times come in with what was seen, so that a live host, a recording and a unit test
//! find the same. [`Findings`] takes in what is seen. It keeps a bounded `history`; and each of the `kinds` is a pure function
//! over that history, which says what stands. What newly stands is raised, what does not stand any more is cleared.
//!
//! So whether a finding flaps is decided in the history alone: `evidence.rs` says what it takes to prove something and to refute it.
//! Time that passes without connects changes nothing, but that a connection which has been open for a while is taken for answered.
//!
//! Imports run one way: from `observe.rs` to `kinds`, from there to `history`, and from both to `evidence.rs`, `outcomes.rs` and the
//! model, which knows nothing of findings but what records carry of them.

mod observe;
mod replayed;
mod view;

mod kinds;

mod history;

mod evidence;
mod outcomes;

mod declared;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenes;

pub use history::{Limits, Living};
pub use observe::{Findings, Input};
pub use replayed::Replayed;
pub use view::FindingView;
