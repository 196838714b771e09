//! Shell patterns for paths, as glob(3) follows them when nginx calls it: without flags, in the C locale.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The paths that match `pattern`, sorted by their bytes, named as the pattern writes them.
///
/// `list` gives the names in a directory (`.` and `..` do not matter), following symbolic links on the way; that it is
/// not there or no directory only means that nothing matches. `exists` says whether a path is there, be it as a
/// symbolic link to nothing; with a slash at its end, it must be a directory. Both are given paths as the pattern has
/// them: relative ones stay so.
///
/// # Errors
/// `list` fails in another way, or there are more than `max` matches or directories to look into
/// ([`io::ErrorKind::FileTooLarge`]).
pub fn expand(
    pattern: &str,
    max: usize,
    mut list: impl FnMut(&Path) -> io::Result<Vec<OsString>>,
    mut exists: impl FnMut(&Path) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let too_many = || io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max} paths match"));
    // What matches the pattern up to here, with everything that the pattern has between its components.
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    // Whether what was added since the last listing may not be there.
    let mut is_sure = true;
    for part in pattern.as_bytes().split_inclusive(|byte| *byte == b'/') {
        let name = part.strip_suffix(b"/").unwrap_or(part);
        let slash = &part[name.len()..];
        if !is_pattern(name) {
            let name = unescape(name);
            for path in &mut found {
                path.extend_from_slice(&name);
                path.extend_from_slice(slash);
            }
            is_sure = false;
            continue;
        }
        let mut next = Vec::new();
        for directory in &found {
            let names = match list(as_directory(directory)) {
                Err(error) if is_nothing(&error) => continue,
                names => names?,
            };
            for candidate in names.iter().map(|name| name.as_bytes()).filter(|it| matches(name, it)) {
                if next.len() == max {
                    return Err(too_many());
                }
                next.push([directory, candidate, slash].concat());
            }
        }
        found = next;
        is_sure = slash.is_empty();
    }
    if !is_sure {
        found.retain(|path| exists(Path::new(OsStr::from_bytes(path))));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect())
}

/// Whether a name matches a pattern without slashes. A dot at the beginning must be in the pattern.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern_at, mut name_at) = (0, 0);
    // The last star, and how far it reaches in this attempt.
    let mut star: Option<(usize, usize)> = None;
    if name.first() == Some(&b'.') && !matches!(pattern, [b'.', ..] | [b'\\', b'.', ..]) {
        return false;
    }
    while name_at < name.len() {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += 1;
            star = Some((pattern_at, name_at));
            continue;
        }
        let step = pattern.get(pattern_at..).and_then(|rest| one(rest, name[name_at]));
        match (step, star) {
            (Some(length), _) => (pattern_at, name_at) = (pattern_at + length, name_at + 1),
            (None, Some((after, reach))) => {
                (pattern_at, name_at) = (after, reach + 1);
                star = Some((after, reach + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[pattern_at..].iter().all(|byte| *byte == b'*')
}

/// How much of the pattern stands for `byte`, if its beginning does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ..] => match set(pattern) {
            Some((set, length)) => set.contains(byte).then_some(length),
            None => (byte == b'[').then_some(1),
        },
        [b'\\', escaped, ..] => (byte == escaped).then_some(2),
        [literal, ..] => (byte == literal).then_some(1),
    }
}

/// What stands in brackets.
struct Set<'a> {
    is_negated: bool,
    body: &'a [u8],
}

/// The set with which a pattern begins, and its length; nothing if the bracket is not closed.
fn set(pattern: &[u8]) -> Option<(Set<'_>, usize)> {
    let is_negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = 1 + usize::from(is_negated);
    let mut at = start;
    loop {
        match pattern.get(at..)? {
            [] => return None,
            [b']', ..] if at > start => {
                return Some((Set { is_negated, body: &pattern[start..at] }, at + 1));
            }
            [b'[', kind @ (b':' | b'.' | b'='), rest @ ..] => {
                at += rest.windows(2).position(|end| end == [*kind, b']']).map_or(1, |end| end + 4);
            }
            [b'\\', _, ..] => at += 2,
            _ => at += 1,
        }
    }
}

