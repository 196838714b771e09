//! What is remembered, in two files that take turns: each is appended to until it is full, then the other one begins anew, with what is to
//! be kept longest. So whenever this is interrupted, one of them is whole. A damaged line is skipped, and so is the rest of a line that was
//! cut off.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    },
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::tag::{Tag, Tagged};
use crate::privilege;

/// The names of the files.
const NAMES: [&str; 2] = ["history.0", "history.1"];

/// What is not whole yet.
const UNDER_WAY: &str = "history.now";

/// A line is no longer, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// The first line of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begin {
    format: u32,
    /// The file with the higher number is the newer one.
    number: u64,
}

const FORMAT: u32 = 1;

/// The files, open and ours alone.
#[derive(Debug)]
pub(super) struct Files {
    files: [File; 2],
    /// Which of them is appended to.
    active: usize,
    number: u64,
    size: u64,
    limit: u64,
    /// Whether its last line has no end.
    is_cut_off: bool,
}

impl Files {
    /// Opens them in that directory, which is made where it is not there. Each gets no larger than `limit` bytes.
    ///
    /// # Errors
    /// The directory cannot be written to, or another agent has them.
    pub(super) fn open(directory: &Path, limit: u64) -> io::Result<Self> {
        if !directory.exists() {
            fs::create_dir_all(directory)?;
            share(&File::open(directory)?, 0o750)?;
        }
        let files = [open(directory, NAMES[0], true)?, open(directory, NAMES[1], true)?];
        Ok(Self { files, active: 0, number: 0, size: 0, limit, is_cut_off: false })
    }

    /// Opens what is beside them there.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub(super) fn open_under_way(directory: &Path) -> io::Result<File> {
        open(directory, UNDER_WAY, false)
    }

    /// Reads what there is, oldest first, and goes on behind it. Gives how many lines were damaged.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn read(&mut self, mut take: impl FnMut(Tag, &str)) -> io::Result<u64> {
        let mut numbers = [None, None];
        let mut is_whole = [false, false];
        for (index, file) in self.files.iter().enumerate() {
            lines(file, |line| {
                match line {
                    Some((Tag::Begin, text)) => {
                        numbers[index] = serde_json::from_str::<Begin>(text).ok().map(|begin| begin.number);
                    }
                    Some((Tag::Whole, _)) => is_whole[index] = true,
                    _ => {}
                }
                // More is not needed to know which is the newer one.
                numbers[index].is_some() && !is_whole[index]
            })?;
        }
        let newer = usize::from(numbers[1] > numbers[0]);
        let older = 1 - newer;
        let mut damaged = 0;
        // One that was begun and not yet whole has nothing that the older one has not.
        if numbers[older].is_some() {
            let is_all = !is_whole[newer];
            lines(&self.files[older], |line| {
                match line {
                    Some((tag, text)) if is_all || tag == Tag::Repeat => take(tag, text),
                    Some(_) => {}
                    None => damaged += 1,
                }
                true
            })?;
        }
        if is_whole[newer] {
            lines(&self.files[newer], |line| {
                match line {
                    Some((tag, text)) => take(tag, text),
                    None => damaged += 1,
                }
                true
            })?;
            self.active = newer;
        } else {
            self.active = older;
        }
        // One without a beginning begins anew with the first line that is added.
        self.number = numbers[self.active].map_or(0, |_| numbers.into_iter().flatten().max().unwrap_or(0));
        self.size = self.files[self.active].metadata()?.len();
        let mut end = [b'\n'];
        self.is_cut_off =
            self.size > 0 && self.files[self.active].read_at(&mut end, self.size - 1)? == 1 && end != [b'\n'];
        Ok(damaged)
    }

    /// Adds lines; where the file is full, the other one begins anew with what is `kept`.
    ///
    /// # Errors
    /// The disk is full, or worse.
    pub(super) fn append(&mut self, added: &[Tagged], kept: impl FnOnce() -> Vec<Tagged>) -> io::Result<()> {
        let mut text = if self.is_cut_off { vec![b'\n'] } else { Vec::new() };
        self.is_cut_off = false;
        added.iter().for_each(|tagged| write(&mut text, tagged));
        if self.number == 0 || self.size + text.len() as u64 > self.limit {
            let mut kept = kept();
            // The rest of what is added is among it.
            kept.extend(added.iter().filter(|(tag, _)| *tag == Tag::Repeat).cloned());
            return self.turn(&kept);
        }
        self.write(&text)
    }

    /// Begins anew with the other file.
    fn turn(&mut self, kept: &[Tagged]) -> io::Result<()> {
        self.active = 1 - self.active;
        self.number += 1;
        self.size = 0;
        self.files[self.active].set_len(0)?;
        let begin = serde_json::to_string(&Begin { format: FORMAT, number: self.number })?;
        let mut text = Vec::new();
        write(&mut text, &(Tag::Begin, begin.into()));
        kept.iter().for_each(|tagged| write(&mut text, tagged));
        write(&mut text, &(Tag::Whole, "".into()));
        self.write(&text)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let mut file = &self.files[self.active];
        if let Err(error) = file.write_all(text) {
            // What went into it is cut off again, so that it ends with a whole line.
            file.set_len(self.size)?;
            return Err(error);
        }
        self.size += text.len() as u64;
        Ok(())
    }
}

