//! What is under way and not whole yet, in a file of its own, so that an agent that is killed loses seconds of it and not a minute. Two places
//! in it take turns: each is written over with all there is, so that however often that is done the file is no larger, and one of them
//! is whole.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    file::{parse, write},
    tag::{Line, Tag, Tagged},
};

/// No more is written at once, in bytes.
pub(super) const MAX_TEXT: usize = 128 << 10;

/// A place begins with its number and ends with it: one that was written half-way ends with another.
const NUMBERS: usize = 64;

const PLACE: usize = MAX_TEXT + NUMBERS;

/// The file, which is ours alone.
#[derive(Debug)]
pub(super) struct UnderWay {
    file: File,
    number: u64,
    /// What was written last, by this agent.
    text: Option<Vec<u8>>,
}

impl UnderWay {
    /// Takes it.
    pub(super) const fn new(file: File) -> Self {
        Self { file, number: 0, text: None }
    }

    /// What the agent before wrote last.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&mut self) -> io::Result<Vec<(Tag, String)>> {
        let mut newest = (0, Vec::new());
        for place in 0..2 {
            let mut text = vec![0; PLACE];
            let mut read = 0;
            while let more @ 1.. = self.file.read_at(&mut text[read..], (place * PLACE + read) as u64)? {
                read += more;
            }
            newest = whole(&text[..read]).filter(|(number, _)| *number > newest.0).unwrap_or(newest);
        }
        self.number = newest.0;
        Ok(newest.1)
    }

    /// Replaces what is there by these lines, as many as there is room for, the first of them first.
    ///
    /// # Errors
    /// The disk is full, or worse.
    pub(super) fn write(&mut self, lines: &[Tagged]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            let before = text.len();
            write(&mut text, line);
            if text.len() > MAX_TEXT {
                text.truncate(before);
                break;
            }
        }
        if self.text.as_ref() == Some(&text) {
            return Ok(());
        }
        let number: Line = (self.number + 1).to_string().into();
        let mut all = Vec::new();
        write(&mut all, &(Tag::Begin, Line::clone(&number)));
        all.extend(&text);
        write(&mut all, &(Tag::Whole, number));
        let place = self.number as usize % 2;
        self.file.write_all_at(&all, (place * PLACE) as u64)?;
        self.number += 1;
        self.text = Some(text);
        Ok(())
    }
}

/// The lines of a place that is whole, and its number.
fn whole(text: &[u8]) -> Option<(u64, Vec<(Tag, String)>)> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').map(parse);
    let number = |line: Option<(Tag, &str)>, wanted| {
        let (tag, text) = line?;
        text.parse::<u64>().ok().filter(|_| tag == wanted)
    };
    let begin = number(lines.next()?, Tag::Begin)?;
    let mut whole = Vec::new();
    for line in lines {
        let (tag, text) = line?;
        if tag == Tag::Whole {
            return (text.parse() == Ok(begin)).then_some((begin, whole));
        }
        whole.push((tag, text.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::File};

    use super::{MAX_TEXT, PLACE, Tag, Tagged, UnderWay};

    fn lines(what: &str, count: usize) -> Vec<Tagged> {
        (0..count).map(|n| (Tag::Repeat, format!("{what} {n}").into())).collect()
    }

    fn open(path: &std::path::Path) -> UnderWay {
        UnderWay::new(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    fn read(path: &std::path::Path) -> Vec<String> {
        open(path).read().unwrap().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn what_was_written_last_is_there_wherever_the_next_write_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("now");
        assert!(read(&path).is_empty());
        let mut file = open(&path);
        for (what, count) in [("one", 40), ("two", 3), ("three", 30)] {
            file.write(&lines(what, count)).unwrap();
            let last = format!("{what} {}", count - 1);
            assert_eq!((read(&path).len(), read(&path).last()), (count, Some(&last)));
        }
        let before = fs::read(&path).unwrap();
        file.write(&lines("four", 20)).unwrap();
        let after = fs::read(&path).unwrap();
        let changed = (0..after.len()).rev().find(|at| before.get(*at) != after.get(*at)).unwrap();
        for length in (PLACE..changed).step_by(3) {
            let torn = [&after[..length], &before[length.min(before.len())..]].concat();
            fs::write(&path, torn).unwrap();
            assert_eq!(read(&path).last().unwrap(), "three 29", "{length}");
        }
        fs::write(&path, &after).unwrap();
        assert_eq!(read(&path).len(), 20);
        let mut next = open(&path);
        next.read().unwrap();
        next.write(&lines("five", 1)).unwrap();
        assert_eq!(read(&path), ["five 0"]);
        let mut last = open(&path);
        last.read().unwrap();
        last.write(&[]).unwrap();
        assert!(read(&path).is_empty(), "what an agent before has written is not kept for ever");
    }

    #[test]
    fn it_is_no_larger_however_much_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("now");
        let mut file = open(&path);
        for round in 0..5 {
            file.write(&lines(&"x".repeat(100 + round), 10_000)).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 2 * PLACE as u64);
        assert!(read(&path).len() > MAX_TEXT / 120, "{}", read(&path).len());
    }
}
