//! Waiting for what takes a while.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Looks once a second until there is what is waited for; the last error is the reason if it does not come.
pub(crate) fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() > Duration::from_secs(seconds) => {
                return Err(error).with_context(|| format!("waited {seconds} s for {what}"));
            }
            Err(_) => thread::sleep(Duration::from_secs(1)),
        }
    }
}
