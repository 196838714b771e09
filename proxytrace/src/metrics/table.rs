//! Every metric, declared once: the exporter writes them, and docs/metrics.md is made from them.

use proxytrace_ebpf::{
    abi::{DURATION_BOUNDS_NS, Loss},
    outcome::{Broken, Outcome},
};

use super::metric::{Kind, Metric};
use crate::{kernel::hooks::NO_WAY, model::Subject, watch::ProxyInfo};

/// All of them, in the order of the documentation.
pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "proxytrace_connect_attempts_total",
        kind: Kind::Counter,
        labels: &["proxy", "upstream", "address"],
        help: "Connects to upstreams that a proxy began: established, failed and in flight",
        sample: |scrape, family| scrape.each_address(|labels, series| family.count(labels, series.attempts)),
    },
    Metric {
        name: "proxytrace_connects_established_total",
        kind: Kind::Counter,
        labels: &["proxy", "upstream", "address"],
        help: "Connects whose handshake was completed",
        sample: |scrape, family| {
            scrape.each_address(|labels, series| family.count(labels, series.outcome(Outcome::Established)))
        },
    },
    Metric {
        name: "proxytrace_connect_failures_total",
        kind: Kind::Counter,
        labels: &["proxy", "upstream", "address", "cause"],
        help: "Connects that failed, by cause",
        sample: |scrape, family| {
            scrape.each_address(|&[proxy, upstream, address], series| {
                let failures = Outcome::ALL.into_iter().filter(|&outcome| outcome != Outcome::Established);
                failures.into_iter().try_for_each(|outcome| {
                    family.count(&[proxy, upstream, address, outcome.name()], series.outcome(outcome))
                })
            })
        },
    },
    Metric {
        name: "proxytrace_connects_in_flight",
        kind: Kind::Gauge,
        labels: &["proxy", "upstream", "address"],
        help: "Connects that have not ended yet",
        sample: |scrape, family| {
            scrape.each_address(|labels, series| family.count(labels, series.in_flight()))
        },
    },
    Metric {
        name: "proxytrace_connect_duration_seconds",
        kind: Kind::Histogram,
        labels: &["proxy", "upstream", "address"],
        help: "How long completed handshakes took, by upstream, or by address where the agent runs with --histogram-by address",
        sample: |scrape, family| {
            scrape.each_histogram(|labels, series| {
                let bounds = DURATION_BOUNDS_NS.into_iter().map(seconds).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(series.durations).collect();
                // Not the count of outcomes: the buckets may have been read a moment later.
                let count = series.durations.iter().sum();
                family.histogram(labels, seconds(series.duration_sum_ns), count, &buckets)
            })
        },
    },
    Metric {
        name: "proxytrace_syn_retransmits_total",
        kind: Kind::Counter,
        labels: &["proxy", "upstream", "address"],
        help: "SYNs that were sent again because nothing answered",
        sample: |scrape, family| {
            scrape.each_address(|labels, series| family.count(labels, series.syn_retransmits))
        },
    },
    Metric {
        name: "proxytrace_connections_broken_total",
        kind: Kind::Counter,
        labels: &["proxy", "upstream", "address", "cause"],
        help: "Established connections that broke: the upstream reset them, closed them without an answer to a request or refused TLS, \
               or the proxy waited in vain for an answer",
        sample: |scrape, family| {
            scrape.each_address(|&[proxy, upstream, address], series| {
                Broken::ALL.into_iter().try_for_each(|broken| {
                    let n = series.broken[broken as usize];
                    family.count(&[proxy, upstream, address, broken.name()], n)
                })
            })
        },
    },
    Metric {
        name: "proxytrace_requests_unanswered",
        kind: Kind::Gauge,
        labels: &["proxy", "upstream", "address"],
        help: "Connections on which a request has waited for its answer for more than a second, as seen once a second",
        sample: |scrape, family| {
            scrape.each_waiting(|labels, waiting| family.count(labels, waiting.connections.into()))
        },
    },
    Metric {
        name: "proxytrace_oldest_unanswered_seconds",
        kind: Kind::Gauge,
        labels: &["proxy", "upstream", "address"],
        help: "How long the oldest of these requests has waited, 0 where there is none",
        sample: |scrape, family| {
            scrape.each_waiting(|labels, waiting| family.number(labels, f64::from(waiting.oldest_ms) / 1e3))
        },
    },
    Metric {
        name: "proxytrace_data_retransmits_total",
        kind: Kind::Counter,
        labels: &["proxy", "upstream", "address"],
        help: "Segments that were sent again on established connections",
        sample: |scrape, family| {
            scrape.each_address(|labels, series| family.count(labels, series.data_retransmits))
        },
    },
    Metric {
        name: "proxytrace_last_established_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["proxy", "upstream", "address"],
        help: "When a handshake was last completed, in seconds since 1970, 0 for never",
        sample: |scrape, family| {
            scrape
                .each_address(|labels, series| family.number(labels, scrape.time(series.last_established_ns)))
        },
    },
    Metric {
        name: "proxytrace_upstream_declared",
        kind: Kind::Gauge,
        labels: &["proxy", "upstream", "address"],
        help: "1 for each address that the configuration of the proxy names",
        sample: |scrape, family| {
            // Those that have series of their own: no more of them than of others.
            let declared = scrape.view.declared.iter().filter(|key| scrape.view.series.contains_key(key));
            declared
                .into_iter()
                .try_for_each(|key| family.count(&[&key.proxy, &key.upstream, &key.address], 1))
        },
    },
    Metric {
        name: "proxytrace_proxy_info",
        kind: Kind::Info,
        labels: &[
            "proxy",
            "exe",
            "config",
            "unit",
            "proxy_namespace",
            "proxy_pod",
            "proxy_container",
            "name_source",
        ],
        help: "What a proxy is: its program, its configuration as it sees it, its systemd unit, its namespace, pod and container \
               in Kubernetes, else the id of its container, and where its name comes from",
        sample: |scrape, family| {
            scrape.each_proxy(|name, proxy| {
                let ProxyInfo { exe, config, unit, namespace, pod, container, name_source } = &proxy.info;
                family.info(&[name, exe, config, unit, namespace, pod, container, name_source])
            })
        },
    },
    Metric {
        name: "proxytrace_finding_active",
        kind: Kind::Gauge,
        labels: &["proxy", "kind", "severity", "upstream", "address"],
        help: "1 for each active finding; docs/findings.md lists the kinds, docs/alerts.md says which severity pages",
        sample: |scrape, family| {
            scrape.view.findings.iter().try_for_each(
                |(Subject { proxy, kind, upstream, address }, severity)| {
                    let upstream = upstream.as_deref().unwrap_or_default();
                    let address = address.as_ref().map(ToString::to_string).unwrap_or_default();
                    family.count(&[proxy, kind.name(), severity.name(), upstream, &address], 1)
                },
            )
        },
    },
    Metric {
        name: "proxytrace_config_generation",
        kind: Kind::Gauge,
        labels: &["proxy"],
        help: "How often the proxy took a new configuration or binary since it has been known",
        sample: |scrape, family| {
            scrape.each_proxy(|name, proxy| family.count(&[name], proxy.generation.into()))
        },
    },
    Metric {
        name: "proxytrace_reloads_total",
        kind: Kind::Counter,
        labels: &["proxy", "result"],
        help: "Reloads of the proxy since it has been known, binary upgrades included: accepted, or rejected (no new worker came)",
        sample: |scrape, family| {
            scrape.each_proxy(|name, proxy| {
                family.count(&[name, "accepted"], proxy.generation.into())?;
                family.count(&[name, "rejected"], proxy.rejected)
            })
        },
    },
    Metric {
        name: "proxytrace_last_reload_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["proxy"],
        help: "When the proxy last took a new configuration or binary, in seconds since 1970, 0 for never",
        sample: |scrape, family| {
            scrape.each_proxy(|name, proxy| family.number(&[name], scrape.time(proxy.reloaded_ns)))
        },
    },
    Metric {
        name: "proxytrace_worker_crashes_total",
        kind: Kind::Counter,
        labels: &["proxy"],
        help: "Processes of the proxy below its master that a signal ended, or that ended themselves for an error",
        sample: |scrape, family| scrape.each_proxy(|name, proxy| family.count(&[name], proxy.crashes)),
    },
    Metric {
        name: "proxytrace_workers",
        kind: Kind::Gauge,
        labels: &["proxy"],
        help: "Processes of the proxy below its master: workers, and helpers such as a cache manager",
        sample: |scrape, family| scrape.each_proxy(|name, proxy| family.count(&[name], proxy.workers)),
    },
    Metric {
        name: "proxytrace_names_ready",
        kind: Kind::Gauge,
        labels: &["proxy"],
        help: "Whether the proxy's upstreams can be named: 0 until its configuration is read, or where that failed; absent for a \
               proxy that is not nginx",
        sample: |scrape, family| {
            scrape.each_proxy(|name, proxy| {
                proxy.names_ready.map_or(Ok(()), |is_ready| family.count(&[name], is_ready.into()))
            })
        },
    },
    Metric {
        name: "proxytrace_untracked_total",
        kind: Kind::Counter,
        labels: &["why"],
        help: "What could not be followed, by reason; docs/metrics.md says for each whether the attempts are counted all the same",
        sample: |scrape, family| {
            // Events are lost to a reader, not to the counts.
            let losses = Loss::ALL.into_iter().filter(|&loss| loss != Loss::RingFull);
            losses
                .into_iter()
                .try_for_each(|loss| family.count(&[loss.name()], scrape.view.losses[loss as usize]))
        },
    },
    Metric {
        name: "proxytrace_events_lost_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Records that were lost because the ring buffer was full; no other count is wrong by that",
        sample: |scrape, family| family.count(&[], scrape.view.losses[Loss::RingFull as usize]),
    },
    Metric {
        name: "proxytrace_bpf_recursion_misses_total",
        kind: Kind::Counter,
        labels: &[],
        help: "How often the kernel skipped a program of the agent because another was running on that CPU (recursion miss); what \
               its duplicate also missed is in no count",
        sample: |scrape, family| {
            scrape.view.recursion_misses.map_or(Ok(()), |misses| family.count(&[], misses))
        },
    },
    Metric {
        name: "proxytrace_hook_attached",
        kind: Kind::Gauge,
        labels: &["hook", "via"],
        help: "Whether a hook into the kernel is attached, and how (via is none where it is not)",
        sample: |scrape, family| {
            scrape
                .hooks
                .iter()
                .try_for_each(|&(hook, via)| family.count(&[hook, via], u64::from(via != NO_WAY)))
        },
    },
    Metric {
        name: "proxytrace_table_entries",
        kind: Kind::Gauge,
        labels: &["table"],
        help: "Entries in a table in the kernel",
        sample: |scrape, family| {
            scrape.view.tables.iter().try_for_each(|table| family.count(&[table.name], table.entries))
        },
    },
    Metric {
        name: "proxytrace_table_capacity",
        kind: Kind::Gauge,
        labels: &["table"],
        help: "The most entries that a table in the kernel can hold (--table-size)",
        sample: |scrape, family| {
            scrape.view.tables.iter().try_for_each(|table| family.count(&[table.name], table.capacity))
        },
    },
    Metric {
        name: "proxytrace_findings_left_out_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Counts of an address that findings left out, because they cannot follow more proxies or addresses at a time",
        sample: |scrape, family| family.count(&[], scrape.view.findings_left_out),
    },
    Metric {
        name: "proxytrace_log_skipped_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Bytes of proxies' error logs that were not read, because more than 64 KiB came within a second",
        sample: |scrape, family| family.count(&[], scrape.view.log_bytes_skipped),
    },
    Metric {
        name: "proxytrace_kernel_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Memory that the kernel holds for the programs and tables of the agent",
        sample: |scrape, family| scrape.view.memory_bytes.map_or(Ok(()), |bytes| family.count(&[], bytes)),
    },
    Metric {
        name: "proxytrace_history_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Memory that the history takes",
        sample: |scrape, family| family.count(&[], scrape.kept.bytes),
    },
    Metric {
        name: "proxytrace_history_capacity_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Memory that the history may take (--history); where it is full, the oldest goes",
        sample: |scrape, family| family.count(&[], scrape.kept.capacity_bytes),
    },
    Metric {
        name: "proxytrace_history_oldest_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "The time of the oldest record in the history, in seconds since 1970; 0 where there is none",
        sample: |scrape, family| family.number(&[], scrape.kept.oldest_seconds),
    },
    Metric {
        name: "proxytrace_history_unwritten_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Lines of the history that are not in its files, because the disk was full or too slow",
        sample: |scrape, family| family.count(&[], scrape.kept.unwritten),
    },
    Metric {
        name: "proxytrace_readers",
        kind: Kind::Gauge,
        labels: &["page"],
        help: "Clients that follow what happens (/records) or what changes (/changes), such as a trace or a guard",
        sample: |scrape, family| {
            scrape.kept.readers.iter().try_for_each(|&(page, readers)| family.count(&[page], readers))
        },
    },
    Metric {
        name: "proxytrace_records_missed_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Records that clients missed, because they read too slowly",
        sample: |scrape, family| family.count(&[], scrape.kept.missed),
    },
    Metric {
        name: "proxytrace_agent_config_last_reload_successful",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether the agent could use its configuration (--config, --web-config and what they name) when it last read it; if \
               not, it goes on with the one before",
        sample: |scrape, family| family.count(&[], scrape.config.is_used.into()),
    },
    Metric {
        name: "proxytrace_agent_config_last_reload_success_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the agent last read a configuration that it could use, in seconds since 1970",
        sample: |scrape, family| family.number(&[], scrape.config.used_seconds),
    },
    Metric {
        name: "proxytrace_build_info",
        kind: Kind::Info,
        labels: &["version", "arch"],
        help: "The version that runs",
        sample: |_, family| family.info(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH]),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "CPU time of the agent, in user and kernel mode",
        sample: |scrape, family| scrape.of_process(|process| family.number(&[], process.cpu_seconds)),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Resident memory of the agent",
        sample: |scrape, family| scrape.of_process(|process| family.count(&[], process.resident_bytes)),
    },
    Metric {
        name: "process_virtual_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Virtual memory of the agent",
        sample: |scrape, family| scrape.of_process(|process| family.count(&[], process.virtual_bytes)),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the agent was started, in seconds since 1970",
        sample: |scrape, family| scrape.of_process(|process| family.number(&[], process.started_seconds)),
    },
    Metric {
        name: "process_open_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Open file descriptors of the agent",
        sample: |scrape, family| scrape.of_process(|process| family.count(&[], process.open_fds)),
    },
    Metric {
        name: "process_max_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "How many file descriptors the agent may have open",
        sample: |scrape, family| scrape.of_process(|process| family.count(&[], process.max_fds)),
    },
];

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::{Kind, METRICS};

    #[test]
    fn names_follow_the_conventions() {
        for metric in METRICS {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Info, metric.name.ends_with("_info"), "{}", metric.name);
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
