//! The agent's parts beside its main loop, each on a thread of its own:
//!
//! * [`work`] owns the trace. Everything that takes time is done there.
//! * [`pages`] writes the pages that [`crate::http`] serves.
//! * [`health`] says whether it is healthy and ready, without waiting for either.

pub mod health;
pub mod pages;
pub mod work;
