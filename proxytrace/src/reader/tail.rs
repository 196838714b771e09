//! The end of a log that grows: what was added since the last look, as far as that is not too much.

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::PathBuf,
};

/// So much is read at one look, in bytes.
pub(super) const MAX_LOOK: u64 = 64 << 10;

/// A line that is longer is left out: nginx cuts its lines at 2 KiB (`ngx_log.h`).
const MAX_LINE: usize = 4 << 10;

/// A log that is followed.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    /// What it was called when it was opened.
    name: PathBuf,
    inode: (u64, u64),
    position: u64,
    /// The last bytes before the position: if they are others, the file was emptied and has grown again.
    mark: Vec<u8>,
    /// The beginning of a line whose end is not written yet; `None` where a part of it was skipped.
    begun: Option<Vec<u8>>,
}

/// What a look has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    /// Whole lines.
    pub(super) lines: Vec<String>,
    /// Bytes that were not read, because there were too many.
    pub(super) skipped: u64,
}

impl Tail {
    /// Follows a file from its end on, or from its beginning.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(file: File, from_end: bool) -> io::Result<Self> {
        let about = file.metadata()?;
        let name = name(&file)?;
        let position = if from_end { about.len() } else { 0 };
        let mark = before(&file, position)?;
        // The last line may be written by half.
        let begun = (mark.last().is_none_or(|last| *last == b'\n')).then(Vec::new);
        Ok(Self { name, inode: (about.dev(), about.ino()), position, mark, begun, file })
    }

    /// Which file it is.
    pub(super) const fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// Whether it has another name than at first: it was moved away or removed, and the proxy will open another.
    pub(super) fn is_moved(&self) -> bool {
        name(&self.file).is_ok_and(|name| name != self.name)
    }

    /// What was added since the last look, of at most `budget` bytes the newest.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn look(&mut self, budget: u64) -> io::Result<Added> {
        let length = self.file.metadata()?.len();
        let mut added = Added::default();
        if length == self.position {
            return Ok(added);
        }
        if length < self.position || before(&self.file, self.position)? != self.mark {
            // It was copied and emptied.
            self.position = 0;
            self.begun = Some(Vec::new());
        }
        let more = length - self.position;
        if more > budget {
            added.skipped = more - budget;
            self.position += added.skipped;
            self.begun = None;
        }
        let mut bytes = vec![0; usize::try_from(more.min(budget)).unwrap_or(0)];
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], self.position)? {
                0 => break,
                n => {
                    read += n;
                    self.position += n as u64;
                }
            }
        }
        self.mark = before(&self.file, self.position)?;
        self.split(&bytes[..read], &mut added.lines);
        Ok(added)
    }

    fn split(&mut self, mut bytes: &[u8], lines: &mut Vec<String>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            if let Some(begun) = &mut self.begun
                && begun.len() + line.len() <= MAX_LINE
            {
                begun.extend(line);
                lines.push(String::from_utf8_lossy(begun).into_owned());
            }
            self.begun = Some(Vec::new());
            bytes = &rest[1..];
        }
        match &mut self.begun {
            Some(begun) if begun.len() + bytes.len() <= MAX_LINE => begun.extend(bytes),
            begun => *begun = None,
        }
    }
}

/// The bytes before a position in a file, as many as make it improbable that they are there by chance.
fn before(file: &File, position: u64) -> io::Result<Vec<u8>> {
    const LENGTH: u64 = 4096;
    let length = position.min(LENGTH);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, position - length)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// What a file is called now, as the kernel has it; it may have been removed.
fn name(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, OpenOptions},
        io::Write as _,
        path::Path,
    };

    use super::{MAX_LINE, MAX_LOOK, Tail};

    fn write(path: &Path, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn check(tail: &mut Tail, lines: &[&str], skipped: u64) {
        let added = tail.look(MAX_LOOK).unwrap();
        assert_eq!(
            (added.lines.iter().map(String::as_str).collect::<Vec<_>>(), added.skipped),
            (lines.to_vec(), skipped)
        );
    }

    #[test]
    fn what_is_added_comes_in_whole_lines_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        write(&path, "old\nhalf of ");
        let mut tail = Tail::new(File::open(&path).unwrap(), true).unwrap();
        check(&mut tail, &[], 0);
        write(&path, "a line\none\ntw");
        check(&mut tail, &["one"], 0);
        write(&path, "o\n");
        check(&mut tail, &["two"], 0);
        check(&mut tail, &[], 0);
        let mut all = Tail::new(File::open(&path).unwrap(), false).unwrap();
        check(&mut all, &["old", "half of a line", "one", "two"], 0);
    }

    #[test]
    fn one_that_is_emptied_or_moved_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("error.log"), directory.path().join("error.log.1"));
        write(&path, "one\n");
        let mut tail = Tail::new(File::open(&path).unwrap(), true).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        write(&path, "2\n");
        check(&mut tail, &["2"], 0);
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        write(&path, "more than there was before\n");
        check(&mut tail, &["more than there was before"], 0);
        assert!(!tail.is_moved());
        fs::rename(&path, &moved).unwrap();
        write(&moved, "three\n");
        check(&mut tail, &["three"], 0);
        assert!(tail.is_moved());
        fs::remove_file(&moved).unwrap();
        assert!(tail.is_moved());
    }

    #[test]
    fn what_is_too_much_is_skipped_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        write(&path, "");
        let mut tail = Tail::new(File::open(&path).unwrap(), true).unwrap();
        let long = "x".repeat(100) + "\n";
        write(&path, &long.repeat(10_000));
        let added = tail.look(MAX_LOOK).unwrap();
        assert_eq!(added.skipped, 1_010_000 - MAX_LOOK);
        assert_eq!(added.lines.len() as u64, MAX_LOOK / 101);
        assert!(added.lines.iter().all(|line| *line == long.trim_end()));
        write(&path, &("y".repeat(MAX_LINE + 1) + "\nend\n"));
        check(&mut tail, &["end"], 0);
    }
}
