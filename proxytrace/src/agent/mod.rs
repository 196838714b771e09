//! The agent's parts beside its main loop, each on a thread of its own:
//!
//! * [`work`] owns the trace. Everything that takes time is done there.
//! * [`pages`] writes the pages that [`crate::http`] serves.
//! * [`reload`] reads the configuration of the agent itself again, such as what is [`shown`].
//! * [`health`] says whether it is healthy and ready, without waiting for any of them; [`notify`] says so to the service manager.

pub mod health;
pub mod notify;
pub mod pages;
pub mod reload;
pub mod shown;
pub mod work;
