//! What is counted, as Prometheus reads it. The only module that knows the metrics library.

pub mod table;

#[cfg(test)]
mod docs;
mod process;
mod text;

use std::{borrow::Cow, fmt::Error};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use proxytrace_ebpf::{
    abi::{DURATION_BOUNDS_NS, Loss},
    outcome::{Broken, Outcome},
};

use crate::{
    escape,
    kernel::hooks::NO_WAY,
    model::{Key, Series, Subject},
    watch::{ProxyInfo, ProxyView, View},
};
use process::ProcessView;
use table::{Kind, Metric};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client prefers that sends this `Accept` header; text where it does not say, or likes both alike.
    #[must_use]
    pub fn accepted_by(accept: &str) -> Self {
        let preference = |media: &str| {
            let entries = accept.split(',').map(|entry| entry.split(';').map(str::trim));
            let weights = entries.filter_map(|mut entry| {
                (entry.next()? == media).then(|| {
                    entry.find_map(|parameter| parameter.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f64)
                })
            });
            weights.fold(0.0, f64::max)
        };
        if preference("application/openmetrics-text") > preference("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of the format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A hook and how it is attached, as labels.
pub type HookLabels = (&'static str, &'static str);

/// Everything that one scrape shows.
///
/// # Errors
/// A number could not be written; that does not happen with a string to write to.
pub fn render(view: View, hooks: Vec<HookLabels>, format: Format) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { view, hooks, process: ProcessView::now() }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Text => text::of_openmetrics(&text),
    })
}

/// The state that one scrape shows.
#[derive(Debug)]
struct Scrape {
    view: View,
    hooks: Vec<HookLabels>,
    process: Option<ProcessView>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut family = |metric: &Metric, write: &mut dyn FnMut(&mut Family) -> Result<(), Error>| {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let encoder = encoder.encode_descriptor(metric.family(), metric.help, None, kind)?;
            write(&mut Family { encoder, metric })
        };
        for (metric, value) in BY_ADDRESS {
            family(metric, &mut |family| {
                self.view.series.iter().try_for_each(|(key, series)| value(self, family, key, series))
            })?;
        }
        for (metric, value) in WHOLE {
            family(metric, &mut |family| value(self, family))?;
        }
        if let Some(process) = &self.process {
            for (metric, value) in process.samples() {
                family(metric, &mut |family| family.number(&[], value))?;
            }
        }
        Ok(())
    }
}

impl Scrape {
    /// Boot time in nanoseconds as seconds since 1970; 0 for never.
    fn time(&self, boot_ns: u64) -> f64 {
        if boot_ns == 0 { 0.0 } else { self.view.clock.at(boot_ns).as_duration().as_secs_f64() }
    }

    /// A sample of each proxy.
    fn each_proxy(&self, mut sample: impl FnMut(&str, &ProxyView) -> Result<(), Error>) -> Result<(), Error> {
        self.view.proxies.iter().try_for_each(|(name, proxy)| sample(name, proxy))
    }
}

type AddressSamples = fn(&Scrape, &mut Family, &Key, &Series) -> Result<(), Error>;

/// Metrics of each proxy, upstream and address.
const BY_ADDRESS: &[(&Metric, AddressSamples)] = &[
    (&table::CONNECT_ATTEMPTS, |_, family, key, series| family.count(&labels(key), series.counts().attempts)),
    (&table::CONNECTS_ESTABLISHED, |_, family, key, series| {
        family.count(&labels(key), series.outcome(Outcome::Established))
    }),
    (&table::CONNECT_FAILURES, |_, family, key, series| {
        let failures = Outcome::ALL.into_iter().filter(|&outcome| outcome != Outcome::Established);
        let [proxy, upstream, address] = labels(key);
        failures.into_iter().try_for_each(|outcome| {
            family.count(&[proxy, upstream, address, outcome.name()], series.outcome(outcome))
        })
    }),
    (&table::CONNECTS_IN_FLIGHT, |_, family, key, series| family.count(&labels(key), series.in_flight())),
    (&table::CONNECT_DURATION, |_, family, key, series| {
        let counts = series.counts();
        let bounds = DURATION_BOUNDS_NS.into_iter().map(seconds).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts.durations).collect();
        // Not the count of outcomes: the buckets may have been read a moment later.
        let count = counts.durations.iter().sum();
        family.histogram(&labels(key), seconds(counts.duration_sum_ns), count, &buckets)
    }),
    (&table::SYN_RETRANSMITS, |_, family, key, series| {
        family.count(&labels(key), series.counts().syn_retransmits)
    }),
    (&table::CONNECTIONS_BROKEN, |_, family, key, series| {
        let [proxy, upstream, address] = labels(key);
        Broken::ALL.into_iter().try_for_each(|broken| {
            let n = series.counts().broken[broken as usize];
            family.count(&[proxy, upstream, address, broken.name()], n)
        })
    }),
    (&table::LAST_ESTABLISHED, |scrape, family, key, series| {
        family.number(&labels(key), scrape.time(series.counts().last_established_ns))
    }),
];

