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
/// `list` fails in another way, or there are more than `most` matches or directories to look into
/// ([`io::ErrorKind::FileTooLarge`]).
pub fn expand(
    pattern: &str,
    most: usize,
    mut list: impl FnMut(&Path) -> io::Result<Vec<OsString>>,
    mut exists: impl FnMut(&Path) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let too_many = || io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} paths match"));
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
                if next.len() == most {
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
