//! The text formats, and which of them a client prefers.

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

#[cfg(test)]
mod tests {
    use super::Format;

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
