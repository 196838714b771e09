//! Snippets of configuration made by chance, the same on every run.

/// Words, most of them harmless.
const WORDS: &[&[u8]] = &[
    b"a",
    b"bc",
    b"text/html",
    b"$x",
    b"${x}",
    b"${x}y",
    b"\"a b\"",
    b"'c;d'",
    b"\"\"",
    b"\"e\\\"f\"",
    b"\\;",
    b"a\\ b",
    b"\\\"",
    b"a\\\nb",
    b"\"a\nb\"",
    b"\xc3\xa9",
    b"\xff",
    b"a}b",
    b"a#b",
    b"a\"b",
    b"a'b",
    b"~^/(a|b)$",
    b"\"~a{2}\"",
    b"(a",
    b"b)",
    b"\"a\")",
    b"include",
    b"\0",
];

/// What stands between them.
const SPACES: &[&[u8]] = &[b" ", b" ", b"  ", b"\t", b"\n", b"\r\n", b" # c;\n", b" #\"{\n"];

/// What may be too much.
const CHAOS: &[&[u8]] = &[
    b";",
    b"{",
    b"}",
    b"\"",
    b"'",
    b"\\",
    b"#",
    b"$",
    b"${",
    b")",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\"\"",
    b"\\\\",
    b"${{",
    b"\xef\xbb\xbf",
    b"};",
    b"{}",
    b"\"a\"b",
];

/// What makes Lua code hard to find the end of.
const LUA: &[&str] = &[
    "{", "}", "{}", "\"", "'", "\\", "\\\"", "[[", "]]", "[=[", "]=]", "[", "]", "--", "--[[", "--[=[", "\n",
    " ", "a", "\"}\"", "'{'", "-", "=", "#", ";", "$a",
];

/// Xorshift: enough for snippets, and no dependency.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Less than `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    fn one_of(&mut self, of: &[&'static [u8]]) -> &'static [u8] {
        of[self.below(of.len())]
    }

    /// A few directives; something is wrong in about half of them.
    pub(crate) fn statements(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..=self.below(4) {
            for _ in 0..=self.below(4) {
                text.extend_from_slice(self.one_of(WORDS));
                text.extend_from_slice(if self.below(10) == 0 { b"" } else { self.one_of(SPACES) });
                if self.below(20) == 0 {
                    text.extend_from_slice(self.one_of(CHAOS));
                }
            }
            text.extend_from_slice(if self.below(20) == 0 { b"" } else { b";" });
        }
        text
    }

    /// The code of a block of Lua; it ends in about half of them.
    pub(crate) fn lua(&mut self) -> String {
        (0..=self.below(12)).map(|_| LUA[self.below(LUA.len())]).collect()
    }

    /// A text with one to three bytes or so replaced, taken out or added.
    pub(crate) fn mutated(&mut self, text: &[u8]) -> Vec<u8> {
        let mut mutated = text.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(mutated.len());
            let removed = self.below(2);
            let added = if self.below(4) == 0 { b"" } else { self.one_of(CHAOS) };
            mutated.splice(at..at + removed, added.iter().copied());
        }
        if self.below(10) == 0 {
            mutated.truncate(self.below(mutated.len()));
        }
        mutated
    }
}
