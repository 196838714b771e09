//! What a configuration is made of: directives, their arguments and blocks, in the order in which nginx sees them.

use std::path::PathBuf;

use compact_str::CompactString;

/// A configuration with everything that it includes: included directives stand where the `include` stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What was read, in that order; [`Place::file`] is an index into it.
    pub files: Vec<SourceFile>,
    /// The top level ("main").
    pub directives: Vec<Directive>,
}

/// A file that was read, once for each time that it was included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As nginx would name it.
    pub path: PathBuf,
    /// What it holds.
    pub text: Vec<u8>,
}

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index into [`Config::files`].
    pub file: u32,
    /// From 1.
    pub line: u32,
    /// In bytes, from 1.
    pub column: u32,
}

/// A word after quotes and escapes were taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Bytes that are no UTF-8 are replaced. Of up to 24 bytes it takes no memory of its own: a large configuration has
    /// millions of words.
    pub text: CompactString,
    /// Whether it was written in quotes.
    pub is_quoted: bool,
    /// Where it begins.
    pub place: Place,
}

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What it is called.
    pub name: Word,
    /// What follows the name; the code of a `*_by_lua_block` is the last of them, as nginx has it.
    pub args: Vec<Word>,
    /// What stands in its braces, if it has any; empty for the code of a `*_by_lua_block`.
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    /// Where it begins.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.name.place
    }

    /// The `n`th argument, from 0.
    #[must_use]
    pub fn arg(&self, n: usize) -> Option<&str> {
        self.args.get(n).map(|word| word.text.as_str())
    }

    /// What stands in its braces; nothing where it has none.
    #[must_use]
    pub fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Directive, Word};

    #[test]
    fn millions_of_short_words_take_no_memory_but_their_own_places() {
        assert_eq!((size_of::<Word>(), size_of::<Directive>()), (40, 88));
        let word = |text: &str| Word { text: text.into(), is_quoted: false, place: super::Place::default() };
        assert!(!word("proxy_set_header_24bytes").text.is_heap_allocated());
        assert!(word("a word that is longer than those").text.is_heap_allocated());
    }
}
