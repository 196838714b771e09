//! Options that several commands have.

mod show;
mod tracing;

use std::time::Duration;

pub use show::Show;
pub use tracing::Tracing;

/// A number of seconds, with a fraction where needed.
///
/// # Errors
/// It is not a number, or not positive.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds; write 5 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("this must be more than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::seconds;

    #[test]
    fn seconds_are_read() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err());
        assert!(seconds("inf").is_err());
    }
}
