//! How much is done in the stories that do something very often, and how long they go on: less (`PROXYTRACE_TEST_SCALE`, a
//! divisor) on machines on which everything takes long, and longer where there is time (`PROXYTRACE_TEST_LONG`).

use std::time::Duration;

/// `often`, or as much less as is set for this machine.
#[must_use]
pub fn scaled(often: u32) -> u32 {
    let divisor = std::env::var("PROXYTRACE_TEST_SCALE");
    let divisor = divisor.map_or(1, |text| text.parse().expect("PROXYTRACE_TEST_SCALE is a number"));
    often / divisor
}

/// How long a story goes on that lives as people do: `short`, or where there is time `long`, or as many seconds as
/// `PROXYTRACE_TEST_LONG` says, where that is more than 1: an hour is 3600.
#[must_use]
pub fn lasting(short: Duration, long: Duration) -> Duration {
    let seconds = std::env::var("PROXYTRACE_TEST_LONG").ok().and_then(|text| text.parse().ok());
    seconds.filter(|seconds| *seconds > 1).map_or_else(|| natural(short, long), Duration::from_secs)
}

/// What is usual in a healthy place where there is time for it, as with `cargo xtask test --long`; else `short`.
#[must_use]
pub fn natural<T>(short: T, long: T) -> T {
    if std::env::var_os("PROXYTRACE_TEST_LONG").is_some() { long } else { short }
}
