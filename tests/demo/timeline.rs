//! Who noticed a failure when: put in order and printed.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::{Context, Result};
use jiff::Timestamp;

/// Something that was seen, or was not.
pub(crate) struct Sighting {
    pub(crate) what: String,
    pub(crate) at: Option<SystemTime>,
}

/// The sightings in order, each with its distance from the first; those that never came are last.
pub(crate) fn render(title: &str, mut sightings: Vec<Sighting>) -> Result<String> {
    // `None` would sort before every time.
    sightings.sort_by_key(|sighting| (sighting.at.is_none(), sighting.at));
    let start = sightings.first().and_then(|sighting| sighting.at);
    let mut text = format!("{title}\n");
    for Sighting { what, at } in &sightings {
        let line = match (at, start) {
            (Some(at), Some(start)) => {
                let clock = Timestamp::try_from(*at).context("a time that the calendar has")?;
                let since = at.duration_since(start).unwrap_or_default().as_secs_f64();
                format!("{}  {since:+9.4} s", clock.strftime("%H:%M:%S%.6f"))
            }
            _ => format!("{:<15}  {:>11}", "never", ""),
        };
        writeln!(text, "  {line}  {what}").context("write into memory")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sightings_are_ordered_and_what_never_came_is_last() {
        let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        let sighting = |what: &str, at| Sighting { what: what.to_owned(), at };
        let sightings =
            vec![sighting("log", None), sighting("trace", at(1_500)), sighting("kernel", at(500))];
        let expected = "a failure\n\
            \x20 00:00:00.500000    +0.0000 s  kernel\n\
            \x20 00:00:01.500000    +1.0000 s  trace\n\
            \x20 never                         log\n";
        assert_eq!(render("a failure", sightings).unwrap(), expected);
    }
}
