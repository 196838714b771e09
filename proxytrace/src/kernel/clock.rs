//! The clock of the kernel half: nanoseconds since boot.

use std::{sync::LazyLock, time::Duration};

use nix::time::{ClockId, clock_getres, clock_gettime};

/// Nanoseconds since boot, the clock of the kernel half: that of the host, also where this process has another.
#[must_use]
pub fn boot_ns() -> u64 {
    static OFFSET_NS: LazyLock<i64> = LazyLock::new(|| {
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boot_offset_ns(&offsets).unwrap_or(0)
    });
    own_boot_ns().saturating_add_signed(OFFSET_NS.saturating_neg())
}

/// Nanoseconds since boot as this process is shown them, in /proc too.
#[must_use]
pub fn own_boot_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// How long a tick of the kernel's clock takes, in nanoseconds: the clock that is read without asking a device goes by it.
pub(super) fn jiffy_ns() -> u32 {
    const USUAL_NS: u32 = 4_000_000; // CONFIG_HZ=250
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
    resolution.ok().and_then(|tick| u32::try_from(tick.as_nanos()).ok()).unwrap_or(USUAL_NS)
}

/// What the clock since boot shows more than the host's in the time namespace of these offsets (time_namespaces(7)); `None` where
/// the kernel has no time namespaces.
fn boot_offset_ns(offsets: &str) -> Option<i64> {
    let mut words = offsets.lines().map(str::split_whitespace).find_map(|mut words| {
        let clock = words.next()?;
        matches!(clock, "boottime" | "7").then_some(words)
    })?;
    let (seconds, ns): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

#[cfg(test)]
mod tests {
    use super::boot_offset_ns;

    #[test]
    fn the_offset_of_a_time_namespace_is_read_in_both_forms() {
        assert_eq!(
            boot_offset_ns("monotonic      5000         0\nboottime     100000         7\n"),
            Some(100_000_000_000_007)
        );
        assert_eq!(boot_offset_ns("1 0 0\n7 -3 0\n"), Some(-3_000_000_000));
        assert_eq!(boot_offset_ns(""), None);
    }
}
