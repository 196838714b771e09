//! What is counted, as Prometheus reads it. The only module that knows the metrics library.

#[cfg(test)]
mod docs;
mod format;
mod metric;
mod process;
mod scrape;
#[cfg(test)]
mod sizes;
mod table;
mod text;

use std::fmt::Error;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};

use crate::watch::View;
pub use format::Format;
use process::ProcessView;
use scrape::Scrape;
pub use scrape::{HistogramBy, HookLabels, Kept};
use table::METRICS;

/// How reading the configuration of the agent went.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigRead {
    /// Whether the last reading could be used.
    pub is_used: bool,
    /// When it last could, in seconds since 1970.
    pub used_seconds: f64,
}

/// Everything that one scrape shows.
///
/// # Errors
/// A number could not be written; that does not happen with a string to write to.
pub fn render(
    view: View,
    hooks: Vec<HookLabels>,
    histogram_by: HistogramBy,
    config: ConfigRead,
    kept: Kept,
    format: Format,
) -> Result<String, Error> {
    let mut registry = Registry::default();
    let process = ProcessView::now();
    registry.register_collector(Box::new(Scrape { view, hooks, histogram_by, config, kept, process }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Text => text::of_openmetrics(&text),
    })
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        METRICS.iter().try_for_each(|metric| metric.encode(self, &mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proxytrace_ebpf::{
        abi::{Owner, Row},
        outcome::Outcome,
    };

    use super::{ConfigRead, Format, HistogramBy, Kept, render};
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
        View {
            memory_bytes: Some(17_000_000),
            recursion_misses: Some(3),
            tables,
            findings_left_out: 5,
            log_bytes_skipped: 6,
            ..view
        }
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
            "proxytrace_bpf_recursion_misses_total 3".to_owned(),
            "proxytrace_table_entries{table=\"ledger\"} 7.0".to_owned(),
            "proxytrace_table_capacity{table=\"ledger\"} 8192.0".to_owned(),
            "proxytrace_findings_left_out_total 5".to_owned(),
            "proxytrace_log_skipped_bytes_total 6".to_owned(),
            "proxytrace_history_bytes 1000.0".to_owned(),
            "proxytrace_history_capacity_bytes 2000.0".to_owned(),
            "proxytrace_history_oldest_timestamp_seconds 999.5".to_owned(),
            "proxytrace_history_unwritten_total 8".to_owned(),
            "proxytrace_readers{page=\"records\"} 3.0".to_owned(),
            "proxytrace_records_missed_total 9".to_owned(),
            "proxytrace_agent_config_last_reload_successful 0.0".to_owned(),
            "proxytrace_agent_config_last_reload_success_timestamp_seconds 1000.5".to_owned(),
        ];
        let hooks = || vec![("fork", "tp_btf"), ("retransmit", "none")];
        let config = ConfigRead { is_used: false, used_seconds: 1_000.5 };
        let readers = [("records", 3), ("changes", 1)];
        let (bytes, capacity_bytes, oldest_seconds) = (1_000, 2_000, 999.5);
        let kept = Kept { bytes, capacity_bytes, oldest_seconds, unwritten: 8, readers, missed: 9 };
        let page = |format| render(view(), hooks(), HistogramBy::Address, config, kept, format).unwrap();
        let (open, text) = (page(Format::OpenMetrics), page(Format::Text));
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
    fn histograms_of_upstreams_are_the_sums_of_those_of_addresses() {
        let entry = |upstream: &str, address: &str, bucket: usize| {
            let mut row = Row { duration_sum_ns: 1_000_000_000, ..Row::ZERO };
            row.durations[bucket] = 1;
            let key = Key { proxy: "nginx".into(), upstream: upstream.into(), address: address.into() };
            Entry { key, owner: Owner::HOST_ROOT, row }
        };
        let rows = [entry("api", "a", 0), entry("api", "~other", 2), entry("shop", "a", 0)];
        let mut view = View::of(&rows, Clock::new(0, Timestamp::UNIX_EPOCH));
        view.departed.insert(rows[0].key.of_upstream(), entry("api", "gone", 2).row);
        let histogram = |view: &View, by| {
            let (config, kept) = (ConfigRead::default(), Kept::default());
            let text = render(view.clone(), Vec::new(), by, config, kept, Format::Text).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("proxytrace_connect_duration_seconds"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let of_upstreams = histogram(&view, HistogramBy::Upstream);
        let api = r#"proxy="nginx",upstream="api""#;
        for line in [
            format!("proxytrace_connect_duration_seconds_bucket{{le=\"0.00005\",{api}}} 1"),
            format!("proxytrace_connect_duration_seconds_bucket{{le=\"+Inf\",{api}}} 3"),
            format!("proxytrace_connect_duration_seconds_count{{{api}}} 3"),
            format!("proxytrace_connect_duration_seconds_sum{{{api}}} 3.0"),
        ] {
            assert!(of_upstreams.contains(&line), "{line}\nnot in\n{}", of_upstreams.join("\n"));
        }
        let of_addresses = histogram(&view, HistogramBy::Address);
        assert_eq!(of_upstreams.len() * rows.len(), of_addresses.len() * 2);
        assert!(of_addresses.iter().all(|line| line.contains("address=")));
    }
}
