//! How much is done in the stories that do something very often: less (`PROXYTRACE_TEST_SCALE`, a divisor) on machines
//! on which everything takes long.

/// `often`, or as much less as this machine is told to do.
#[must_use]
pub fn scaled(often: u32) -> u32 {
    let divisor = std::env::var("PROXYTRACE_TEST_SCALE");
    let divisor = divisor.map_or(1, |text| text.parse().expect("PROXYTRACE_TEST_SCALE is a number"));
    often / divisor
}
