//! The commands, one a file, all shaped alike: `Args`, which runs. [`crate::cli`] lists them.

pub mod agent;
pub mod check;
pub mod doctor;
pub mod reader;
pub mod replay;
pub mod subject;
pub mod trace;

mod display;
mod options;
mod shutdown;
mod tracing;

use std::process::ExitCode;

use crate::logging::Way;

/// A command, by its options.
pub trait Run {
    /// The level of what is logged where nothing else is asked for.
    const LOG_LEVEL: &str = "warn";
    /// How log lines get to standard error.
    const LOG_WAY: Way = Way::Direct;

    /// Runs it; `quiet` leaves out notes.
    ///
    /// # Errors
    /// What went wrong: [`crate::cli`] says which exit status that means.
    fn run(&self, quiet: bool) -> anyhow::Result<ExitCode>;
}

/// Everything runs on one thread: what is read comes from one ring buffer, and a proxy host's CPUs are the proxy's.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