/// Opens a file of our own, where `appends` to write at its end only.
fn open(directory: &Path, name: &str, appends: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Nobody else's link is followed there.
    options.read(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
    let file = options.append(appends).write(true).open(directory.join(name))?;
    flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "another agent writes there"))?;
    share(&file, 0o640)?;
    Ok(file)
}

/// Shares a file with the group of the agent, and with nobody else.
fn share(file: &File, mode: u32) -> io::Result<()> {
    if let Some(group) = privilege::group() {
        fchown(file, None, Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Adds a line as it stands in a file.
pub(super) fn write(text: &mut Vec<u8>, (tag, line): &Tagged) {
    text.push(*tag as u8);
    text.push(b' ');
    text.extend(line.trim_end().as_bytes());
    text.push(b'\n');
}

/// Each line of a file, until one is enough; `None` for one that is damaged.
fn lines(mut file: &File, mut take: impl FnMut(Option<(Tag, &str)>) -> bool) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut input = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if !take(parse(&line)) {
            return Ok(());
        }
    }
}

/// Reads a line with its end; `None` for one that is damaged.
pub(super) fn parse(line: &[u8]) -> Option<(Tag, &str)> {
    let (tag, text) = line.strip_suffix(b"\n")?.split_at_checked(2)?;
    let tag = Tag::ALL.into_iter().find(|known| [*known as u8, b' '] == tag)?;
    Some((tag, std::str::from_utf8(text).ok()?))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, path::Path};

    use super::{Files, NAMES, Tag, Tagged};

    const LIMIT: u64 = 4096;

    fn repeat(n: u32) -> Tagged {
        (Tag::Repeat, format!("{n} {}", "x".repeat(80)).into())
    }

    fn first() -> Vec<Tagged> {
        vec![(Tag::First, "the first".into()), (Tag::Minute, "a minute".into())]
    }

    fn read(directory: &Path) -> (Vec<(Tag, String)>, u64) {
        let mut lines = Vec::new();
        let damaged =
            Files::open(directory, LIMIT).unwrap().read(|tag, text| lines.push((tag, text.to_owned())));
        (lines, damaged.unwrap())
    }

    /// The numbers of the repeats.
    fn numbers(lines: &[(Tag, String)]) -> Vec<u32> {
        let repeats = lines.iter().filter(|(tag, _)| *tag == Tag::Repeat);
        repeats.map(|(_, text)| text.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn what_is_kept_longest_is_always_there_and_of_the_rest_what_fits() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..4 {
            let mut files = Files::open(directory.path(), LIMIT).unwrap();
            files.read(|_, _| {}).unwrap();
            for n in 0..100 {
                files.append(&[repeat(round * 100 + n)], first).unwrap();
                let sizes = NAMES.map(|name| fs::metadata(directory.path().join(name)).unwrap().len());
                assert!(sizes.iter().all(|size| *size <= LIMIT), "{sizes:?}");
            }
            drop(files);
            let (lines, damaged) = read(directory.path());
            assert_eq!(damaged, 0);
            let numbers = numbers(&lines);
            assert_eq!(*numbers.last().unwrap(), round * 100 + 99);
            assert!(
                numbers.len() > 40 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "{numbers:?}"
            );
            let firsts = lines.iter().filter(|(tag, _)| *tag == Tag::First).count();
            assert_eq!(firsts, 1);
        }
    }

    #[test]
    fn wherever_a_file_is_cut_off_or_damaged_the_rest_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::open(directory.path(), LIMIT).unwrap();
        (0..100).for_each(|n| files.append(&[repeat(n)], first).unwrap());
        let active = directory.path().join(NAMES[files.active]);
        drop(files);
        let whole = fs::read(&active).unwrap();
        for length in (0..whole.len()).rev().step_by(7) {
            fs::write(&active, &whole[..length]).unwrap();
            let (lines, _) = read(directory.path());
            assert!(lines.iter().any(|(tag, text)| *tag == Tag::First && text == "the first"), "{length}");
            assert!(numbers(&lines).len() > 30, "{length}");
        }
        fs::write(&active, &whole).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&active).unwrap();
        file.write_all(b"R cut\xff off\n\0\0\n? what\nR 1").unwrap();
        assert_eq!(read(directory.path()).1, 4);
        let mut files = Files::open(directory.path(), 2 * LIMIT).unwrap();
        files.read(|_, _| {}).unwrap();
        files.append(&[repeat(777)], first).unwrap();
        drop(files);
        assert_eq!(
            numbers(&read(directory.path()).0).last(),
            Some(&777),
            "it does not go on in a line that was cut off"
        );
    }

    #[test]
    fn another_agent_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let _files = Files::open(directory.path(), LIMIT).unwrap();
        assert!(Files::open(directory.path(), LIMIT).unwrap_err().to_string().contains("another agent"));
    }
}