impl Set<'_> {
    fn contains(&self, byte: u8) -> bool {
        let mut rest = self.body;
        let mut is_in = false;
        while !rest.is_empty() {
            if let Some((class, after)) = class(rest) {
                is_in |= class(byte);
                rest = after;
                continue;
            }
            let (low, after) = element(rest);
            rest = after;
            match rest {
                [b'-', tail @ ..] if !tail.is_empty() => {
                    let (high, after) = element(tail);
                    rest = after;
                    is_in |= (low..=high).contains(&byte);
                }
                _ => is_in |= byte == low,
            }
        }
        is_in != self.is_negated
    }
}

/// Whether a byte is of a class of characters.
type IsOfClass = fn(u8) -> bool;

/// A class such as `[:digit:]`, and what follows it.
fn class(body: &[u8]) -> Option<(IsOfClass, &[u8])> {
    const CLASSES: &[(&[u8], IsOfClass)] = &[
        (b"[:alnum:]", |it| it.is_ascii_alphanumeric()),
        (b"[:alpha:]", |it| it.is_ascii_alphabetic()),
        (b"[:blank:]", |it| matches!(it, b' ' | b'\t')),
        (b"[:cntrl:]", |it| it.is_ascii_control()),
        (b"[:digit:]", |it| it.is_ascii_digit()),
        (b"[:graph:]", |it| it.is_ascii_graphic()),
        (b"[:lower:]", |it| it.is_ascii_lowercase()),
        (b"[:print:]", |it| matches!(it, b' '..=b'~')),
        (b"[:punct:]", |it| it.is_ascii_punctuation()),
        (b"[:space:]", |it| matches!(it, b' ' | b'\t'..=b'\r')),
        (b"[:upper:]", |it| it.is_ascii_uppercase()),
        (b"[:xdigit:]", |it| it.is_ascii_hexdigit()),
    ];
    CLASSES.iter().find_map(|(name, is_in)| Some((*is_in, body.strip_prefix(*name)?)))
}

/// One character of a set: `a`, `\a`, `[.a.]`, `[=a=]`; and what follows it. The body is not empty.
fn element(body: &[u8]) -> (u8, &[u8]) {
    match body {
        [b'[', b'.', byte, b'.', b']', rest @ ..] | [b'[', b'=', byte, b'=', b']', rest @ ..] => {
            (*byte, rest)
        }
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => (*byte, rest),
        [] => (0, &[]),
    }
}

/// Whether a component must be searched for: a bracket that is not closed is a character like others.
fn is_pattern(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        match rest {
            [] => return false,
            [b'*' | b'?', ..] => return true,
            [b'[', tail @ ..] if tail.contains(&b']') => return true,
            [b'\\', _, tail @ ..] | [_, tail @ ..] => rest = tail,
        }
    }
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = name.iter().copied();
    let mut plain = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    plain
}

