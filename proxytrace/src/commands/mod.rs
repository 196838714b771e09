//! The commands, one a file, all shaped alike: `Args`, which runs. [`crate::cli`] lists them.

pub mod agent;
pub mod check;
pub mod completions;
pub mod doctor;
pub mod guard;
pub mod man;
pub mod probe;
pub mod reader;
pub mod replay;
pub mod status;
pub mod subject;
pub mod top;
pub mod trace;

mod display;
mod observer;
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
    /// Whether somebody else than proxytrace itself calls it, and is to hear of variables that nothing reads.
    const BY_A_PERSON: bool = true;

    /// Runs it.
    ///
    /// # Errors
    /// What went wrong: [`crate::cli`] says which exit status that means.
    fn run(&self, call: Call<'_>) -> anyhow::Result<ExitCode>;
}

/// What a command gets beside its options.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whether notes are left out.
    pub quiet: bool,
    /// The whole command line, for what is made from it.
    pub program: &'a clap::Command,
}

/// Everything runs on one thread: what is read comes from one ring buffer, and a proxy host's CPUs are the proxy's.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
