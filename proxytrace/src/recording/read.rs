//! Reads a recording, up to where it is damaged.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

use super::parts::{Joined, Part};
use crate::model::{Body, FORMAT, Record, Remembered};

/// No record is nearly as long: what a configuration declares is written in parts. A longer line is not to be taken into memory.
const MAX_LINE: u64 = 16 << 20;

/// Where a recording ends too early, and why.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The last line has no end.
    #[error("line {0} is cut off; everything before it was read")]
    CutOff(u64),
    /// A line is something else.
    #[error("line {line} is not a record ({what}); everything before it was read")]
    NoRecord {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// It is not a recording.
    #[error("this is not a recording of proxytrace: it does not begin with a header")]
    NoHeader,
    /// The file could not be read on.
    #[error("line {line} could not be read: {source}")]
    Unreadable {
        /// Its number, from 1.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// What every record has, also one of a kind that is not known yet.
#[derive(Deserialize)]
struct AnyRecord {
    #[serde(rename = "kind")]
    _kind: String,
}

/// Reads records from `R`.
#[derive(Debug)]
pub struct RecordingReader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    skipped: u64,
    too_long: u64,
    newest_format: u32,
    joined: Joined,
}

impl<R: BufRead> RecordingReader<R> {
    /// Begins with the first line of `input`.
    pub fn new(input: R) -> Self {
        let joined = Joined::default();
        Self { input, buffer: Vec::new(), line: 0, skipped: 0, too_long: 0, newest_format: 0, joined }
    }

    /// The next record that is understood; `None` at the end. An empty input is an empty recording.
    ///
    /// # Errors
    /// The input is damaged here. There is nothing to read behind that.
    pub fn next_record(&mut self) -> Result<Option<Remembered>, Damage> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let line = self.line;
            let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.buffer);
            if read.map_err(|source| Damage::Unreadable { line, source })? == 0 {
                self.skipped += u64::from(self.joined.is_broken_off());
                return Ok(None);
            }
            if self.buffer.len() as u64 == MAX_LINE && !self.buffer.ends_with(b"\n") {
                self.input.skip_until(b'\n').map_err(|source| Damage::Unreadable { line, source })?;
                if line == 1 {
                    return Err(Damage::NoHeader);
                }
                self.too_long += 1;
                continue;
            }
            match serde_json::from_slice::<Remembered>(&self.buffer) {
                Ok(Remembered { record: Record { body: Body::Header(header), time }, .. }) => {
                    self.newest_format = self.newest_format.max(header.format);
                    return Ok(Some(Remembered::once(Record { time, body: Body::Header(header) })));
                }
                Ok(_) if self.line == 1 => return Err(Damage::NoHeader),
                Ok(Remembered { record: Record { time, body: Body::Declared(part) }, .. }) => {
                    match self.joined.take(part) {
                        Part::Whole(whole) => {
                            return Ok(Some(Remembered::once(Record { time, body: Body::Declared(whole) })));
                        }
                        Part::Waits => {}
                        Part::Useless => self.skipped += 1,
                    }
                }
                Ok(record) => return Ok(Some(record)),
                Err(error) => {
                    let is_record = serde_json::from_slice::<AnyRecord>(&self.buffer).is_ok();
                    match (is_record, self.line) {
                        (true, 2..) => self.skipped += 1,
                        (_, 1) => return Err(Damage::NoHeader),
                        _ if !self.buffer.ends_with(b"\n") => return Err(Damage::CutOff(line)),
                        _ => return Err(Damage::NoRecord { line, what: in_words(&error) }),
                    }
                }
            }
        }
    }

    /// How many records were skipped because they are of a kind, or have values, that this version does not know, or because
    /// other parts of them are missing.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many lines were skipped because they are too long to be a record.
    #[must_use]
    pub const fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Whether a newer proxytrace wrote it, in a format that this one does not know.
    #[must_use]
    pub const fn is_newer(&self) -> bool {
        self.newest_format > FORMAT
    }
}

