//! What the tracing commands have in common: whom they trace, and how.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::seconds;
use crate::{
    kernel::{
        ConnectTimeout, ConnectTimeouts, Options,
        hooks::Forced,
        processes::{Wanted, cut_to_comm},
        tables::Resized,
    },
    programs,
};

/// The proxy's connect timeout where nothing says it: nginx's.
const CONNECT_TIMEOUT: ConnectTimeout = ConnectTimeout { name: None, time: Duration::from_secs(60) };

/// In bytes.
const RING_SIZE: u32 = 1 << 20;

/// What the tracing commands have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct Tracing {
    /// Trace the processes of this name, running or started later [default: nginx, unless --pid is given].
    #[arg(long = "process", value_name = "NAME", env = "PROXYTRACE_PROCESS", value_delimiter = ',',
          value_parser = process_name)]
    processes: Vec<String>,
    /// Trace this process and its descendants.
    #[arg(long = "pid", value_name = "PID", env = "PROXYTRACE_PID", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Read this configuration, instead of the one that the running nginx names; a path as nginx sees it.
    #[arg(long, value_name = "FILE", env = "PROXYTRACE_NGINX_CONFIG", value_parser = absolute)]
    pub nginx_config: Option<PathBuf>,
    /// Do not look up the host names that configurations have: no name server hears of us. What connects to a host is named by its
    /// port, where only one name has that.
    #[arg(long, env = "PROXYTRACE_NO_RESOLVE")]
    pub no_resolve: bool,
    /// The proxy's own connect timeout, where no configuration gives one: a connect that the proxy gives up later is
    /// `proxy_timeout`, earlier `cancelled`. With a NAME for the processes of that name; give it again for more.
    #[arg(
        long = "connect-timeout",
        value_name = "[NAME=]TIME",
        default_value = "60",
        env = "PROXYTRACE_CONNECT_TIMEOUT",
        value_delimiter = ',',
        value_parser = connect_timeout
    )]
    connect_timeouts: Vec<ConnectTimeout>,
    /// The size of the buffer between kernel and reader: a power of two, at least a page (4096).
    #[arg(long, value_name = "BYTES", default_value_t = RING_SIZE, env = "PROXYTRACE_RING_SIZE", value_parser = ring_size)]
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
    /// An option besides --process that says whom to trace, or how, where any was given: an agent that runs already traces as it was told.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            (!self.pids.is_empty(), "--pid"),
            (self.nginx_config.is_some(), "--nginx-config"),
            (self.no_resolve, "--no-resolve"),
            (self.connect_timeouts != [CONNECT_TIMEOUT], "--connect-timeout"),
            (self.ring_size != RING_SIZE, "--ring-size"),
            (!self.hook_via.is_empty(), "--hook-via"),
            (!self.table_sizes.is_empty(), "--table-size"),
            (self.keep_privileges, "--keep-privileges"),
        ];
        options.into_iter().find_map(|(is_given, option)| is_given.then_some(option))
    }

    /// The names of --process, where any was given.
    pub fn processes(&self) -> Option<BTreeSet<String>> {
        (!self.processes.is_empty()).then(|| self.processes.iter().cloned().collect())
    }

    /// The options that the kernel half needs.
    pub fn options(&self, report_established: bool) -> Options {
        let names = if self.processes.is_empty() && self.pids.is_empty() {
            vec![programs::NGINX.to_owned()]
        } else {
            self.processes.clone()
        };
        Options {
            wanted: Wanted { names, pids: self.pids.clone() },
            connect_timeouts: ConnectTimeouts(self.connect_timeouts.clone()),
            report_established,
            ring_bytes: self.ring_size,
            hook_via: self.hook_via.clone(),
            table_sizes: self.table_sizes.clone(),
            count_seen: false,
        }
    }
}

/// The name of a process, as the kernel keeps it. One that no process can have would trace nothing, and say nothing.
fn process_name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a name is missing; write for example nginx".to_owned()),
        path if path.contains('/') => {
            Err("a path, not a name; write for example nginx, as `ps -o comm` shows it".to_owned())
        }
        name => Ok(cut_to_comm(name).to_owned()),
    }
}

/// `[NAME=]TIME`.
fn connect_timeout(text: &str) -> Result<ConnectTimeout, String> {
    let (name, time) = match text.rsplit_once('=') {
        Some(("", _)) => return Err("a name is missing before the =; write haproxy=5s or 5s".to_owned()),
        Some((name, time)) => (Some(process_name(name)?), time),
        None => (None, text),
    };
    Ok(ConnectTimeout { name, time: seconds(time)? })
}

/// A path that means the same wherever it is read.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| format!("not a path: {error}"))
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
    use std::time::Duration;

    use super::{ConnectTimeouts, connect_timeout, process_name};

    #[test]
    fn a_name_that_no_process_can_have_is_refused() {
        let name =
            |text| process_name(text).map_err(|error| error.split(';').next().unwrap_or_default().to_owned());
        assert_eq!(name("nginx"), Ok("nginx".to_owned()));
        // Of "nginx, haproxy".
        assert_eq!(name(" haproxy"), Ok("haproxy".to_owned()));
        assert_eq!(name("a-rather-long-name"), Ok("a-rather-long-n".to_owned()));
        assert_eq!(name("nginx: master"), Ok("nginx: master".to_owned()));
        for missing in ["", " "] {
            assert_eq!(name(missing), Err("a name is missing".to_owned()));
        }
        assert_eq!(name("/usr/sbin/nginx"), Err("a path, not a name".to_owned()));
    }

    #[test]
    fn a_name_has_its_own_timeout_and_the_last_word_counts() {
        let timeouts = |texts: &[&str]| {
            ConnectTimeouts(texts.iter().map(|text| connect_timeout(text).unwrap()).collect())
        };
        let some = timeouts(&["5", "haproxy=400ms", "envoy=0.25", "haproxy=2s"]);
        assert_eq!(some.of_others(), Duration::from_secs(5));
        assert_eq!(some.of("haproxy"), Some(Duration::from_secs(2)));
        assert_eq!(some.of("envoy"), Some(Duration::from_millis(250)));
        assert_eq!(some.of("nginx"), None);
        assert_eq!(timeouts(&["haproxy=1"]).of_others(), Duration::from_secs(60));
        assert!(some.has_names() && !timeouts(&["5"]).has_names());
        assert_eq!(timeouts(&["a-rather-long-name=1"]).of("a-rather-long-n"), Some(Duration::from_secs(1)));
        for wrong in ["", "x", "=5", "haproxy=", "0", "haproxy=-1", "inf"] {
            assert!(connect_timeout(wrong).is_err(), "{wrong}");
        }
    }
}
