//! Paths as text from which they can be made again: they are bytes, and JSON has none.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize as _, Deserializer, Serializer, de};

/// Everything but printable ASCII is written as `%` and two digits.
pub(in super::super) fn to_text(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => text += &format!("%{byte:02x}"),
            _ => text.push(byte.into()),
        }
    }
    text
}

/// The path that [`to_text`] wrote.
pub(in super::super) fn of_text(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(more.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &more[2..];
        } else {
            bytes.push(byte);
            rest = more;
        }
    }
    Some(OsString::from_vec(bytes).into())
}

/// A path for people.
pub(in super::super) fn shown(path: &Path) -> String {
    crate::escape::printable(&path.to_string_lossy()).into_owned()
}

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(path))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    of_text(&text).ok_or_else(|| de::Error::custom("not a path"))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

    use super::{of_text, to_text};

    #[test]
    fn paths_are_read_as_they_were_written() {
        let check = |bytes: &[u8], expected: &str| {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(to_text(path), expected);
            assert_eq!(of_text(expected).unwrap(), path);
        };
        check(b"conf.d/api.conf", "conf.d/api.conf");
        check(b"100% \xff\n", "100%25%20%ff%0a");
        check("\u{e4}".as_bytes(), "%c3%a4");
        assert_eq!(of_text("a%"), None);
        assert_eq!(of_text("a%zz"), None);
    }
}
