//! Moments as people say them: so long ago, or a time of day.

use std::time::Duration;

use jiff::{
    Timestamp, Zoned,
    civil::{DateTime, Time},
};

use super::seconds;

/// A moment, seen from another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// The last time that clocks have shown this.
    TimeOfDay(Time),
    /// On that day, by the clock of this host.
    Date(DateTime),
    /// At any place the same.
    At(Timestamp),
}

impl Moment {
    /// Reads `now`, `10m`, `1d`, `14:25`, `2026-11-22 14:25:03` or `2026-11-22T14:25:03Z`.
    ///
    /// # Errors
    /// It is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_clock = text.contains(':');
        let ago = || seconds(text).ok().filter(|_| !is_clock).map(Self::Ago);
        let now = (text == "now").then_some(Self::Ago(Duration::ZERO));
        now.or_else(ago)
            .or_else(|| text.parse().ok().map(Self::At))
            // A time is read from the text of a date as well.
            .or_else(|| text.parse().ok().map(Self::Date))
            .or_else(|| text.parse().ok().filter(|_| is_clock).map(Self::TimeOfDay))
            // As clocks show it in the morning.
            .or_else(|| {
                format!("0{text}").parse().ok().filter(|_| text.find(':') == Some(1)).map(Self::TimeOfDay)
            })
            .ok_or_else(|| "not a moment; write 10m or 1d (ago), 14:25 or \"2026-11-22 14:25\"".to_owned())
    }

    /// When that is, if it is `now`.
    ///
    /// # Errors
    /// It is in no calendar.
    pub fn seen_from(self, now: &Zoned) -> Result<Timestamp, jiff::Error> {
        match self {
            Self::Ago(time) => now.timestamp().checked_sub(time),
            Self::TimeOfDay(time) => {
                let today = now.with().time(time).build()?;
                let last = if today > *now { today.yesterday()?.with().time(time).build()? } else { today };
                Ok(last.timestamp())
            }
            Self::Date(date) => Ok(date.to_zoned(now.time_zone().clone())?.timestamp()),
            Self::At(time) => Ok(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn moments_are_read_as_people_say_them() {
        let now: jiff::Zoned = "2026-11-22T14:30:00+01:00[+01:00]".parse().unwrap();
        let rows = [
            ("now", "2026-11-22T13:30:00Z"),
            ("10m", "2026-11-22T13:20:00Z"),
            ("90", "2026-11-22T13:28:30Z"),
            ("1d", "2026-11-21T13:30:00Z"),
            ("1h30m", "2026-11-22T12:00:00Z"),
            ("9:25", "2026-11-22T08:25:00Z"),
            ("500ms", "2026-11-22T13:29:59.5Z"),
            ("14:25", "2026-11-22T13:25:00Z"),
            ("14:25:03", "2026-11-22T13:25:03Z"),
            ("14:30", "2026-11-22T13:30:00Z"),
            ("14:31", "2026-11-21T13:31:00Z"),
            ("2026-11-21 14:25", "2026-11-21T13:25:00Z"),
            ("2026-11-21T14:25:03", "2026-11-21T13:25:03Z"),
            ("2026-11-21T14:25:03Z", "2026-11-21T14:25:03Z"),
            ("2026-11-21", "2026-11-20T23:00:00Z"),
        ];
        for (text, expected) in rows {
            let moment = Moment::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(moment.seen_from(&now).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "yesterday", "25:00", "-10m", "2026-13-01", ":25", "9:2", "d"] {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
    }
}
