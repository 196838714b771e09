//! How bytes become files and are read, and what must then hold: for the fuzz targets and for the test of their corpus.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use nginx_conf::{Config, Directive, Error, Files, Limits, glob, load, load_dump};

/// Small enough that every input is read in no time.
const LIMITS: Limits = Limits { bytes: 1 << 20, files: 64, words: 20_000, blocks: 40, includes: 8 };

/// The files after the main one. They can be included by these names and by patterns.
const NAMES: &[&str] = &["a", "b", "c.conf", "d.conf", ".hidden", "x[y]"];

/// What the files of an input stand between: UTF-8 never has it.
const BETWEEN_FILES: u8 = 0xff;

/// Files that are only in memory.
struct Memory<'a>(BTreeMap<PathBuf, &'a [u8]>);

impl<'a> Memory<'a> {
    fn new(input: &'a [u8]) -> Self {
        let names = ["main"].iter().chain(NAMES);
        let texts = input.splitn(1 + NAMES.len(), |byte| *byte == BETWEEN_FILES);
        Self(names.map(|name| Path::new("/conf").join(name)).zip(texts).collect())
    }
}

impl Files for Memory<'_> {
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(text) if text.len() as u64 <= max => Ok(text.to_vec()),
            Some(_) => Err(io::ErrorKind::FileTooLarge.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>> {
        let list = |directory: &Path| -> io::Result<Vec<OsString>> {
            let inside = self.0.keys().filter(|path| path.parent() == Some(directory));
            Ok(inside.filter_map(|path| path.file_name()).map(OsString::from).collect())
        };
        glob::expand(pattern, max, list, |path| self.0.contains_key(path))
    }
}

/// Reads the first file of an input, which may include the others.
pub fn read_files(input: &[u8]) {
    check(load(&Memory::new(input), Path::new("/conf/main"), None, &LIMITS));
    if let Ok(globals) = std::str::from_utf8(input) {
        check(load(&Memory::new(b""), Path::new("/conf/main"), Some(globals), &LIMITS));
    }
}

/// Reads an input as what `nginx -T` prints.
pub fn read_dump(input: &[u8]) {
    check(load_dump(input, &LIMITS));
}

/// What holds of all that was read, and of all that was refused.
fn check(read: Result<Config, Error>) {
    match read {
        Ok(config) => check_places(&config, &config.directives),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error.at.is_none_or(|at| at.line > 0 && at.column > 0 && !at.text.contains('\n')));
        }
    }
}

/// Every word begins at its place.
fn check_places(config: &Config, directives: &[Directive]) {
    for directive in directives {
        for word in [&directive.name].into_iter().chain(&directive.args) {
            let text = &config.files[word.place.file as usize].text;
            let line = text.split(|byte| *byte == b'\n').nth(word.place.line as usize - 1);
            let line = line.expect("the line is in the file");
            let rest = &line[word.place.column as usize - 1..];
            // What is in quotes, escaped, or no UTF-8 looks different; Lua code may begin with the line's end.
            let is_plain = !word.is_quoted && !rest.contains(&b'\\') && !word.text.contains('\u{fffd}');
            // A word may go on after an escaped line feed, which has a backslash.
            assert!(!is_plain || rest.starts_with(word.text.as_bytes()), "{word:?} is not at its place");
        }
        check_places(config, directive.children());
    }
}
