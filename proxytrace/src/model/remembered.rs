//! A record as the agent remembers it: many that are alike can be one.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Counts, Record};
use crate::escape;

/// A record, or many in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The first of them.
    #[serde(flatten)]
    pub record: Record,
    /// How many they are; missing for one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub times: u64,
    /// When the last of them was; missing for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Remembered {
    /// A record by itself.
    #[must_use]
    pub const fn once(record: Record) -> Self {
        Self { record, times: 1, until: None }
    }

    /// When the last of them was.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.until.unwrap_or(self.record.time)
    }

    /// A line of JSON with its end. Nothing in it does anything to a terminal.
    ///
    /// # Errors
    /// It cannot be written as JSON; that does not happen.
    pub fn json_line(&self) -> serde_json::Result<String> {
        let line = serde_json::to_string(self)?;
        Ok(escape::json(&line).into_owned() + "\n")
    }
}

/// What was counted of an upstream within a minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minute {
    /// When it began.
    pub time: Timestamp,
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The name in the proxy's configuration.
    pub upstream: Arc<str>,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Minute {
    /// A line of JSON with its end. Nothing in it does anything to a terminal.
    ///
    /// # Errors
    /// It cannot be written as JSON; that does not happen.
    pub fn json_line(&self) -> serde_json::Result<String> {
        let line = serde_json::to_string(self)?;
        Ok(escape::json(&line).into_owned() + "\n")
    }
}

const fn one() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(n: &u64) -> bool {
    *n == 1
}

#[cfg(test)]
mod tests {
    use super::{Minute, Remembered};

    #[test]
    fn one_record_is_written_as_itself_and_many_say_how_many() {
        let line = r#"{"time":"2026-11-22T06:39:51.120000000Z","kind":"lost","count":3}"#;
        let once: Remembered = serde_json::from_str(line).unwrap();
        assert_eq!((once.times, once.end()), (1, once.record.time));
        assert_eq!(once.json_line().unwrap(), format!("{line}\n"));
        let many = line.replace('}', r#","times":300,"until":"2026-11-22T06:39:59Z"}"#);
        let read: Remembered = serde_json::from_str(&many).unwrap();
        assert_eq!((read.times, read.end().to_string()), (300, "2026-11-22T06:39:59Z".to_owned()));
        assert_eq!(read.json_line().unwrap(), format!("{many}\n"));
    }

    #[test]
    fn a_minute_has_the_counts_of_its_upstream() {
        let line = r#"{"time":"2026-11-22T06:39:00Z","proxy":"nginx","upstream":"api","attempts":2,"established":1,"failures":{"refused":1}}"#;
        let minute: Minute = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&minute).unwrap(), line);
    }
}
