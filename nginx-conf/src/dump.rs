//! The output of `nginx -T`: every file that nginx read, after a line with its name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind};
use crate::{Config, Files, Limits, glob, load};

/// The files in the output of `nginx -T`.
#[derive(Clone, Debug)]
struct Dump<'a> {
    main: PathBuf,
    /// By their names as nginx writes them: `/a/./b` is not `/a/b`, and comes again under that name.
    files: BTreeMap<Vec<u8>, &'a [u8]>,
}

/// Reads the configuration in the output of `nginx -T`.
///
/// # Errors
/// As those of [`load`], and [`Kind::NotADump`].
pub fn load_dump(text: &[u8], limits: &Limits) -> Result<Config, Error> {
    let dump = Dump::new(text).ok_or(Error { kind: Kind::NotADump, at: None })?;
    load(&dump, dump.main(), None, limits)
}

impl<'a> Dump<'a> {
    /// Finds the files; nothing if there is none. What comes before the first one, such as what nginx says about the
    /// syntax, is skipped.
    fn new(text: &'a [u8]) -> Option<Self> {
        let mut files = BTreeMap::new();
        let mut main = None;
        // The file that we are in, and where it begins.
        let mut current: Option<(PathBuf, usize)> = None;
        let mut at = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let start = at;
            at += line.len();
            // nginx names no file twice: then it is a comment.
            let Some(path) = named(line).filter(|path| !files.contains_key(path.as_os_str().as_bytes()))
            else {
                continue;
            };
            if current.as_ref().is_some_and(|(current, _)| current.as_os_str() == path.as_os_str()) {
                continue;
            }
            if let Some((path, from)) = current.replace((path.to_path_buf(), at)) {
                files.insert(path.into_os_string().into_vec(), content(&text[from..start]));
            }
            main.get_or_insert_with(|| path.to_path_buf());
        }
        let (path, from) = current?;
        files.insert(path.into_os_string().into_vec(), content(&text[from..]));
        Some(Self { main: main?, files })
    }

    /// The main file: what nginx names first.
    fn main(&self) -> &Path {
        &self.main
    }

    /// What follows `start` in the names of files that begin with it.
    fn beginning_with(&self, start: &Path) -> impl Iterator<Item = &[u8]> {
        let start = start.as_os_str().as_bytes();
        let from = self.files.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        from.map_while(move |(name, _)| name.strip_prefix(start))
    }
}

impl Files for Dump<'_> {
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not in the dump");
        let text = self.files.get(path.as_os_str().as_bytes()).ok_or_else(missing)?;
        if text.len() as u64 > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text.to_vec())
    }

    fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>> {
        let list = |directory: &Path| {
            let names =
                self.beginning_with(directory).filter_map(|rest| rest.split(|byte| *byte == b'/').next());
            // A directory comes with each file in it.
            let names: BTreeSet<&[u8]> = names.filter(|name| !name.is_empty()).collect();
            Ok(names.into_iter().map(|name| OsStr::from_bytes(name).to_os_string()).collect())
        };
        let is_end = |rest: &[u8]| matches!(rest, [] | [b'/', ..]);
        let exists = |path: &Path| {
            let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
            self.beginning_with(path).any(|rest| is_directory || is_end(rest))
        };
        glob::expand(pattern, max, list, exists)
    }
}

/// The file that a line names.
fn named(line: &[u8]) -> Option<&Path> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let path = line.strip_prefix(b"# configuration file ")?.strip_suffix(b":")?;
    path.starts_with(b"/").then(|| Path::new(OsStr::from_bytes(path)))
}

/// A file without the line feed that nginx puts after it.
fn content(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that were read, and the names of the directives.
    fn read(text: &str) -> String {
        match load_dump(text.as_bytes(), &Limits::default()) {
            Ok(Config { files, directives }) => {
                let files: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
                let names: Vec<_> = directives.iter().map(|it| it.name.text.as_str()).collect();
                format!("{}: {}", files.join(" "), names.join(" "))
            }
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text), expected, "{text:?}");
    }

    #[test]
    fn files_stand_after_lines_with_their_names() {
        check("# configuration file /c/main:\na b;\n\n", "/c/main: a");
        check("nginx: the syntax is ok\n# configuration file /c/main:\na;\n", "/c/main: a");
        check("# configuration file /c/main:\r\na b;\r\n\n", "/c/main: a");
        check(
            "# configuration file /c/main:\ninclude d/*.conf;\ne;\n\n\
             # configuration file /c/d/2.conf:\nb;\n\n# configuration file /c/d/1.conf:\na;\n",
            "/c/main /c/d/1.conf /c/d/2.conf: a b e",
        );
        check(
            "# configuration file /c/main:\ninclude a; include a;\n\n# configuration file /c/a:\nb;\n",
            "/c/main /c/a /c/a: b b",
        );
        check("# configuration file /c/main:\ninclude none*;\n", "/c/main: ");
        check(
            "# configuration file /c/main:\ninclude a; include ./a; include .//?;\n\n# configuration file /c/a:\nb;\n\n\
             # configuration file /c/./a:\nb;\n\n# configuration file /c/.//a:\nb;\n",
            "/c/main /c/a /c/./a /c/.//a: b b b",
        );
    }

    #[test]
    fn a_name_that_was_there_before_is_a_comment() {
        check("# configuration file /c/main:\na;\n# configuration file /c/main:\nb;\n", "/c/main: a b");
        check("# configuration file /c/main:\n# configuration file a:\nb;\n", "/c/main: b");
        check("# configuration file /c/main:\n # configuration file /c/a:\nb;\n", "/c/main: b");
    }

    #[test]
    fn only_the_line_feed_that_nginx_adds_is_taken_off() {
        for text in ["", "\n", "a;", "a;\n", "a;\n\n"] {
            let dump = format!("# configuration file /c/main:\n{text}\n");
            let config = load_dump(dump.as_bytes(), &Limits::default()).expect("no syntax error");
            assert_eq!(config.files[0].text, text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let none = "no line \"# configuration file PATH:\": this is not the output of nginx -T";
        check("", none);
        check("a;\n", none);
        check("# configuration file nginx.conf:\na;\n", none);
        check(
            "# configuration file /c/main:\n\ninclude a;\n",
            "/c/main:2:1: cannot read /c/a: it is not in the dump",
        );
        check("# configuration file /c/main:\na;\n}\n", "/c/main:2:1: unexpected \"}\"");
    }
}
