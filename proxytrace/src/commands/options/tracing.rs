//! What the tracing commands have in common: whom they trace, and how.

use std::{path::PathBuf, time::Duration};

use super::seconds;
use crate::{
    kernel::{Options, hooks::Forced, processes::Wanted, tables::Resized},
    programs,
};

/// What the tracing commands have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct Tracing {
    /// Trace the processes of this name, running or started later [default: nginx, unless --pid is given].
    #[arg(long = "process", value_name = "NAME", env = "PROXYTRACE_PROCESS", value_delimiter = ',')]
    processes: Vec<String>,
    /// Trace this process and its descendants.
    #[arg(long = "pid", value_name = "PID", env = "PROXYTRACE_PID", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Read this configuration, instead of the one that the running nginx names; a path as nginx sees it.
    #[arg(long, value_name = "FILE", env = "PROXYTRACE_NGINX_CONFIG", value_parser = absolute)]
    pub nginx_config: Option<PathBuf>,
    /// The proxy's own connect timeout, where no configuration gives one: a connect that the proxy gives up later is
    /// `proxy_timeout`, earlier `cancelled`.
    #[arg(long, value_name = "SECONDS", default_value = "60", env = "PROXYTRACE_CONNECT_TIMEOUT", value_parser = seconds)]
    connect_timeout: Duration,
    /// The size of the buffer between kernel and reader: a power of two, at least a page (4096).
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, env = "PROXYTRACE_RING_SIZE", value_parser = ring_size)]
    ring_size: u32,
    /// Attach a hook in this way only, or leave it out (none): connect=tp_btf; give it again for more. Otherwise the
    /// best way is taken that the host allows; `proxytrace doctor` shows which that is.
    #[arg(long = "hook-via", value_name = "HOOK=WAY", env = "PROXYTRACE_HOOK_VIA", value_delimiter = ',')]
    hook_via: Vec<Forced>,
    /// How many entries a table in the kernel has: connections=200000; give it again for more. What does not fit is
    /// counted in `proxytrace_untracked_total` (connections, attempts, ledger, processes, calls, proxies, paths), but for timeouts, where it is logged.
    #[arg(
        long = "table-size",
        value_name = "TABLE=ENTRIES",
        env = "PROXYTRACE_TABLE_SIZE",
        value_delimiter = ','
    )]
    table_sizes: Vec<Resized>,
    /// Keep every privilege while running, and do not limit system calls: to debug a problem.
    #[arg(long, env = "PROXYTRACE_KEEP_PRIVILEGES")]
    pub keep_privileges: bool,
}

impl Tracing {
    /// The options that the kernel half needs.
    pub fn options(&self, report_established: bool) -> Options {
        let names = if self.processes.is_empty() && self.pids.is_empty() {
            vec![programs::NGINX.to_owned()]
        } else {
            self.processes.iter().map(|name| cut_to_comm(name).to_owned()).collect()
        };
        Options {
            wanted: Wanted { names, pids: self.pids.clone() },
            connect_timeout: self.connect_timeout,
            report_established,
            ring_bytes: self.ring_size,
            hook_via: self.hook_via.clone(),
            table_sizes: self.table_sizes.clone(),
            count_seen: false,
        }
    }
}

/// A path that means the same wherever it is read.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| format!("not a path: {error}"))
}

/// The kernel keeps 15 bytes of a process's name.
fn cut_to_comm(name: &str) -> &str {
    let mut end = name.len().min(15);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn ring_size(text: &str) -> Result<u32, String> {
    let smallest = procfs::page_size() as u32;
    match text.parse::<u32>() {
        Ok(size) if size.is_power_of_two() && (smallest..=1 << 30).contains(&size) => Ok(size),
        _ => Err(format!("this must be a power of two from {smallest} to {}", 1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::cut_to_comm;

    #[test]
    fn a_name_is_cut_as_the_kernel_cuts_it() {
        assert_eq!(cut_to_comm("a-rather-long-name"), "a-rather-long-n");
        assert_eq!(cut_to_comm("fourteen-plus-\u{e4}"), "fourteen-plus-");
    }
}
