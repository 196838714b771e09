//! The code of a `*_by_lua_block`, whose end is found as the Lua module finds it: braces are counted outside of
//! strings, long brackets and comments.

use crate::error::Kind;
use crate::lexer::{Fault, Lexer, Token};

impl Lexer {
    /// Reads Lua code up to the brace that closes its block, and that brace.
    pub(crate) fn lua(&mut self, text: &[u8]) -> Result<Token, Fault> {
        let start = self.here();
        let mut open = 1_usize;
        loop {
            let spot = self.here();
            let rest = &text[spot.offset..];
            let length = match rest {
                [] => return Err(Fault { kind: Kind::UnfinishedLua, spot: start }),
                [b'}', ..] if open == 1 => break,
                [b'}', ..] => {
                    open -= 1;
                    1
                }
                [b'{', ..] => {
                    open += 1;
                    1
                }
                // Behind a string without an end, every such quote is escaped: none of them begins one that ends.
                [quote @ (b'"' | b'\''), ..] => self.find(*quote, || string(rest)).unwrap_or(1),
                [b'-', b'-', tail @ ..] => match long_bracket(tail) {
                    Some(bracket) => 2 + bracket.map_err(|kind| Fault { kind, spot })?,
                    None => {
                        let end = self.find(b'\n', || rest.iter().position(|byte| *byte == b'\n'));
                        end.map_or(2, |end| end + 1)
                    }
                },
                [b'[', ..] => match long_bracket(rest) {
                    Some(bracket) => bracket.map_err(|kind| Fault { kind, spot })?,
                    None => 1,
                },
                _ => 1,
            };
            for byte in &rest[..length] {
                self.step(*byte);
            }
        }
        let code = text[start.offset..self.here().offset].to_vec();
        self.step(b'}');
        Ok(Token { text: code, is_quoted: true, spot: start })
    }
}

/// How long the string is with which `text` begins, if it ends in its line. Lua lets an escaped end of line stand in a string;
/// the Lua module of nginx does not.
fn string(text: &[u8]) -> Option<usize> {
    let (quote, mut at) = (text[0], 1);
    loop {
        match text.get(at)? {
            b'\n' => return None,
            b'\\' if text.get(at + 1) != Some(&b'\n') => at += 2,
            byte if *byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// How long the `[==[ ... ]==]` is with which `text` begins, if it begins with one.
fn long_bracket(text: &[u8]) -> Option<Result<usize, Kind>> {
    let level = text.strip_prefix(b"[")?.iter().take_while(|byte| **byte == b'=').count();
    if text.get(level + 1) != Some(&b'[') {
        return None;
    }
    let closing = format!("]{}]", "=".repeat(level));
    let end = text.windows(closing.len()).position(|window| window == closing.as_bytes());
    Some(end.map(|at| at + closing.len()).ok_or(Kind::UnfinishedLongBracket(closing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a block whose opening brace is read already, and what follows it.
    fn read(text: &str) -> String {
        let mut lexer = Lexer::new(false);
        match lexer.lua(text.as_bytes()) {
            Ok(code) => {
                let code = String::from_utf8(code.text).expect("it was UTF-8");
                format!("<{code}>{}", &text[lexer.here().offset..])
            }
            Err(Fault { kind, spot }) => format!("{}: {kind}", spot.line),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text), expected, "{text:?}");
    }

    #[test]
    fn braces_are_counted() {
        check("}", "<>");
        check(" a = { {} } } b;", "< a = { {} } > b;");
        check("a }}", "<a >}");
        check("\n a { }\n", "1: unexpected end of file, expecting terminating characters for lua code block");
    }

    #[test]
    fn strings_comments_and_long_brackets_hide_them() {
        check("a = \"}\" }", "<a = \"}\" >");
        check("a = '{\"' }", "<a = '{\"' >");
        check("a = '\\'}' }", "<a = '\\'}' >");
        check("-- } '\n }", "<-- } '\n >");
        check("--[[ }\n} ]] }", "<--[[ }\n} ]] >");
        check("--[==[ ]] } ]==] }", "<--[==[ ]] } ]==] >");
        check("--[= }\n }", "<--[= }\n >");
        check("a = [[ } ]] }", "<a = [[ } ]] >");
        check("a = [=[ ]] } ]=] }", "<a = [=[ ]] } ]=] >");
        check("a[b[1]] }", "<a[b[1]] >");
        check("a - -{ } }", "<a - -{ } >");
    }

    #[test]
    fn what_does_not_end_is_an_error_where_it_begins() {
        check("\n[[ }", "2: Lua code block missing the closing long bracket \"]]\"");
        check("\n\n--[=[ ]] }", "3: Lua code block missing the closing long bracket \"]=]\"");
        // A lone quote hides nothing, and a string ends in its line.
        check("a = \" }\n\" }", "<a = \" >\n\" }");
        check("it's }\n'} }' }", "<it's >\n'} }' }");
        check("it's {\n'}' }} }", "<it's {\n'}' }> }");
        check("a = 'b\\\n}' }", "<a = 'b\\\n>' }");
        check("it's }", "<it's >");
        check("it's \\' \\'} b", "<it's \\' \\'> b");
        check("-- } -- '}'", "<-- > -- '}'");
    }
}
