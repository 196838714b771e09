//! Words, and what ends a directive: byte by byte as nginx does, with the size of its buffer.

use crate::error::Kind;

/// nginx reads through a buffer of this size, in which a word must fit.
const BUFFER: usize = 4096;

/// A place in a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) offset: usize,
    /// From 1.
    pub(crate) line: u32,
    /// Where the line begins.
    pub(crate) line_start: usize,
}

impl Spot {
    pub(crate) const BEGINNING: Self = Self { offset: 0, line: 1, line_start: 0 };
}

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) spot: Spot,
}

/// A word after quotes and escapes were taken off.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: Vec<u8>,
    pub(crate) is_quoted: bool,
    pub(crate) spot: Spot,
}

/// What ended a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `;`
    Semicolon,
    /// `{`
    Open,
    /// `}`, with no word before it.
    Close,
    /// The end of the text, with no word before it.
    File,
}

/// Where in a text we are.
#[derive(Debug)]
pub(crate) struct Lexer {
    here: Spot,
    /// The `-g` directives: they are in memory, not read through a buffer.
    is_globals: bool,
    /// What is not found any more up to the end of a line, so that it is searched for once only; and that line.
    missing: Vec<u8>,
    missing_in: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Comment,
    Word,
    Quoted(u8),
    /// Right after a closing quote.
    Closed,
}

impl Lexer {
    /// At the beginning of a text.
    pub(crate) const fn new(is_globals: bool) -> Self {
        Self { here: Spot::BEGINNING, is_globals, missing: Vec::new(), missing_in: 1 }
    }

    pub(crate) const fn here(&self) -> Spot {
        self.here
    }

    /// Steps over a byte.
    pub(crate) const fn step(&mut self, byte: u8) {
        self.here.offset += 1;
        if byte == b'\n' {
            self.here.line += 1;
            self.here.line_start = self.here.offset;
        }
    }

    /// What `search` finds; it looks from here to the end of the line for a byte, and what it does not find is not there later
    /// in that line either.
    pub(crate) fn find(&mut self, byte: u8, search: impl FnOnce() -> Option<usize>) -> Option<usize> {
        if self.missing_in != self.here.line {
            self.missing_in = self.here.line;
            self.missing.clear();
        }
        if self.missing.contains(&byte) {
            return None;
        }
        let found = search();
        if found.is_none() {
            self.missing.push(byte);
        }
        found
    }

    /// Reads the words of the next directive, and what ends it.
    pub(crate) fn directive(&mut self, text: &[u8], words: &mut Vec<Token>) -> Result<End, Fault> {
        words.clear();
        let mut state = State::Between;
        let mut is_escaped = false;
        let mut is_after_dollar = false;
        // Where the word begins.
        let mut start = self.here;
        // From where on nginx keeps what it read: the word without its opening quote, also after its end until
        // something else begins. This may not outgrow the buffer.
        let mut kept = self.here;
        loop {
            let spot = self.here;
            let Some(&byte) = text.get(spot.offset) else {
                return if words.is_empty() && matches!(state, State::Between | State::Comment) {
                    Ok(End::File)
                } else {
                    Err(Fault { kind: self.unfinished(), spot })
                };
            };
            if spot.offset - kept.offset == BUFFER && !self.is_globals {
                return Err(Fault { kind: too_long(state, &text[kept.offset..]), spot: kept });
            }
            self.step(byte);
            let unexpected = || Err(Fault { kind: Kind::Unexpected(character(&text[spot.offset..])), spot });

            match state {
                State::Comment => {
                    if byte == b'\n' {
                        state = State::Between;
                        kept = Spot { offset: spot.offset, ..self.here };
                    }
                }
                _ if is_escaped => is_escaped = false,
                State::Closed => match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => state = State::Between,
                    b';' => return Ok(End::Semicolon),
                    b'{' => return Ok(End::Open),
                    // For `if ($x = "y")`.
                    b')' => (state, start, kept) = (State::Word, spot, spot),
                    _ => return unexpected(),
                },
                State::Between => {
                    kept = Spot { line: self.here.line, ..spot };
                    match byte {
                        b' ' | b'\t' | b'\r' | b'\n' => {}
                        b';' | b'{' if words.is_empty() => return unexpected(),
                        b';' => return Ok(End::Semicolon),
                        b'{' => return Ok(End::Open),
                        b'}' if words.is_empty() => return Ok(End::Close),
                        b'}' => return unexpected(),
                        b'#' => state = State::Comment,
                        b'"' | b'\'' => {
                            kept.offset += 1;
                            (state, start) = (State::Quoted(byte), spot);
                        }
                        _ => {
                            is_escaped = byte == b'\\';
                            is_after_dollar = byte == b'$';
                            (state, start) = (State::Word, spot);
                        }
                    }
                }
                State::Word | State::Quoted(_) => {
                    // `${`, and as nginx has it, any number of braces.
                    if byte == b'{' && is_after_dollar {
                        continue;
                    }
                    is_after_dollar = byte == b'$';
                    is_escaped = byte == b'\\';
                    let ends = match state {
                        State::Quoted(quote) => byte == quote,
                        _ => matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{'),
                    };
                    if !ends {
                        continue;
                    }
                    let is_quoted = state != State::Word;
                    let text = decode(&text[kept.offset..spot.offset]);
                    words.push(Token { text, is_quoted, spot: start });
                    match byte {
                        b';' => return Ok(End::Semicolon),
                        b'{' => return Ok(End::Open),
                        _ if is_quoted => state = State::Closed,
                        _ => state = State::Between,
                    }
                }
            }
        }
    }

