//! proxytrace watches what nginx really connects to. Its modules, from the outside in:
//!
//! * [`cli`], [`commands`], [`exit`], [`logging`]: the program as one types it.
//! * [`agent`], [`threads`]: what the agent does at the same time, so that nothing waits for anything else.
//! * [`check`]: what a configuration would misroute.
//! * [`doctor`]: what the host lets us do.
//! * [`recording`]: records in a file, and back.
//! * [`output`], [`http`], [`metrics`]: what people and Prometheus see.
//! * [`watch`]: a running trace that knows names; [`reloads`]: what becomes of reloads.
//! * [`findings`]: what is wrong, as sentences with evidence; no I/O.
//! * [`escape`]: text of others as it may be shown.
//! * [`identity`], [`model`]: names, records, filters, the book of what was counted; no aya, no metrics library.
//! * [`naming`]: which upstream a connect belongs to.
//! * [`declared`]: what the configuration of a proxy declares, whatever proxy that is; [`nginx`]: how nginx's says it.
//! * [`programs`]: how processes of proxies are known.
//! * [`reader`]: reads the configuration that a running nginx uses, in a process of its own.
//! * [`room`]: how room is shared between owners.
//! * [`memory`]: what the C library keeps of it.
//! * [`privilege`]: what is given up once a trace runs.
//! * [`kernel`]: the kernel half, loaded, attached and read; the only module that knows aya.
//! * `fuzzing`: what is read of others, for the fuzz targets.
//!
//! The programs in the kernel are the package `proxytrace-ebpf`.

pub mod agent;
pub mod check;
pub mod cli;
pub mod commands;
pub mod declared;
pub mod doctor;
pub mod escape;
pub mod exit;
pub mod findings;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod http;
pub mod identity;
pub mod kernel;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod naming;
pub mod nginx;
pub mod output;
pub mod privilege;
pub mod programs;
pub mod reader;
pub mod recording;
pub mod reloads;
pub mod room;
pub mod threads;
pub mod watch;
