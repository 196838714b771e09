//! What can be wrong with a configuration, in nginx's words where nginx would refuse it too.

use std::{fmt, io, path::PathBuf};

/// Why a configuration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", At::prefix(at.as_ref()))]
pub struct Error {
    /// What is wrong.
    pub kind: Kind,
    /// Where; nothing when the main file itself could not be read.
    pub at: Option<At>,
}

/// A place with all that is needed to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file, as nginx would name it.
    pub path: PathBuf,
    /// From 1: the line that nginx would name.
    pub line: u32,
    /// In bytes, from 1.
    pub column: u32,
    /// The line itself, without its end and at most 200 bytes of it from its beginning.
    pub text: String,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// A character where nginx does not allow it.
    #[error("unexpected \"{0}\"")]
    Unexpected(char),
    /// A file ends, or the `-g` directives do, inside a directive.
    #[error("unexpected end of {}, expecting {expecting}", if *.in_globals { "parameter" } else { "file" })]
    UnfinishedDirective {
        /// What could have followed.
        expecting: &'static str,
        /// Whether that was in the `-g` directives.
        in_globals: bool,
    },
    /// A file ends inside a block that begins in it.
    #[error("unexpected end of file, expecting \"}}\" for the \"{name}\" of line {line}")]
    UnfinishedBlock {
        /// What the block is called.
        name: String,
        /// Where it begins.
        line: u32,
    },
    /// A word that does not fit into nginx's buffer of 4096 bytes.
    #[error("too long parameter \"{start}...\" started")]
    TooLongWord {
        /// How it begins.
        start: String,
    },
    /// A word in quotes that does not fit into nginx's buffer of 4096 bytes.
    #[error("too long parameter, probably missing terminating \"{quote}\" character")]
    TooLongQuoted {
        /// The quote with which it begins.
        quote: char,
    },
    /// Lua code that does not end.
    #[error("unexpected end of file, expecting terminating characters for lua code block")]
    UnfinishedLua,
    /// A long string or comment in Lua code that does not end.
    #[error("Lua code block missing the closing long bracket \"{0}\"")]
    UnfinishedLongBracket(String),
    /// A block in the `-g` directives.
    #[error("block directives are not supported in -g option")]
    BlockInGlobals,
    /// A directive that ends with a semicolon although it is a block.
    #[error("directive \"{0}\" has no opening \"{{\"")]
    NoBlock(String),
    /// A directive that has a block although it can have none.
    #[error("directive \"{0}\" is not terminated by \";\"")]
    NotTerminated(String),
    /// The first word of a file has a byte order mark before it, so nginx does not know it.
    #[error("unknown directive \"{0}\": the file begins with a byte order mark, save it without one")]
    ByteOrderMark(String),
    /// An `include` without exactly one argument.
    #[error("invalid number of arguments in \"include\" directive")]
    IncludeArguments,
    /// A file could not be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// As the system classifies it.
        cause: io::ErrorKind,
        /// As the system says it.
        why: String,
    },
    /// A pattern of files could not be followed.
    #[error("cannot look for {pattern}: {why}")]
    Unsearchable {
        /// Which.
        pattern: String,
        /// As the system classifies it.
        cause: io::ErrorKind,
        /// As the system says it.
        why: String,
    },
    /// A file includes itself, directly or through others.
    #[error("{} includes itself: nginx would open it until it has no more file descriptors", .0.display())]
    Cycle(PathBuf),
    /// More than we are willing to read.
    #[error("more than {max} {what}: that is too much for a configuration")]
    Limit {
        /// What there is too much of.
        what: Measure,
        /// How much is allowed.
        max: u64,
    },
    /// What should be the output of `nginx -T` names no file.
    #[error("no line \"# configuration file PATH:\": this is not the output of nginx -T")]
    NotADump,
}

/// What [`crate::Limits`] limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// Bytes of all files.
    Bytes,
    /// Files, and searches for files.
    Files,
    /// Words of all directives.
    Words,
    /// Blocks inside each other.
    Blocks,
    /// Files that include each other.
    Includes,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes in all files",
            Self::Files => "files and patterns",
            Self::Words => "words",
            Self::Blocks => "blocks inside each other",
            Self::Includes => "files that include each other",
        })
    }
}

