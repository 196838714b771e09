//! From OpenMetrics, which the metrics library writes, to the Prometheus text format 0.0.4. They differ in what names a
//! family: there `_total` and `_info` belong to the sample, here to the family as well.

use super::{metric::Kind, table::METRICS};

/// The same samples in text format 0.0.4.
pub(super) fn of_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(family), Some(rest)) => {
                let metric = METRICS.iter().find(|metric| metric.family() == family);
                let name = metric.map_or(family, |metric| metric.name);
                let is_info = metric.is_some_and(|metric| metric.kind == Kind::Info);
                let rest = if what == "TYPE" && is_info { "gauge" } else { rest };
                out.extend(["# ", what, " ", name, " ", rest]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}
