//! What the metrics show, as far as that can be changed while the agent runs: options, which [`super::reload`] sends again.

use crate::metrics::HistogramBy;

/// Options of what the metrics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Shown {
    /// How many addresses of one owner's proxies have series of their own, and twice as many in all; the rest is summed
    /// under `~other`.
    #[arg(long, value_name = "N", default_value_t = 1000, env = "PROXYTRACE_MAX_ADDRESSES", value_parser = max_addresses)]
    pub max_addresses: u32,
    /// Of what connect times are histograms: of each upstream, or of each address, with twice as many series.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, env = "PROXYTRACE_HISTOGRAM_BY")]
    pub histogram_by: HistogramBy,
}

fn max_addresses(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("with 0 no address would have a series; give 1 or more".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(_) => Err("not a number of addresses; write for example 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::max_addresses;

    #[test]
    fn an_agent_without_series_is_refused() {
        assert_eq!(max_addresses("1"), Ok(1));
        assert!(max_addresses("0").unwrap_err().contains("give 1 or more"));
        assert!(max_addresses("-1").is_err());
    }
}