type Samples = fn(&Scrape, &mut Family) -> Result<(), Error>;

/// Metrics of proxies, and of the agent itself.
const WHOLE: &[(&Metric, Samples)] = &[
    (&table::UPSTREAM_DECLARED, |scrape, family| {
        // Those that have series of their own: no more of them than of others.
        let declared = scrape.view.declared.iter().filter(|key| scrape.view.series.contains_key(key));
        declared.into_iter().try_for_each(|key| family.count(&labels(key), 1))
    }),
    (&table::FINDING_ACTIVE, |scrape, family| {
        scrape.view.findings.iter().try_for_each(|Subject { proxy, kind, upstream, address }| {
            let upstream = upstream.as_deref().unwrap_or_default();
            let address = address.as_ref().map(ToString::to_string).unwrap_or_default();
            family.count(&[proxy, kind.name(), upstream, &address], 1)
        })
    }),
    (&table::PROXY_INFO, |scrape, family| {
        scrape.each_proxy(|name, proxy| {
            let ProxyInfo { exe, config, unit, namespace, pod, container, name_source } = &proxy.info;
            family.info(&[name, exe, config, unit, namespace, pod, container, name_source])
        })
    }),
    (&table::CONFIG_GENERATION, |scrape, family| {
        scrape.each_proxy(|name, proxy| family.count(&[name], proxy.generation.into()))
    }),
    (&table::RELOADS, |scrape, family| {
        scrape.each_proxy(|name, proxy| {
            family.count(&[name, "accepted"], proxy.generation.into())?;
            family.count(&[name, "rejected"], proxy.rejected)
        })
    }),
    (&table::LAST_RELOAD, |scrape, family| {
        scrape.each_proxy(|name, proxy| family.number(&[name], scrape.time(proxy.reloaded_ns)))
    }),
    (&table::WORKER_CRASHES, |scrape, family| {
        scrape.each_proxy(|name, proxy| family.count(&[name], proxy.crashes))
    }),
    (&table::WORKERS, |scrape, family| scrape.each_proxy(|name, proxy| family.count(&[name], proxy.workers))),
    (&table::NAMES_READY, |scrape, family| {
        scrape.each_proxy(|name, proxy| {
            proxy.names_ready.map_or(Ok(()), |is_ready| family.count(&[name], is_ready.into()))
        })
    }),
    (&table::UNTRACKED, |scrape, family| {
        // Events are lost to a reader, not to the counts.
        let places = Loss::ALL.into_iter().filter(|&loss| loss != Loss::RingFull);
        places
            .into_iter()
            .try_for_each(|loss| family.count(&[loss.name()], scrape.view.losses[loss as usize]))
    }),
    (&table::EVENTS_LOST, |scrape, family| family.count(&[], scrape.view.losses[Loss::RingFull as usize])),
    (&table::PROGRAMS_PASSED_OVER, |scrape, family| {
        scrape.view.passed_over.map_or(Ok(()), |times| family.count(&[], times))
    }),
    (&table::HOOK_ATTACHED, |scrape, family| {
        scrape.hooks.iter().try_for_each(|&(hook, via)| family.count(&[hook, via], u64::from(via != NO_WAY)))
    }),
    (&table::TABLE_ENTRIES, |scrape, family| {
        scrape.view.tables.iter().try_for_each(|table| family.count(&[table.name], table.entries))
    }),
    (&table::TABLE_CAPACITY, |scrape, family| {
        scrape.view.tables.iter().try_for_each(|table| family.count(&[table.name], table.capacity))
    }),
    (&table::FINDINGS_LEFT_OUT, |scrape, family| family.count(&[], scrape.view.findings_left_out)),
    (&table::KERNEL_MEMORY, |scrape, family| {
        scrape.view.memory_bytes.map_or(Ok(()), |bytes| family.count(&[], bytes))
    }),
    (&table::BUILD_INFO, |_, family| family.info(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH])),
];

/// One metric being written.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    metric: &'a Metric,
}

impl Family<'_> {
    fn count(&mut self, values: &[&str], n: u64) -> Result<(), Error> {
        let is_counter = self.metric.kind == Kind::Counter;
        self.sample(values, |encoder| {
            if is_counter {
                encoder.encode_counter::<NoLabelSet, _, u64>(&n, None)
            } else {
                encoder.encode_gauge(&(n as f64))
            }
        })
    }

    fn number(&mut self, values: &[&str], x: f64) -> Result<(), Error> {
        let is_counter = self.metric.kind == Kind::Counter;
        self.sample(values, |encoder| {
            if is_counter {
                encoder.encode_counter::<NoLabelSet, _, u64>(&x, None)
            } else {
                encoder.encode_gauge(&x)
            }
        })
    }

    fn histogram(
        &mut self,
        values: &[&str],
        sum: f64,
        count: u64,
        buckets: &[(f64, u64)],
    ) -> Result<(), Error> {
        self.sample(values, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None))
    }

    fn info(&mut self, values: &[&str]) -> Result<(), Error> {
        self.encoder.encode_info(&self.labels(values).as_slice())
    }

    fn sample(
        &mut self,
        values: &[&str],
        write: impl FnOnce(&mut MetricEncoder) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let labels = self.labels(values);
        if labels.is_empty() {
            return write(&mut self.encoder);
        }
        write(&mut self.encoder.encode_family(&labels.as_slice())?)
    }

    /// The labels with their values, which may be of others' making.
    fn labels<'v>(&self, values: &[&'v str]) -> Vec<(&'static str, Cow<'v, str>)> {
        self.metric.labels.iter().copied().zip(values.iter().copied().map(escape::label)).collect()
    }
}

