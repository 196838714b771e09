//! Says that a story can't run here. Where `PROXYTRACE_SKIP_IS_FAILURE` is set, as in CI, that is a failure.

use std::path::Path;

/// Whether `program` is installed; says that the test is skipped when it is not.
#[must_use]
#[track_caller]
pub fn unless_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| Path::new(&directory).join(program).exists());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Says why a test is skipped.
#[track_caller]
#[allow(clippy::print_stdout, reason = "the line is for whoever reads the results")]
pub fn skip(why: &str) {
    assert!(std::env::var_os("PROXYTRACE_SKIP_IS_FAILURE").is_none(), "skipped: {why}");
    println!("skipped: {why}");
}
