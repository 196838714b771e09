//! Texts of a configuration as a change shows them: as they would be written, without secrets, and no longer than one can read.

use super::{canonical::Line, secrets};

/// No text in a change is longer, in characters.
const MAX_TEXT: usize = 300;

/// So much is shown of what two long texts begin with alike.
const ALIKE: usize = 40;

impl Line {
    /// The directive.
    pub(super) fn shown(&self) -> String {
        let words = self.shown_words();
        if words.is_empty() { self.name.clone() } else { format!("{} {words}", self.name) }
    }

    /// Its arguments, and its block.
    pub(super) fn shown_words(&self) -> String {
        let words: Vec<_> = secrets::without(self).iter().map(|word| quoted(&plain(word))).collect();
        let mut text = words.join(" ");
        if self.name == "if" {
            text = format!("({text})");
        }
        if !self.block.is_empty() {
            let block: Vec<_> = self.block.iter().map(Self::shown).collect();
            text = format!("{text} {{ {} }}", block.join("; "));
        }
        text.trim_start().to_owned()
    }
}

/// A word that is no argument of a directive.
pub(super) fn word(text: &str) -> String {
    quoted(&plain(&secrets::masked(text)))
}

/// A word that may be a secret.
pub(super) fn secret(text: &str) -> String {
    quoted(&plain(&secrets::hidden(text)))
}

/// A canonical text as people write it: `$name`, unless what follows would be read as a part of the name.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut pieces = text.split("${");
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, rest) = piece.split_once('}').unwrap_or((piece, ""));
        let goes_on = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if goes_on && !name.is_empty() {
            plain.extend(["${", name, "}", rest]);
        } else {
            plain.extend(["$", name, rest]);
        }
    }
    plain
}

/// A word as it would have to be written.
pub(super) fn quoted(text: &str) -> String {
    let needs_quotes = text.is_empty()
        || text.starts_with(['"', '\''])
        || text.contains(|c: char| {
            c.is_ascii_whitespace() || matches!(c, ';' | '{' | '}') && !text.contains("${")
        });
    if !needs_quotes {
        return text.to_owned();
    }
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push(quote);
    quoted
}

/// What is there now, and what was before, such that one sees what differs.
pub(super) fn instead(now: &str, before: &str) -> String {
    if now == before {
        return format!("{}, where what is hidden changes", cut(now));
    }
    let [now, before] = apart(now, before);
    format!("{now} instead of {before}")
}

/// Two texts that differ, cut where they are long, around the place from which they do.
pub(super) fn apart(one: &str, other: &str) -> [String; 2] {
    let is_short = [one, other].iter().all(|text| text.chars().count() <= MAX_TEXT);
    let alike = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let from = if is_short || alike <= 2 * ALIKE { 0 } else { alike - ALIKE };
    [one, other].map(|text| {
        let rest = text.char_indices().nth(from).map_or("", |(at, _)| &text[at..]);
        format!("{}{}", if from == 0 { "" } else { "…" }, cut(rest))
    })
}

/// A text that is not too long.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The first of many, and how many more there are.
pub(super) fn first<T: AsRef<str>>(items: &[T], most: usize, separator: &str) -> String {
    let named: Vec<_> = items.iter().take(most).map(AsRef::as_ref).collect();
    let more = items.len().saturating_sub(most);
    let more = if more == 0 { String::new() } else { format!("{separator}and {more} more") };
    format!("{}{more}", named.join(separator))
}

#[cfg(test)]
mod tests {
    use super::{apart, cut, first, instead, plain, quoted};

    #[test]
    fn a_text_is_shown_as_it_would_be_written() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(&plain(text)), expected);
        check("/a${uri}/", "/a$uri/");
        check("${a}b", "${a}b");
        check("^/(.*)${}", "^/(.*)$");
        check("", "''");
        check(" ", "' '");
        check("a b", "'a b'");
        check("it's a", "\"it's a\"");
        check("^/[a-z]{2}", "'^/[a-z]{2}'");
        check("one\ntwo", "'one\\ntwo'");
    }

    #[test]
    fn two_texts_are_cut_such_that_one_sees_what_differs() {
        let long = "x".repeat(1000);
        let [one, other] = apart(&format!("{long}a"), &format!("{long}b"));
        assert_eq!([&one, &other], [&format!("…{}a", &long[..40]), &format!("…{}b", &long[..40])]);
        let [one, other] = apart(&format!("a{long}"), "b");
        assert_eq!([one, other], [format!("a{}…", &long[..299]), "b".to_owned()]);
        assert_eq!(cut(&long).chars().count(), 301);
        assert_eq!(instead("a", "b"), "a instead of b");
        assert_eq!(instead("x (hidden)", "x (hidden)"), "x (hidden), where what is hidden changes");
        assert_eq!(first(&["a", "b", "c"], 2, ", "), "a, b, and 1 more");
    }
}
