//! Options that several commands have.

mod agent;
mod moment;
mod show;
mod tracing;

use std::time::Duration;

pub use agent::AskAgent;
pub use moment::Moment;
pub use show::Show;
pub use tracing::Tracing;

/// The units of a time, in seconds.
const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// A time such as `10`, which is seconds, or `500ms`, `2.5s`, `5m`, `1h30m`, `1d`.
///
/// # Errors
/// It is not a time, or not positive.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "not a time; write 5, 500ms, 5m, 1h30m or 1d".to_owned();
    let mut seconds = if text.is_empty() { return Err(wrong()) } else { 0.0 };
    let mut rest = text;
    while !rest.is_empty() {
        let is_digit = |character: char| character.is_ascii_digit() || character == '.';
        let (number, behind) =
            rest.split_at(rest.find(|character| !is_digit(character)).unwrap_or(rest.len()));
        let (unit, behind) = behind.split_at(behind.find(is_digit).unwrap_or(behind.len()));
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = match unit {
            // Seconds need no unit where they are all there is.
            "" if rest == text => 1.0,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
        };
        seconds += number * unit;
        rest = behind;
    }
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
    fn times_are_read() {
        let ms = |ms| Ok(Duration::from_millis(ms));
        let times = [
            ("0.5", 500),
            ("10", 10_000),
            ("10s", 10_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1m500ms", 60_500),
        ];
        for (text, expected) in times {
            assert_eq!(seconds(text), ms(expected), "{text}");
        }
        for text in [
            "-1", "inf", "0", "0ms", "", "m", "5 m", "5y", "soon", "1h30", "30m-5s", "1.2.3s", "1h 30m", "h1",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
