//! From OpenMetrics, which the metrics library writes, to the Prometheus text format 0.0.4. They differ in what names a
//! family: there `_total` and `_info` belong to the sample, here to the family as well.

use super::{metric::Kind, table::METRICS};

/// The same samples in text format 0.0.4.
pub(super) fn of_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Samples are the same, and most of it: they are copied as they stand, up to the next line about a family.
    while !rest.is_empty() {
        let is_about = rest.starts_with('#');
        let end = rest.find(if is_about { "\n" } else { "\n#" }).map_or(rest.len(), |at| at + 1);
        let (part, after) = rest.split_at(end);
        if is_about {
            about(part, &mut out);
        } else {
            out.push_str(part);
        }
        rest = after;
    }
    out
}

/// A line about a family, with its end; neither `# UNIT` nor `# EOF`.
fn about(line: &str, out: &mut String) {
    let mut words = line.splitn(4, ' ').skip(1);
    if let (Some(what @ ("HELP" | "TYPE")), Some(family), Some(rest)) =
        (words.next(), words.next(), words.next())
    {
        let metric = METRICS.iter().find(|metric| metric.family() == family);
        let name = metric.map_or(family, |metric| metric.name);
        let is_info = metric.is_some_and(|metric| metric.kind == Kind::Info);
        let rest = if what == "TYPE" && is_info { "gauge\n" } else { rest };
        out.extend(["# ", what, " ", name, " ", rest]);
    }
}
