//! Writes a recording, and rotates it when it is full.
//!
//! Everything is opened at the start, because a running trace may open no file to write. So a full file is not renamed: what
//! is in it is copied to the second file, and it begins again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::parts;
use crate::model::Record;

/// The smallest size to rotate at: some hundred records.
const MIN_SIZE: u64 = 64 * 1024;

/// Why a recording cannot be written to that file.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is something by that name.
    #[error("record to {}: it is there already; take another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// It cannot be made.
    #[error("record to {}: {why}; take a directory that is there, may be written to and has room", .path.display())]
    NotMade {
        /// The file.
        path: PathBuf,
        /// What the system said. It is in the message, and is not to be said again as its source.
        why: io::Error,
    },
}

/// As much is gathered before it is handed to the kernel, in bytes.
const GATHERED: usize = 16 * 1024;

/// A recording being written.
#[derive(Debug)]
pub struct Recorder {
    file: Own,
    /// Whole lines that are not in the file yet, and how many records they are.
    lines: Vec<u8>,
    unwritten: u64,
    header: Record,
    /// What is in the file, in bytes.
    size: u64,
    rotation: Option<Rotation>,
}

/// When and where to a full file goes.
#[derive(Debug)]
struct Rotation {
    max: u64,
    previous: Own,
}

/// A file that we have made.
#[derive(Debug)]
struct Own {
    path: PathBuf,
    file: File,
}

impl Recorder {
    /// Makes the file, which only its owner may read, and writes the header. With `max` bytes, also a second file of
    /// that name and `.1`. Where that fails no file is left behind.
    ///
    /// # Errors
    /// One of them is there already, or cannot be made.
    pub fn create(path: &Path, max: Option<u64>, header: &Record) -> Result<Self, Unusable> {
        let file = create(path)?;
        let mut recorder =
            Self { file, lines: Vec::new(), unwritten: 0, header: header.clone(), size: 0, rotation: None };
        match recorder.begin(max) {
            Ok(()) => Ok(recorder),
            Err(error) => {
                recorder.discard();
                Err(error)
            }
        }
    }

    fn begin(&mut self, max: Option<u64>) -> Result<(), Unusable> {
        if let Some(max) = max {
            let mut name = self.file.path.as_os_str().to_owned();
            name.push(".1");
            self.rotation = Some(Rotation { max, previous: create(Path::new(&name))? });
        }
        let header = self.header.clone();
        let begun = self.write(&header).and_then(|()| self.flush());
        begun.map_err(|source| Unusable::NotMade { path: self.file.path.clone(), why: source })
    }

    /// Adds a record, in parts where it is a long one.
    ///
    /// # Errors
    /// The file took no more. It ends with a whole line.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        parts::split(record).iter().try_for_each(|part| self.write_line(part))
    }

    fn write_line(&mut self, record: &Record) -> io::Result<()> {
        let line = record.json_line()?;
        let size = self.size + (self.lines.len() + line.len()) as u64;
        if self.rotation.as_ref().is_some_and(|rotation| size > rotation.max) && self.size > 0 {
            self.rotate()?;
        }
        self.lines.extend(line.as_bytes());
        self.unwritten += 1;
        if self.lines.len() >= GATHERED { self.flush() } else { Ok(()) }
    }

    /// Hands everything to the kernel: it outlives this process then, however that ends.
    ///
    /// # Errors
    /// The file took no more. It ends with a whole line.
    pub fn flush(&mut self) -> io::Result<()> {
        let file = &mut self.file.file;
        if let Err(error) = file.write_all(&self.lines) {
            // What went into it of these lines is cut off again: a replay would stop at half a line.
            file.set_len(self.size)?;
            return Err(error);
        }
        self.size += self.lines.len() as u64;
        self.lines.clear();
        self.unwritten = 0;
        Ok(())
    }

    /// How many records are not in the file.
    pub(super) const fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Removes what was made.
    pub(super) fn discard(self) {
        let Self { file, rotation, .. } = self;
        for Own { path, .. } in [Some(file), rotation.map(|rotation| rotation.previous)].into_iter().flatten()
        {
            // It is ours, and nothing is in it: where it cannot be removed, nothing is lost.
            let _ = fs::remove_file(path);
        }
    }

    /// What is in the file replaces what is in the second one, and the file begins again. Whenever this is interrupted,
    /// each record of the full file is in one of them.
    fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(Rotation { previous, .. }) = &mut self.rotation {
            let (full, previous) = (&self.file.file, &mut previous.file);
            previous.set_len(0)?;
            let (mut buffer, mut at) = (vec![0; 64 * 1024], 0);
            loop {
                let read = full.read_at(&mut buffer, at)?;
                if read == 0 {
                    break;
                }
                previous.write_all(&buffer[..read])?;
                at += read as u64;
            }
            full.set_len(0)?;
            self.size = 0;
        }
        self.lines.extend(self.header.json_line()?.as_bytes());
        Ok(())
    }
}