fn as_directory(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(if path.is_empty() { b"." } else { path }))
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        for name in matching {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} does not match {name}");
        }
        for name in others {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} matches {name}");
        }
    }

    #[test]
    fn stars_and_question_marks_stand_for_other_bytes() {
        check("a", &["a"], &["", "b", "aa"]);
        check("*", &["", "a", "a.b"], &[".a"]);
        check("?", &["a", "]"], &["", "ab", "."]);
        check("*.conf", &["a.conf", "a.conf.conf"], &[".conf", "a.conf~", "aconf"]);
        check("a*b*c", &["abc", "aXbbYc", "abcbc"], &["ab", "acb", "abcd"]);
        check("**?", &["a", "ab"], &[""]);
        check(".*", &[".", "..", ".a"], &["a"]);
        check("\\.*", &[".a"], &["a"]);
        check("[.]a", &[], &[".a"]);
        check("\\*", &["*"], &["a", "\\*"]);
    }

    #[test]
    fn brackets_stand_for_one_of_their_bytes() {
        check("[abc]", &["a", "c"], &["d", "ab", ""]);
        check("[a-c]x", &["ax", "cx"], &["dx", "-x"]);
        check("[!a-c]", &["d", "-", "!"], &["a"]);
        check("[^a]", &["b", "^"], &["a"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[!]a]", &["b"], &["]", "a"]);
        check("[a-]", &["a", "-"], &["b"]);
        check("[\\]]", &["]"], &["\\"]);
        check("[a", &["[a"], &["a"]);
        check("[[:digit:]_]", &["1", "_"], &["a", ":", "["]);
        check("[[:alpha:][:space:]]", &["a", " "], &["1"]);
        check("[[.-.]]", &["-"], &["."]);
        check("[[=a=]b]", &["a", "b"], &["="]);
    }

    #[test]
    fn every_class_has_its_bytes() {
        let of_class = |class: &str| -> usize {
            let pattern = format!("[[:{class}:]]");
            (1_u8..128).filter(|byte| matches(pattern.as_bytes(), &[*byte])).count()
        };
        // The dot, which is of some, is not matched at the beginning.
        for (class, count) in [
            ("alnum", 62),
            ("alpha", 52),
            ("blank", 2),
            ("cntrl", 32),
            ("digit", 10),
            ("graph", 93),
            ("lower", 26),
            ("print", 94),
            ("punct", 31),
            ("space", 6),
            ("upper", 26),
            ("xdigit", 22),
        ] {
            assert_eq!(of_class(class), count, "{class}");
        }
    }

    /// Directories end with a slash.
    const TREE: &[&str] = &[
        "/c/",
        "/c/a.conf",
        "/c/b.conf",
        "/c/.h.conf",
        "/c/d/",
        "/c/d/e.conf",
        "/c/f/",
        "/c/f/a.conf",
        "/c/x[y",
    ];

    fn expanded(pattern: &str, max: usize) -> io::Result<Vec<String>> {
        let list = |directory: &Path| -> io::Result<Vec<OsString>> {
            let bare = directory.to_str().expect("ASCII").trim_end_matches('/');
            let prefix = format!("{bare}/");
            if !TREE.contains(&prefix.as_str()) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = TREE.iter().filter_map(|path| path.strip_prefix(&prefix));
            let names = inside
                .map(|name| name.trim_end_matches('/'))
                .filter(|it| !it.is_empty() && !it.contains('/'));
            Ok(names.rev().map(OsString::from).collect())
        };
        let exists = |path: &Path| {
            let path = path.to_str().expect("ASCII");
            TREE.iter().any(|it| *it == path || it.strip_suffix('/') == Some(path))
        };
        let found = expand(pattern, max, list, exists)?;
        Ok(found.into_iter().map(|path| path.to_str().expect("ASCII").to_owned()).collect())
    }

    #[track_caller]
    fn check_expanded(pattern: &str, expected: &[&str]) {
        assert_eq!(expanded(pattern, 10).expect("no more than ten"), expected, "{pattern}");
    }

    #[test]
    fn patterns_expand_to_sorted_paths_as_they_write_them() {
        check_expanded("/c/*.conf", &["/c/a.conf", "/c/b.conf"]);
        check_expanded("/c/.*.conf", &["/c/.h.conf"]);
        check_expanded("/c//*.conf", &["/c//a.conf", "/c//b.conf"]);
        check_expanded("/c/*/a.conf", &["/c/f/a.conf"]);
        check_expanded("/c/*/*.conf", &["/c/d/e.conf", "/c/f/a.conf"]);
        check_expanded("/c/*/", &["/c/d/", "/c/f/"]);
        check_expanded("/c/a.conf", &["/c/a.conf"]);
        check_expanded("/c/x[y", &["/c/x[y"]);
        check_expanded("/c/x\\[y", &["/c/x[y"]);
        check_expanded("/c/none*", &[]);
        check_expanded("/none/*", &[]);
        check_expanded("/c/a.conf/*", &[]);
    }

    #[test]
    fn more_than_allowed_is_an_error() {
        assert_eq!(expanded("/c/*.conf", 2).expect("just two").len(), 2);
        let error = expanded("/c/*.conf", 1).expect_err("there are two");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_an_error() {
        let denied = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        let error = expand("/c/*", 10, denied, |_| true).expect_err("nothing can be listed");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn many_stars_take_no_more_than_a_moment() {
        let name = "a".repeat(1000);
        assert!(!matches(["*a".repeat(300).as_bytes(), b"b"].concat().as_slice(), name.as_bytes()));
    }
}