fn labels(key: &Key) -> [&str; 3] {
    [&key.proxy, &key.upstream, &key.address]
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {

    use jiff::Timestamp;
    use proxytrace_ebpf::{
        abi::{Owner, Row},
        outcome::Outcome,
    };

    use super::{Format, render};
    use crate::{
        kernel::tables::Filled,
        model::{Clock, Entry, Key},
        watch::View,
    };

    fn view() -> View {
        let mut row = Row { attempts: 4, last_established_ns: 2_000_000_000, ..Row::ZERO };
        row.outcomes[Outcome::Established as usize] = 2;
        row.outcomes[Outcome::Refused as usize] = 1;
        row.durations[0] = 1;
        row.durations[2] = 1;
        row.duration_sum_ns = 250_000;
        let key = Key { proxy: "nginx".into(), upstream: "unknown".into(), address: "[::1]:80".into() };
        let clock = Clock::new(3_000_000_000, Timestamp::from_second(1_000).unwrap());
        let view = View::of(&[Entry { key, owner: Owner::HOST_ROOT, row }], clock);
        let tables = vec![Filled { name: "ledger", entries: 7, capacity: 8192 }];
        View { memory_bytes: Some(17_000_000), passed_over: Some(3), tables, findings_left_out: 5, ..view }
    }

    #[test]
    fn the_ledger_shows_as_samples_of_both_formats() {
        let labels = r#"proxy="nginx",upstream="unknown",address="[::1]:80""#;
        let common = [
            format!("proxytrace_connect_attempts_total{{{labels}}} 4"),
            format!("proxytrace_connects_established_total{{{labels}}} 2"),
            format!("proxytrace_connect_failures_total{{{labels},cause=\"refused\"}} 1"),
            format!("proxytrace_connect_failures_total{{{labels},cause=\"timed_out\"}} 0"),
            format!("proxytrace_connects_in_flight{{{labels}}} 1.0"),
            format!("proxytrace_connect_duration_seconds_bucket{{le=\"0.00005\",{labels}}} 1"),
            format!("proxytrace_connect_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 2"),
            format!("proxytrace_connect_duration_seconds_sum{{{labels}}} 0.00025"),
            format!("proxytrace_last_established_timestamp_seconds{{{labels}}} 999.0"),
            "proxytrace_hook_attached{hook=\"fork\",via=\"tp_btf\"} 1.0".to_owned(),
            "proxytrace_hook_attached{hook=\"retransmit\",via=\"none\"} 0.0".to_owned(),
            "proxytrace_events_lost_total 0".to_owned(),
            "proxytrace_kernel_memory_bytes 17000000.0".to_owned(),
            "proxytrace_programs_passed_over_total 3".to_owned(),
            "proxytrace_table_entries{table=\"ledger\"} 7.0".to_owned(),
            "proxytrace_table_capacity{table=\"ledger\"} 8192.0".to_owned(),
            "proxytrace_findings_left_out_total 5".to_owned(),
        ];
        let hooks = || vec![("fork", "tp_btf"), ("retransmit", "none")];
        let open = render(view(), hooks(), Format::OpenMetrics).unwrap();
        let text = render(view(), hooks(), Format::Text).unwrap();
        for line in common {
            assert!(open.lines().any(|other| other == line), "{line}\nnot in\n{open}");
            assert!(text.lines().any(|other| other == line), "{line}\nnot in\n{text}");
        }
        assert!(open.ends_with("# EOF\n"));
        assert!(open.contains("# TYPE proxytrace_connect_attempts counter\n"));
        assert!(!text.contains("# EOF"));
        assert!(text.contains("# TYPE proxytrace_connect_attempts_total counter\n"));
        assert!(text.contains("# TYPE proxytrace_build_info gauge\n"));
    }

    #[test]
    fn the_format_follows_the_accept_header() {
        let check =
            |accept: &str, format: Format| assert_eq!(Format::accepted_by(accept), format, "{accept}");
        check("", Format::Text);
        check("*/*", Format::Text);
        check("text/html, text/plain", Format::Text);
        check("application/openmetrics-text", Format::OpenMetrics);
        check(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
            Format::OpenMetrics,
        );
        check("application/openmetrics-text;q=0.2, text/plain;q=0.9", Format::Text);
    }
}
