//! Reads the configuration that a running proxy uses, in a process of its own.
//!
//! It takes privileges that a trace does not keep: to look below the roots of other processes, and to ask for names in
//! their network namespaces. And what it reads may be hostile, large or slow. So it is another process, started before
//! the trace gives up its own privileges, and each request is worked on by yet another one, with bounds on time and
//! memory. They speak JSON, an object a line, through pipes. From the outside in:
//!
//! * [`client`]: starts it, asks, and hears answers.
//! * [`serve`]: the process; `queue`, `places`, `pending`: who is served next.
//! * `configuration`: one request, in a process of its own; `said`: what that says.
//! * `nginx`: what is nginx's about that. Another proxy is another such file.
//! * `changed`: what was changed after the proxy had read it.
//! * `names`, `dns`: host names, as they resolve where the proxy runs.
//! * `pod`: where in Kubernetes a proxy runs, be it one that is known or not.
//! * `confine`, `owner`: what such a process may take, and whose rights it has: those of the proxy's own user.
//! * `follow`, `tail`, `handing`: the error logs of proxies, opened by such a process and read while they grow.
//! * `hints`: what else is known of why connects fail.
//! * `logs`, `root`, `mounts`: files of another process, as it sees them.
//! * `protocol`: questions and answers; `lines`: what both sides take from a pipe, of bounded length; `holder`: whose they are.
//!
//! Who names a connect by what it answers (`naming`) is above; nothing here knows of it.

pub mod client;
pub mod serve;

mod changed;
mod configuration;
mod confine;
mod dns;
mod follow;
mod handing;
mod hints;
mod holder;
mod lines;
mod logs;
mod mounts;
mod names;
mod nginx;
mod owner;
mod pending;
mod places;
mod pod;
mod protocol;
mod queue;
mod root;
mod said;
mod tail;

#[cfg(test)]
pub(crate) mod tests;

pub use changed::start_of_workers;
pub use holder::Owner;
pub use protocol::{Answer, FoundName, GenerationId, Lookup, Question, Reply, Request, Resolved};

/// How many pods the host keeps logs of, from which the names of pods are taken: read as the reader reads them, with the rights of
/// this process.
///
/// # Errors
/// The directory is not there (`NotFound`), or why it cannot be read.
pub fn pods_of_host() -> std::io::Result<usize> {
    pod::count_of_host()
}

/// Reads an answer of a name server in each of the ways in which one is read.
#[cfg(any(fuzzing, test))]
pub(crate) fn read_dns_answer(message: &[u8]) {
    dns::read_any(message);
}
