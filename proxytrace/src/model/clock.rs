//! From the kernel half's clock (nanoseconds since boot) to the time of day.

use jiff::{SignedDuration, Timestamp};

/// The two clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot_ns: u64,
    now: Timestamp,
}

impl Clock {
    /// Both clocks, read right after each other. Take a new one now and then: the time of day can be set.
    #[must_use]
    pub const fn new(boot_ns: u64, now: Timestamp) -> Self {
        Self { boot_ns, now }
    }

    /// The time of day at `boot_ns`.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Timestamp {
        let ago = i128::from(boot_ns) - i128::from(self.boot_ns);
        let ago = SignedDuration::from_nanos(ago.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
        self.now.saturating_add(ago).unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Clock;

    #[test]
    fn times_before_and_after_the_instant_are_found() {
        let clock = Clock::new(5_000_000_000, Timestamp::from_second(1_000).unwrap());
        assert_eq!(clock.at(4_999_999_999).to_string(), "1970-01-01T00:16:39.999999999Z");
        assert_eq!(clock.at(7_000_000_001).to_string(), "1970-01-01T00:16:42.000000001Z");
    }
}