fn create(path: &Path) -> Result<Own, Unusable> {
    // To append, so that a file that begins again is written from its beginning.
    let made = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path);
    let path = path.to_owned();
    match made {
        Ok(file) => Ok(Own { path, file }),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Err(Unusable::Exists(path)),
        Err(source) => Err(Unusable::NotMade { path, why: source }),
    }
}

/// A size in bytes, as people write it: 500K, 64M, 2G.
///
/// # Errors
/// It is none, or too small to be of use.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size) if size >= MIN_SIZE => Ok(size),
        Some(_) => Err("this must be at least 64K".to_owned()),
        None => Err("not a size; write 500K, 64M or 2G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{MIN_SIZE, Recorder, Unusable, size};
    use crate::{
        model::{Body, Lost, Record},
        recording::{RecordingReader, header},
    };

    fn lost(count: u64) -> Record {
        Record { time: "2026-11-22T06:39:51Z".parse().unwrap(), body: Body::Lost(Lost { count }) }
    }

    fn read(path: &std::path::Path) -> Vec<Record> {
        let bytes = fs::read(path).unwrap();
        let mut reader = RecordingReader::new(&*bytes);
        std::iter::from_fn(|| reader.next_record().unwrap()).map(|one| one.record).collect()
    }

    #[test]
    fn a_full_file_is_rotated_and_no_record_of_the_last_two_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("recording");
        let previous = directory.path().join("recording.1");
        let mut recorder = Recorder::create(&path, Some(MIN_SIZE), &header(true).unwrap()).unwrap();
        for count in 0..3000 {
            recorder.write(&lost(count)).unwrap();
        }
        recorder.flush().unwrap();

        let (old, new) = (read(&previous), read(&path));
        for (file, records) in [(&previous, &old), (&path, &new)] {
            let metadata = fs::metadata(file).unwrap();
            assert!(metadata.len() <= MIN_SIZE, "{}", metadata.len());
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            assert!(matches!(records[0].body, Body::Header(_)));
        }
        let counts: Vec<_> =
            old.iter().skip(1).chain(new.iter().skip(1)).map(|record| &record.body).collect();
        let first = 3000 - counts.len() as u64;
        assert!(first > 0 && counts.len() > 500, "it was rotated more than once: {first}");
        for (body, count) in counts.into_iter().zip(first..) {
            assert_eq!(*body, Body::Lost(Lost { count }));
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("recording");
        let create = |max: Option<u64>| Recorder::create(&path, max, &header(true).unwrap());
        drop(create(None).unwrap());
        assert!(matches!(create(None), Err(Unusable::Exists(other)) if other == path));
        fs::rename(&path, directory.path().join("recording.1")).unwrap();
        assert!(matches!(create(Some(MIN_SIZE)), Err(Unusable::Exists(_))));
        assert!(!path.exists(), "what failed leaves no file behind");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(size(text).ok(), expected, "{text}");
        check("64M", Some(64 << 20));
        check("500k", Some(500 << 10));
        check("2G", Some(2 << 30));
        check("100000", Some(100_000));
        check("63K", None);
        check("M", None);
        check("", None);
        check("99999999999999G", None);
    }
}
