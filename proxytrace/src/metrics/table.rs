//! Every metric, declared once: the exporter writes them and docs/metrics.md is made from them.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
    /// Always 1: the labels tell.
    Info,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in the text format, `_total` and `_info` included.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts: a sentence without its full stop, which the encoder adds.
    pub help: &'static str,
}

impl Metric {
    /// The name of its family in OpenMetrics, where `_total` and `_info` belong to the sample.
    #[must_use]
    pub fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:ident),*] $help:literal;)+) => {
        $(#[doc = $help]
        pub const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$(stringify!($label)),*], help: $help };)+

        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    CONNECT_ATTEMPTS: Counter "proxytrace_connect_attempts_total" [proxy, upstream, address]
        "Connects to upstreams that a proxy began: established, failed and in flight";
    CONNECTS_ESTABLISHED: Counter "proxytrace_connects_established_total" [proxy, upstream, address]
        "Connects whose handshake was completed";
    CONNECT_FAILURES: Counter "proxytrace_connect_failures_total" [proxy, upstream, address, cause]
        "Connects that failed, by cause";
    CONNECTS_IN_FLIGHT: Gauge "proxytrace_connects_in_flight" [proxy, upstream, address]
        "Connects that have not ended yet";
    CONNECT_DURATION: Histogram "proxytrace_connect_duration_seconds" [proxy, upstream, address]
        "How long completed handshakes took";
    SYN_RETRANSMITS: Counter "proxytrace_syn_retransmits_total" [proxy, upstream, address]
        "SYNs that were sent again because nothing answered";
    CONNECTIONS_BROKEN: Counter "proxytrace_connections_broken_total" [proxy, upstream, address, cause]
        "Established connections that the upstream reset, or closed without an answer to a request";
    LAST_ESTABLISHED: Gauge "proxytrace_last_established_timestamp_seconds" [proxy, upstream, address]
        "When a handshake was last completed, in seconds since 1970, 0 for never";
    UPSTREAM_DECLARED: Gauge "proxytrace_upstream_declared" [proxy, upstream, address]
        "1 for each address that the configuration of the proxy names";
    PROXY_INFO: Info "proxytrace_proxy_info" [proxy, exe, config, unit, proxy_namespace, proxy_pod, proxy_container, name_source]
        "What a proxy is: its program, its configuration as it sees it, its systemd unit, its namespace, pod and container in Kubernetes, else the id of its container, and who says what it is called";
    FINDING_ACTIVE: Gauge "proxytrace_finding_active" [proxy, kind, upstream, address]
        "1 for each finding that stands; docs/findings.md has the kinds";
    CONFIG_GENERATION: Gauge "proxytrace_config_generation" [proxy]
        "How often the proxy took a new configuration or binary since it has been known";
    RELOADS: Counter "proxytrace_reloads_total" [proxy, result]
        "Reloads of the proxy since it has been known, binary upgrades included: accepted, or rejected, after which no new worker came";
    LAST_RELOAD: Gauge "proxytrace_last_reload_timestamp_seconds" [proxy]
        "When the proxy last took a new configuration or binary, in seconds since 1970, 0 for never";
    WORKER_CRASHES: Counter "proxytrace_worker_crashes_total" [proxy]
        "Processes of the proxy below its master that a signal ended";
    WORKERS: Gauge "proxytrace_workers" [proxy]
        "Processes of the proxy below its master: workers, and helpers such as a cache manager";
    NAMES_READY: Gauge "proxytrace_names_ready" [proxy]
        "Whether the proxy's upstreams can be named: 0 until its configuration is read, or where that failed; not there for what is no nginx";
    UNTRACKED: Counter "proxytrace_untracked_total" [why]
        "What could not be followed, by reason; docs/metrics.md says of each whether it is counted elsewhere";
    EVENTS_LOST: Counter "proxytrace_events_lost_total" []
        "Records that a reader missed because the ring buffer was full; no other count is wrong by that";
    PROGRAMS_PASSED_OVER: Counter "proxytrace_programs_passed_over_total" []
        "How often the kernel passed over a program of the agent, as another was at work on that CPU; what no twin of it saw either is in no count";
    HOOK_ATTACHED: Gauge "proxytrace_hook_attached" [hook, via]
        "Whether a hook into the kernel is attached, and how (via is none where it is not)";
    TABLE_ENTRIES: Gauge "proxytrace_table_entries" [table]
        "Entries in a table in the kernel";
    TABLE_CAPACITY: Gauge "proxytrace_table_capacity" [table]
        "Entries that a table in the kernel has room for (--table-size)";
    FINDINGS_LEFT_OUT: Counter "proxytrace_findings_left_out_total" []
        "Counts of an address that findings did not look at, as they follow no more proxies or addresses at a time";
    KERNEL_MEMORY: Gauge "proxytrace_kernel_memory_bytes" []
        "What the kernel holds in memory for the programs and tables of the agent";
    BUILD_INFO: Info "proxytrace_build_info" [version, arch]
        "The program that runs";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "Time on a CPU, in user and kernel mode, of the agent";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Resident memory of the agent";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the agent";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the agent was started, in seconds since 1970";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "Open file descriptors of the agent";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "How many file descriptors the agent may have open";
}

#[cfg(test)]
mod tests {
    use super::{ALL, Kind};

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Info, metric.name.ends_with("_info"), "{}", metric.name);
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