impl Error {
    /// What is wrong and where, without a word of the file: one that is no configuration may hold anything.
    #[must_use]
    pub fn without_words(&self) -> String {
        let what = match &self.kind {
            Kind::Unexpected(_) => "unexpected character",
            Kind::UnfinishedBlock { .. } => "unexpected end of file in a block",
            Kind::TooLongWord { .. } => "too long parameter",
            Kind::UnfinishedLongBracket(_) => "Lua code block missing the closing long bracket",
            Kind::NoBlock(_) => "a directive has no opening \"{\"",
            Kind::NotTerminated(_) => "a directive is not terminated by \";\"",
            Kind::ByteOrderMark(_) => "the file begins with a byte order mark, save it without one",
            Kind::UnfinishedDirective { .. }
            | Kind::TooLongQuoted { .. }
            | Kind::UnfinishedLua
            | Kind::BlockInGlobals
            | Kind::IncludeArguments
            | Kind::Unreadable { .. }
            | Kind::Unsearchable { .. }
            | Kind::Cycle(_)
            | Kind::Limit { .. }
            | Kind::NotADump => return self.to_string(),
        };
        format!("{}{what}", At::prefix(self.at.as_ref()))
    }
}

impl At {
    fn prefix(at: Option<&Self>) -> String {
        at.map(|at| format!("{at}: ")).unwrap_or_default()
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, expected: &str) {
        let at = At { path: "/c/nginx.conf".into(), line: 3, column: 7, text: "a b".into() };
        assert_eq!(Error { kind: kind.clone(), at: None }.to_string(), expected);
        assert_eq!(Error { kind, at: Some(at) }.to_string(), format!("/c/nginx.conf:3:7: {expected}"));
    }

    #[test]
    fn messages_say_where_and_what_as_nginx_does() {
        check(Kind::Unexpected(';'), "unexpected \";\"");
        let unfinished = |in_globals| Kind::UnfinishedDirective { expecting: "\";\"", in_globals };
        check(unfinished(false), "unexpected end of file, expecting \";\"");
        check(unfinished(true), "unexpected end of parameter, expecting \";\"");
        check(
            Kind::UnfinishedBlock { name: "http".into(), line: 1 },
            "unexpected end of file, expecting \"}\" for the \"http\" of line 1",
        );
        check(Kind::NoBlock("http".into()), "directive \"http\" has no opening \"{\"");
        check(Kind::NotTerminated("include".into()), "directive \"include\" is not terminated by \";\"");
        let (path, why) = (PathBuf::from("/c/a"), "Permission denied".to_owned());
        check(
            Kind::Unreadable { path, cause: io::ErrorKind::PermissionDenied, why },
            "cannot read /c/a: Permission denied",
        );
    }

    #[test]
    fn a_file_that_is_no_configuration_is_not_quoted() {
        let secret = || "hunter2".to_owned();
        let kinds = [
            Kind::UnfinishedBlock { name: secret(), line: 1 },
            Kind::TooLongWord { start: secret() },
            Kind::UnfinishedLongBracket(secret()),
            Kind::NoBlock(secret()),
            Kind::NotTerminated(secret()),
            Kind::ByteOrderMark(secret()),
        ];
        for kind in kinds {
            let at = At { path: "/c/a".into(), line: 3, column: 7, text: secret() };
            let shown = Error { kind, at: Some(at) }.without_words();
            assert!(shown.starts_with("/c/a:3:7: ") && !shown.contains("hunter2"), "{shown}");
        }
        let unreadable = Kind::Unreadable {
            path: "/c/b".into(),
            cause: io::ErrorKind::PermissionDenied,
            why: "Permission denied".into(),
        };
        let error = Error { kind: unreadable, at: None };
        assert_eq!(error.without_words(), error.to_string());
    }

    #[test]
    fn limits_say_what_there_is_too_much_of() {
        for (what, expected) in [
            (Measure::Bytes, "bytes in all files"),
            (Measure::Files, "files and patterns"),
            (Measure::Words, "words"),
            (Measure::Blocks, "blocks inside each other"),
            (Measure::Includes, "files that include each other"),
        ] {
            check(
                Kind::Limit { what, max: 5 },
                &format!("more than 5 {expected}: that is too much for a configuration"),
            );
        }
    }
}
