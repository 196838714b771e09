//! Quantiles of a histogram of connect times.

use proxytrace_ebpf::abi::{DURATION_BOUNDS_NS, DURATION_BUCKETS};

/// The time that the part `q` of the connects did not exceed, in microseconds: within a bucket as if they were spread evenly. What is
/// above the last bound counts as that. `None` where there is no connect.
#[must_use]
pub fn quantile_us(durations: &[u64; DURATION_BUCKETS], q: f64) -> Option<u64> {
    let all: u64 = durations.iter().fold(0, |sum, n| sum.saturating_add(*n));
    if all == 0 {
        return None;
    }
    let rank = q * all as f64;
    let mut below = 0_u64;
    for (bucket, count) in durations.iter().enumerate() {
        let upper = DURATION_BOUNDS_NS.get(bucket)?;
        let lower = bucket.checked_sub(1).map_or(0, |before| DURATION_BOUNDS_NS[before]);
        let upto = below.saturating_add(*count);
        if *count > 0 && upto as f64 >= rank {
            let part = (rank - below as f64).max(0.0) / *count as f64;
            let ns = lower as f64 + part * (upper - lower) as f64;
            return Some(ns as u64 / 1000);
        }
        below = upto;
        if bucket + 1 == DURATION_BOUNDS_NS.len() {
            return Some(upper / 1000);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::abi::DURATION_BUCKETS;

    use super::quantile_us;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut durations = [0; DURATION_BUCKETS];
        assert_eq!(quantile_us(&durations, 0.5), None);
        durations[1] = 100;
        assert_eq!(quantile_us(&durations, 0.5), Some(75));
        durations[2] = 100;
        assert_eq!(quantile_us(&durations, 0.5), Some(100));
        assert_eq!(quantile_us(&durations, 0.99), Some(247));
        durations[DURATION_BUCKETS - 1] = 1000;
        assert_eq!(quantile_us(&durations, 0.99), Some(60_000_000));
    }
}
