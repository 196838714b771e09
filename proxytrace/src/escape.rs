//! Foreign text as it may be shown: names, paths and messages are whatever somebody has put into a file, a process or a
//! recording. A terminal obeys control characters, a log takes a line feed for the end of a message, and characters that change
//! the direction of writing make a line read as something else. Pure.

use std::{borrow::Cow, fmt::Write as _};

/// The length from which text of others is cut where it stands in a message, in characters.
const MAX_MESSAGE: usize = 2000;

/// The longest name that is shown as it is, in characters: a host name has 253 at most. Each of a proxy's series has its names in
/// it, so that one of 100 KB (a title can be that long) would make a page of many MB.
const MAX_NAME: usize = 256;

/// Whether a character is shown as itself. Others are written as an escape.
fn is_plain(c: char) -> bool {
    !(c.is_control() || is_invisible(c))
}

/// Characters that leave no mark and change how others are read: marks, embeddings, overrides and isolates of the bidirectional
/// algorithm (UAX #9), separators of lines and paragraphs, characters without a width, the byte order mark and tags.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text for people: what a terminal would obey, or hide, is written as `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_plain, as_unicode)
}

/// The same for text of several lines, which stay.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_plain(c) || c == '\n', as_unicode)
}

/// The same for a label: backslashes are doubled, so that two texts never become one label. Samples of the same labels would
/// make a scrape invalid as a whole.
#[must_use]
pub fn label(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| is_plain(c) && c != '\\',
        |out, c| {
            if c == '\\' {
                out.push_str("\\\\");
            } else {
                as_unicode(out, c);
            }
        },
    )
}

/// Text that is JSON already: what JSON need not escape is written as `\u202e`. Such characters are in its strings only.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| is_plain(c) || c == '\n',
        |out, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

/// The beginning of a message of others, with how much more there is of it.
#[must_use]
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_MESSAGE) {
        None => text.into(),
        Some((end, _)) => format!("{}… ({} bytes more)", &text[..end], text.len() - end).into(),
    }
}

/// A name, as it may stand in labels and records. One that is too long keeps its beginning, and has a hash of the whole at its end:
/// two long names stay two.
#[must_use]
pub fn name(text: &str) -> Cow<'_, str> {
    /// What the end takes.
    const DIGEST: usize = 17;
    if text.len() <= MAX_NAME || text.chars().count() <= MAX_NAME {
        return text.into();
    }
    let beginning: String = text.chars().take(MAX_NAME - DIGEST).collect();
    format!("{beginning}…{:016x}", hash([text.as_bytes()])).into()
}

/// The same for the same bytes, in any version (FNV-1a).
#[must_use]
pub fn hash<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let bytes = parts.into_iter().flat_map(|part| part.iter().chain(&[0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn as_unicode(out: &mut String, c: char) {
    out.extend(c.escape_unicode());
}

fn escaped(
    text: &str,
    is_plain: impl Fn(char) -> bool,
    mut escape: impl FnMut(&mut String, char),
) -> Cow<'_, str> {
    if text.chars().all(&is_plain) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            escape(&mut out, c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::{MAX_NAME, json, label, name, printable, printable_lines, shortened};

    #[test]
    fn what_a_terminal_would_obey_or_hide_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected, "{text:?}");
        check("nginx.service: größe \\.php$ 日本", "nginx.service: größe \\.php$ 日本");
        check("a\u{1b}[2Jb\nc\r\t\0", r"a\u{1b}[2Jb\u{a}c\u{d}\u{9}\u{0}");
        check("\u{7f}\u{9b}31m", r"\u{7f}\u{9b}31m");
        check(
            "a\u{202e}b\u{2066}c\u{200f}d\u{200b}e\u{feff}",
            r"a\u{202e}b\u{2066}c\u{200f}d\u{200b}e\u{feff}",
        );
        check("a\u{2028}b\u{e0041}", r"a\u{2028}b\u{e0041}");
        assert_eq!(printable_lines("a\nb\rc\n"), "a\nb\\u{d}c\n");
    }

    #[test]
    fn two_texts_never_become_one_label() {
        let texts = ["a\u{1b}", r"a\u{1b}", r"a\\u{1b}", "a\\\u{1b}", "a"];
        let labels: std::collections::HashSet<_> = texts.iter().map(|text| label(text)).collect();
        assert_eq!(labels.len(), texts.len(), "{labels:?}");
        assert_eq!(label(r"a\b"), r"a\\b");
    }

    #[test]
    fn json_means_the_same_after_it_was_escaped() {
        let text = "a\u{202e}b\u{9b}\u{e0041}\"\n";
        let written = serde_json::to_string(text).unwrap() + "\n";
        let shown = json(&written);
        assert!(shown.is_ascii() && shown.ends_with('\n'), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }

    #[test]
    fn a_name_that_is_long_is_cut_and_stays_another_than_others() {
        let longest = "ä".repeat(MAX_NAME);
        assert_eq!(name(&longest), longest);
        let names = [longest.clone() + "a", longest.clone() + "b", longest + &"a".repeat(100_000)];
        let cut: std::collections::HashSet<_> = names.iter().map(|long| name(long).into_owned()).collect();
        assert_eq!(cut.len(), names.len());
        assert!(cut.iter().all(|name| name.chars().count() == MAX_NAME), "{cut:?}");
    }

    #[test]
    fn a_message_that_is_long_is_cut() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"ä".repeat(100_000)).into_owned();
        assert!(cut.chars().count() < 2100 && cut.ends_with("ä… (196000 bytes more)"), "{cut}");
    }
}