/// What is wrong, without the place, which serde counts within the line.
fn in_words(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => "it lacks a kind".to_owned(),
        _ => "it is not JSON".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{Damage, MAX_LINE, RecordingReader};
    use crate::model::{Body, Record};

    const HEADER: &str = r#"{"time":"2026-11-22T06:39:51.000000000Z","kind":"header","format":1,"host":"h","kernel":"6.1","version":"0.1.0","all":true}"#;
    const CONNECT: &str = r#"{"time":"2026-11-22T06:39:51.120000000Z","kind":"connect","proxy":"nginx","pid":9,"generation":2,"upstream":"api","address":"10.0.0.5:8080","outcome":"refused","cause":"refused","errno":111,"duration_us":330,"syn_retransmits":0}"#;
    const STALLED: &str = r#"{"time":"2026-11-22T06:39:52.120000000Z","kind":"stalled","proxy":"nginx","pid":9,"generation":2,"upstream":"api","address":"unix:/a","errno":0,"duration_us":330,"syn_retransmits":1}"#;
    const EXITED: &str = r#"{"time":"2026-11-22T06:39:53.000000000Z","kind":"worker_exited","proxy":"nginx","pid":9,"generation":2,"signal":11,"core":true}"#;

    fn read(bytes: &[u8]) -> (Vec<Record>, Option<Damage>, u64) {
        let mut reader = RecordingReader::new(bytes);
        let mut records = Vec::new();
        loop {
            match reader.next_record() {
                Ok(Some(remembered)) => records.push(remembered.record),
                Ok(None) => return (records, None, reader.skipped()),
                Err(damage) => return (records, Some(damage), reader.skipped()),
            }
        }
    }

    fn lines(lines: &[&str]) -> String {
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let text = lines(&[HEADER, CONNECT, STALLED, EXITED]);
        let (records, damage, skipped) = read(text.as_bytes());
        assert!(damage.is_none(), "{damage:?}");
        assert_eq!(skipped, 0);
        let again: Vec<_> = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
        assert_eq!(again, [HEADER, CONNECT, STALLED, EXITED]);
    }

    #[test]
    fn many_in_one_are_as_many() {
        let many = CONNECT.replace('}', r#","times":300,"until":"2026-11-22T06:39:59Z"}"#);
        let text = lines(&[HEADER, &many]);
        let mut reader = RecordingReader::new(text.as_bytes());
        let read: Vec<_> = std::iter::from_fn(|| reader.next_record().unwrap()).collect();
        assert_eq!((read[0].times, read[1].times), (1, 300));
        assert_eq!(serde_json::to_string(&read[1]).unwrap(), many);
    }

    #[test]
    fn wherever_it_is_cut_off_everything_before_is_there() {
        let text = lines(&[HEADER, CONNECT, EXITED]);
        for length in 0..text.len() {
            let cut = &text[..length];
            let (records, damage, _) = read(cut.as_bytes());
            // A last record that lacks its line end only is whole.
            let whole = [HEADER, CONNECT, EXITED].iter().take_while(|line| {
                let end = text.find(**line).unwrap() + line.len();
                end <= length
            });
            assert_eq!(records.len(), whole.count(), "{length}");
            let is_whole = cut.is_empty() || cut.ends_with(['}', '\n']);
            assert_eq!(damage.is_none(), is_whole, "{length}: {damage:?}");
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_skipped_with_a_count() {
        let header = HEADER.replace(r#""format":1"#, r#""format":9,"new":{"a":[1]}"#);
        let connect = CONNECT.replace(r#""errno""#, r#""colour":"blue","errno""#);
        let kind = r#"{"time":"2026-11-22T06:39:53Z","kind":"frobnicated","proxy":"nginx"}"#;
        let outcome = CONNECT.replace("refused", "frozen");
        let text = lines(&[&header, &connect, kind, &outcome, EXITED]);
        let (records, damage, skipped) = read(text.as_bytes());
        assert!(damage.is_none(), "{damage:?}");
        assert_eq!((records.len(), skipped), (3, 2));
        assert!(matches!(&records[0].body, Body::Header(header) if header.format == 9));
    }

    #[test]
    fn damage_is_reported_with_its_line() {
        let check = |text: &str, records: usize, expected: &str| {
            let (read, damage, _) = read(text.as_bytes());
            assert_eq!(read.len(), records, "{text}");
            let damage = damage.unwrap().to_string();
            assert!(damage.starts_with(expected), "{damage}");
        };
        check(&lines(&["hello"]), 0, "this is not a recording");
        check(&lines(&[CONNECT]), 0, "this is not a recording");
        check(&lines(&[HEADER, CONNECT, "\0\0\0", EXITED]), 2, "line 3 is not a record (it is not JSON)");
        check(&lines(&[HEADER, "[1]", EXITED]), 1, "line 2 is not a record (it lacks a kind)");
        check(&lines(&[HEADER, "", EXITED]), 1, "line 2 is not a record");
        check(&lines(&[&"x".repeat(MAX_LINE as usize + 1), HEADER]), 0, "this is not a recording");
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_reading_goes_on() {
        let long = "x".repeat(MAX_LINE as usize);
        for end in ["\n", ""] {
            let text = lines(&[HEADER, &format!("{long}x"), CONNECT, &long]) + &long + end;
            let mut reader = RecordingReader::new(text.as_bytes());
            let bodies: [Body; 2] =
                std::array::from_fn(|_| reader.next_record().unwrap().unwrap().record.body);
            assert!(matches!(bodies, [Body::Header(_), Body::Connect(_)]));
            assert!(matches!(reader.next_record(), Ok(None)));
            assert_eq!((reader.too_long(), reader.skipped()), (3, 0));
        }
    }

    proptest! {
        #[test]
        fn it_reads_whatever_there_is_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            read(&bytes);
        }

        #[test]
        fn a_byte_that_was_changed_spoils_no_record_before_it(at in 0_usize..600, byte in any::<u8>()) {
            let mut bytes = lines(&[HEADER, CONNECT, STALLED, EXITED]).into_bytes();
            let whole = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            bytes[at] = byte;
            assert!(read(&bytes).0.len() >= whole);
        }
    }
}