    const fn unfinished(&self) -> Kind {
        let expecting = if self.is_globals { "\";\"" } else { "\";\" or \"}\"" };
        Kind::UnfinishedDirective { expecting, in_globals: self.is_globals }
    }
}

/// The character with which a text begins, which may be more than the one byte that nginx shows.
fn character(text: &[u8]) -> char {
    let start = String::from_utf8_lossy(&text[..text.len().min(4)]);
    start.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn too_long(state: State, text: &[u8]) -> Kind {
    match state {
        State::Quoted(quote) => Kind::TooLongQuoted { quote: char::from(quote) },
        _ => Kind::TooLongWord { start: String::from_utf8_lossy(&text[..text.len().min(10)]).into_owned() },
    }
}

/// Takes the escapes off that nginx knows; it leaves the others as they are.
fn decode(raw: &[u8]) -> Vec<u8> {
    if !raw.contains(&b'\\') {
        return raw.to_vec();
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let replacement = match (byte, bytes.peek()) {
            (b'\\', Some(&next @ (b'"' | b'\'' | b'\\'))) => Some(next),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        if replacement.is_some() {
            bytes.next();
        }
        decoded.push(replacement.unwrap_or(byte));
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every directive of a text as `words|end`, quoted words between quotes, and at last what is wrong.
    fn read(text: &[u8], is_globals: bool) -> String {
        let mut lexer = Lexer::new(is_globals);
        let mut words = Vec::new();
        let mut found = Vec::new();
        loop {
            match lexer.directive(text, &mut words) {
                Ok(End::File) => break,
                Ok(end) => {
                    let words = words.iter().map(|token| {
                        let text = String::from_utf8_lossy(&token.text);
                        if token.is_quoted { format!("<{text}>") } else { text.into_owned() }
                    });
                    let end = match end {
                        End::Semicolon => ";",
                        End::Open => "{",
                        _ => "}",
                    };
                    found.push(words.chain([end.to_owned()]).collect::<Vec<_>>().join("|"));
                }
                Err(Fault { kind, spot }) => {
                    found.push(format!("{}: {kind}", spot.line));
                    break;
                }
            }
        }
        found.join(" ")
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text.as_bytes(), false), expected, "{text:?}");
    }

    #[test]
    fn words_end_at_space_semicolons_and_opening_braces() {
        check("", "");
        check("a b;", "a|b|;");
        check("a\tb\r\nc;d;", "a|b|c|; d|;");
        check("a{b c;}", "a|{ b|c|; }");
        check("a b}c;", "a|b}c|;");
        check("a b#c;", "a|b#c|;");
        check("a b'c\"d;", "a|b'c\"d|;");
        check("a\0b;", "a\0b|;");
        check("a\u{b}\u{c}b;", "a\u{b}\u{c}b|;");
    }

    #[test]
    fn comments_begin_only_where_a_word_can() {
        check("# a;\nb; # c\n#", "b|;");
        check("a # b;\nc;", "a|c|;");
        check("a #b \"'{};\r\n;", "a|;");
        check("#a\rb;\nc;", "c|;");
        check("a \"b\" #c\n;", "a|<b>|;");
    }

    #[test]
    fn quotes_keep_everything_and_only_some_bytes_may_follow_them() {
        check("a \"b c;{}#\" 'd \"e';", "a|<b c;{}#>|<d \"e>|;");
        check("\"a\" \"\";", "<a>|<>|;");
        check("a \"b\nc\";", "a|<b\nc>|;");
        check("a \"b\"{", "a|<b>|{");
        check("if ($a = \"b\")d {", "if|($a|=|<b>|)d|{");
        check("a \"b\"c;", "1: unexpected \"c\"");
        check("a \"b\"\"c\";", "1: unexpected \"\"\"");
        check("a\n\"b\"#\n;", "2: unexpected \"#\"");
        check("a \"b\"}", "1: unexpected \"}\"");
        check("a \"b\"é;", "1: unexpected \"é\"");
    }

    #[test]
    fn backslashes_skip_a_byte_and_some_pairs_are_decoded() {
        check("a \\;\\{\\ b;", "a|\\;\\{\\ b|;");
        check("a \\\"b \\'c;", "a|\"b|'c|;");
        check("a b\\tc\\rd\\ne;", "a|b\tc\rd\ne|;");
        check("a \"b\\\"c\" '\\'' '\\\\';", "a|<b\"c>|<'>|<\\>|;");
        check("a ^/b\\.c\\d;", "a|^/b\\.c\\d|;");
        check("a b\\\nc;", "a|b\\\nc|;");
        check("a \\", "1: unexpected end of file, expecting \";\" or \"}\"");
    }

    #[test]
    fn a_brace_after_a_dollar_is_of_the_word() {
        check("a ${b}c;", "a|${b}c|;");
        check("a $${b};", "a|$${b}|;");
        check("a ${{b;", "a|${{b|;");
        check("a b$ {", "a|b$|{");
        check("a \"${b}\";", "a|<${b}>|;");
        check("a $\\{;", "a|$\\{|;");
    }

    #[test]
    fn what_ends_a_directive_wrongly_is_named_with_its_line() {
        check(";", "1: unexpected \";\"");
        check("a;\n;", "a|; 2: unexpected \";\"");
        check("{", "1: unexpected \"{\"");
        check("a\nb\n}", "3: unexpected \"}\"");
        check("}", "}");
        check("a", "1: unexpected end of file, expecting \";\" or \"}\"");
        check("a\n", "2: unexpected end of file, expecting \";\" or \"}\"");
        check("a \"b;\n", "2: unexpected end of file, expecting \";\" or \"}\"");
        check("a # b;", "1: unexpected end of file, expecting \";\" or \"}\"");
        assert_eq!(read(b"a;b", true), "a|; 1: unexpected end of parameter, expecting \";\"");
    }

    #[test]
    fn a_word_must_fit_into_the_buffer() {
        let fits = "b".repeat(BUFFER - 1);
        check(&format!("a {fits};"), &format!("a|{fits}|;"));
        check(&format!("a\n{fits}bb;"), "2: too long parameter \"bbbbbbbbbb...\" started");
        check(
            &format!("a\n'{fits}bb\n"),
            "2: too long parameter, probably missing terminating \"'\" character",
        );
        let globals = format!("a {fits}bb;");
        assert_eq!(read(globals.as_bytes(), true), format!("a|{fits}bb|;"));
    }

    #[test]
    fn spots_are_where_words_begin() {
        let mut words = Vec::new();
        let mut lexer = Lexer::new(false);
        assert!(lexer.directive(b"a\n  \"b\"\n\tc;", &mut words).is_ok());
        let spots = words.iter().map(|Token { spot, .. }| (spot.line, spot.offset - spot.line_start));
        assert_eq!(spots.collect::<Vec<_>>(), [(1, 0), (2, 2), (3, 1)]);
    }
}
