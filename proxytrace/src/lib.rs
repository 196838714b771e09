//! proxytrace watches what nginx really connects to. Its modules, from the outside in:
//!
//! * [`cli`], [`commands`], [`exit`], [`logging`]: the program as one types it.
//! * [`config_file`]: a command's options in a file.
//! * [`agent`], [`threads`]: what the agent does at the same time, so that nothing waits for anything else.
//! * [`check`]: what a configuration would misroute.
//! * [`guard`]: a change that takes itself back.
//! * [`doctor`]: what the host lets us do.
//! * [`recording`]: records in a file, and back.
//! * [`output`], [`top`], [`http`], [`metrics`]: what people and Prometheus see.
//! * [`feed`]: what the agent sees, as it changes, for a command that loads no programs of its own.
//! * [`watch`]: a running trace that knows names; [`reloads`]: what becomes of reloads.
//! * [`findings`]: what is wrong, as sentences with evidence; no I/O.
//! * [`escape`]: text of others as it may be shown.
//! * [`identity`], [`model`]: names, records, filters, the book of what was counted; no aya, no metrics library.
//! * [`naming`]: which upstream a connect belongs to.
//! * [`declared`]: what the configuration of a proxy declares, whatever proxy that is; [`nginx`]: how nginx's says it.
//! * [`programs`]: how processes of proxies are known.
//! * [`reader`]: reads the configuration that a running nginx uses, in a process of its own.
//! * [`capacity`]: how capacity is shared between owners.
//! * [`variables`]: variables of the environment that nothing reads.
//! * [`memory`]: what the C library keeps of it.
//! * [`privilege`]: what is given up once a trace runs.
//! * [`kernel`]: the kernel half, loaded, attached and read; the only module that knows aya.
//! * `fuzzing`: what is read of others, for the fuzz targets.
//!
//! The programs in the kernel are the package `proxytrace-ebpf`.

pub(crate) mod agent;
pub(crate) mod capacity;
pub(crate) mod check;
pub(crate) mod cli;
pub(crate) mod client;
pub(crate) mod commands;
pub(crate) mod config_file;
pub(crate) mod declared;
pub(crate) mod doctor;
pub(crate) mod escape;
pub(crate) mod exit;
pub(crate) mod feed;
pub(crate) mod findings;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
#[cfg(test)]
mod generated;
pub(crate) mod guard;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod kernel;
pub(crate) mod logging;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod model;
pub(crate) mod naming;
pub(crate) mod nginx;
pub(crate) mod output;
pub(crate) mod privilege;
pub(crate) mod programs;
pub(crate) mod reader;
pub(crate) mod recording;
pub(crate) mod session;
pub(crate) mod status;
pub(crate) mod threads;
pub(crate) mod top;
pub(crate) mod variables;
pub(crate) mod watch;
pub(crate) mod width;

pub use cli::main;
