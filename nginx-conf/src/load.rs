//! Puts directives and blocks together, and follows includes. Without recursion, so that no nesting overflows the stack.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{ffi::OsStr, vec};

use compact_str::CompactString;

use crate::error::{At, Error, Kind, Measure};
use crate::lexer::{End, Fault, Lexer, Spot, Token};
use crate::{Config, Directive, Files, Limits, Place, SourceFile, Word};

/// What nginx calls the `-g` directives in its messages; they stand in [`Config::files`] under this name.
pub const GLOBALS: &str = "command line";

/// Blocks that hold values instead of directives, whether nginx follows an `include` there, and whether that may be a
/// pattern.
const VALUES: &[(&str, Option<Include>)] = &[
    ("types", Some(Include::Pattern)),
    ("map", Some(Include::Pattern)),
    ("geo", Some(Include::OneFile)),
    ("split_clients", None),
    ("charset_map", None),
];

/// Directives of nginx that must have a block.
const BLOCKS: &[&str] = &[
    "charset_map",
    "events",
    "geo",
    "http",
    "if",
    "limit_except",
    "location",
    "mail",
    "map",
    "split_clients",
    "stream",
    "types",
    "upstream",
];

/// How much of an offending line is shown.
const SHOWN: usize = 200;

/// Which files an `include` can mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    Pattern,
    OneFile,
}

/// Reads the configuration whose main file is `main`, and everything that it includes.
///
/// Relative includes begin in the directory of `main`, wherever they stand, as nginx has it. `globals` are the
/// directives of the option `-g`; they come first, as a file that is called [`GLOBALS`]. What `state` names in an
/// `upstream` is read as if it were included there, behind the `state` itself.
///
/// # Errors
/// nginx would not accept it either, a file cannot be read, or it is more than `limits` allow.
pub fn load(files: &dyn Files, main: &Path, globals: Option<&str>, limits: &Limits) -> Result<Config, Error> {
    let prefix = main.parent().unwrap_or(Path::new(""));
    let mut reader = Reader {
        files,
        prefix,
        limits,
        bytes: 0,
        looked_up: 0,
        words: 0,
        read: Vec::new(),
        sources: Vec::new(),
        blocks: vec![Block::default()],
    };
    if let Some(globals) = globals {
        reader.enter(GLOBALS.into(), globals.into(), true, Vec::new().into_iter(), None)?;
        reader.run()?;
    }
    reader.open(main.to_path_buf(), Vec::new().into_iter(), None)?;
    reader.run()?;
    let directives = reader.blocks.pop().map(|top| top.children).unwrap_or_default();
    Ok(Config { files: reader.read, directives })
}

struct Reader<'a> {
    files: &'a dyn Files,
    prefix: &'a Path,
    limits: &'a Limits,
    bytes: u64,
    looked_up: usize,
    words: usize,
    read: Vec<SourceFile>,
    /// The files that we are in, each included by the one before.
    sources: Vec<Source>,
    /// The blocks that we are in, the first being the top level.
    blocks: Vec<Block>,
}

/// A file that is being read.
struct Source {
    file: u32,
    lexer: Lexer,
    is_globals: bool,
    /// How many blocks were open where it was included: it can't close those.
    floor: usize,
    /// What the same `include` means besides.
    rest: vec::IntoIter<PathBuf>,
    /// Where that stands.
    include: Option<(u32, Spot)>,
}

/// A block that is being read.
#[derive(Default)]
struct Block {
    /// Nothing for the top level.
    opened_by: Option<Directive>,
    children: Vec<Directive>,
}

impl Block {
    fn name(&self) -> &str {
        self.opened_by.as_ref().map_or("", |directive| &directive.name.text)
    }

    /// Whether it holds values instead of directives, and then which includes are followed.
    fn values(&self) -> Option<Option<Include>> {
        VALUES.iter().find(|(name, _)| *name == self.name()).map(|(_, include)| *include)
    }
}

impl Reader<'_> {
    /// Reads until the files that were entered are at their end.
    fn run(&mut self) -> Result<(), Error> {
        let mut words = Vec::new();
        while let Some(source) = self.sources.last_mut() {
            let text = &self.read[source.file as usize].text;
            let end = source.lexer.directive(text, &mut words);
            let spot = source.lexer.here();
            match end.map_err(|fault| self.fault(fault))? {
                End::Semicolon => self.simple(&mut words)?,
                End::Open => self.block(&mut words)?,
                End::Close => self.close(spot)?,
                End::File => self.leave(spot)?,
            }
        }
        Ok(())
    }

    /// A directive that ends with a semicolon.
    fn simple(&mut self, words: &mut Vec<Token>) -> Result<(), Error> {
        self.count(words)?;
        let parent = self.parent();
        let values = parent.values();
        let is_include = words[0].text == b"include";
        let must_have_block = values.is_none() && needs_block(&words[0].text, parent.name());
        if must_have_block {
            return Err(self.error(self.named_by_nginx(words), Kind::NoBlock(lossy(&words[0].text))));
        }
        match values.unwrap_or(Some(Include::Pattern)) {
            Some(include) if is_include => self.include(words, include),
            _ => {
                let state = self.state_file(words);
                let directive = self.directive(words);
                self.add(directive);
                state.map_or(Ok(()), |(path, spot)| self.state(path, spot))
            }
        }
    }

    /// The file in which an `upstream` keeps its servers, and where it is named.
    fn state_file(&self, words: &[Token]) -> Option<(PathBuf, Spot)> {
        let [name, file] = words else { return None };
        let is_state = self.parent().name() == "upstream" && name.text == b"state";
        is_state.then(|| (self.prefix.join(OsStr::from_bytes(&file.text)), self.named_by_nginx(words)))
    }

    /// Reads such a file as if it were included. It need not be there before servers were set for the first time.
    fn state(&mut self, path: PathBuf, spot: Spot) -> Result<(), Error> {
        let at = self.sources.last().map(|source| (source.file, spot));
        match self.open(path, Vec::new().into_iter(), at) {
            Err(Error { kind: Kind::Unreadable { cause: io::ErrorKind::NotFound, .. }, .. }) => Ok(()),
            read => read,
        }
    }

    /// A directive that opens a block.
    fn block(&mut self, words: &mut Vec<Token>) -> Result<(), Error> {
        self.count(words)?;
        let source = &self.sources[self.sources.len() - 1];
        let spot = source.lexer.here();
        let brace = Spot { offset: spot.offset.saturating_sub(1), ..spot };
        if source.is_globals {
            return Err(self.error(brace, Kind::BlockInGlobals));
        }
        if self.parent().values().is_some() {
            return Err(self.error(brace, Kind::Unexpected('{')));
        }
        if words[0].text == b"include" {
            return Err(self.error(self.named_by_nginx(words), Kind::NotTerminated("include".into())));
        }
        if words[0].text.ends_with(b"_by_lua_block") {
            return self.lua(words);
        }
        // The first of them is the top level.
        if self.blocks.len() > self.limits.blocks {
            return Err(self.too_much(words[0].spot, Measure::Blocks, self.limits.blocks as u64));
        }
        let directive = self.directive(words);
        self.blocks.push(Block { opened_by: Some(directive), children: Vec::new() });
        Ok(())
    }

    fn lua(&mut self, words: &mut Vec<Token>) -> Result<(), Error> {
        let last = self.sources.len() - 1;
        let source = &mut self.sources[last];
        let code = source.lexer.lua(&self.read[source.file as usize].text);
        words.push(code.map_err(|fault| self.fault(fault))?);
        let directive = Directive { block: Some(Vec::new()), ..self.directive(words) };
        self.add(directive);
        Ok(())
    }

    fn close(&mut self, spot: Spot) -> Result<(), Error> {
        let floor = self.sources.last().map_or(0, |source| source.floor);
        if self.blocks.len() == floor {
            let brace = Spot { offset: spot.offset.saturating_sub(1), ..spot };
            return Err(self.error(brace, Kind::Unexpected('}')));
        }
        if let Some(Block { opened_by: Some(directive), mut children }) = self.blocks.pop() {
            children.shrink_to_fit();
            self.add(Directive { block: Some(children), ..directive });
        }
        Ok(())
    }

    /// The end of a file: on with what its `include` means besides, or back to where that stands.
    fn leave(&mut self, spot: Spot) -> Result<(), Error> {
        let floor = self.sources.last().map_or(0, |source| source.floor);
        if self.blocks.len() > floor {
            let block = self.parent();
            let line = block.opened_by.as_ref().map_or(0, |directive| directive.name.place.line);
            let kind = Kind::UnfinishedBlock { name: block.name().into(), line };
            return Err(self.error(spot, kind));
        }
        if let Some(Source { mut rest, include, .. }) = self.sources.pop()
            && let Some(next) = rest.next()
        {
            self.open(next, rest, include)?;
        }
        Ok(())
    }

    fn include(&mut self, words: &[Token], include: Include) -> Result<(), Error> {
        let spot = self.named_by_nginx(words);
        let [_, name] = words else { return Err(self.error(spot, Kind::IncludeArguments)) };
        // It is a string of C.
        let name = name.text.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = self.prefix.join(OsStr::from_bytes(name));
        let at = self.sources.last().map(|source| (source.file, spot));
        let is_pattern = path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
        if include == Include::OneFile || !is_pattern {
            return self.open(path, Vec::new().into_iter(), at);
        }
        self.looked_up(at)?;
        let pattern = path.to_string_lossy();
        let most = self.limits.files - self.looked_up;
        let mut found = self.files.glob(&pattern, most).map_err(|error| {
            if is_too_large(&error) {
                return self.too_much(spot, Measure::Files, self.limits.files as u64);
            }
            let (cause, why) = (error.kind(), error.to_string());
            self.error(spot, Kind::Unsearchable { pattern: pattern.clone().into_owned(), cause, why })
        })?;
        if found.len() > most {
            return Err(self.too_much(spot, Measure::Files, self.limits.files as u64));
        }
        found.shrink_to_fit();
        let mut found = found.into_iter();
        match found.next() {
            Some(first) => self.open(first, found, at),
            None => Ok(()),
        }
    }

    /// Reads a file, and goes on in it.
    fn open(
        &mut self,
        path: PathBuf,
        rest: vec::IntoIter<PathBuf>,
        include: Option<(u32, Spot)>,
    ) -> Result<(), Error> {
        let is_open = |source: &Source| self.read[source.file as usize].path == path;
        if self.sources.iter().any(is_open) {
            return Err(self.error_at(include, Kind::Cycle(path)));
        }
        self.looked_up(include)?;
        let left = self.limits.bytes - self.bytes;
        match self.files.read(&path, left) {
            Ok(text) if text.len() as u64 <= left => self.enter(path, text, false, rest, include),
            Err(error) if !is_too_large(&error) => {
                let (cause, why) = (error.kind(), error.to_string());
                Err(self.error_at(include, Kind::Unreadable { path, cause, why }))
            }
            _ => {
                let kind = Kind::Limit { what: Measure::Bytes, most: self.limits.bytes };
                Err(self.error_at(include, kind))
            }
        }
    }

    fn enter(
        &mut self,
        path: PathBuf,
        text: Vec<u8>,
        is_globals: bool,
        rest: vec::IntoIter<PathBuf>,
        include: Option<(u32, Spot)>,
    ) -> Result<(), Error> {
        if self.sources.len() > self.limits.includes {
            let kind = Kind::Limit { what: Measure::Includes, most: self.limits.includes as u64 };
            return Err(self.error_at(include, kind));
        }
        self.bytes += text.len() as u64;
        let file = u32::try_from(self.read.len()).unwrap_or(u32::MAX);
        self.read.push(SourceFile { path, text });
        let floor = self.blocks.len();
        self.sources.push(Source { file, lexer: Lexer::new(is_globals), is_globals, floor, rest, include });
        Ok(())
    }

    fn looked_up(&mut self, include: Option<(u32, Spot)>) -> Result<(), Error> {
        if self.looked_up == self.limits.files {
            let kind = Kind::Limit { what: Measure::Files, most: self.limits.files as u64 };
            return Err(self.error_at(include, kind));
        }
        self.looked_up += 1;
        Ok(())
    }

    fn count(&mut self, words: &[Token]) -> Result<(), Error> {
        self.words += words.len();
        if self.words > self.limits.words {
            return Err(self.too_much(words[0].spot, Measure::Words, self.limits.words as u64));
        }
        let mark = "\u{feff}".as_bytes();
        let has_mark = words[0].spot.offset == 0 && words[0].text.starts_with(mark);
        if has_mark && self.parent().values().is_none() {
            let kind = Kind::ByteOrderMark(lossy(&words[0].text[mark.len()..]));
            return Err(self.error(self.named_by_nginx(words), kind));
        }
        Ok(())
    }

    /// Where a directive stands whose end was just read: at its first word, unless it ends on another line, for that is
    /// the line that nginx names.
    fn named_by_nginx(&self, words: &[Token]) -> Spot {
        let first = words[0].spot;
        let end = self.sources.last().map_or(first, |source| source.lexer.here());
        if end.line == first.line { first } else { Spot { offset: end.offset.saturating_sub(1), ..end } }
    }

    /// Makes a directive of words. There is at least one: the lexer refuses a lone semicolon or brace.
    fn directive(&self, words: &mut Vec<Token>) -> Directive {
        let file = self.sources.last().map_or(0, |source| source.file);
        let mut words = words.drain(..).map(|token| Word {
            text: CompactString::from_utf8_lossy(&token.text),
            is_quoted: token.is_quoted,
            place: place(file, token.spot),
        });
        let name = words.next().expect("a directive has a name");
        Directive { name, args: words.collect(), block: None }
    }

    fn add(&mut self, directive: Directive) {
        if let Some(block) = self.blocks.last_mut() {
            block.children.push(directive);
        }
    }

    fn parent(&self) -> &Block {
        &self.blocks[self.blocks.len() - 1]
    }

    fn too_much(&self, spot: Spot, what: Measure, most: u64) -> Error {
        self.error(spot, Kind::Limit { what, most })
    }

    fn fault(&self, Fault { kind, spot }: Fault) -> Error {
        self.error(spot, kind)
    }

    fn error(&self, spot: Spot, kind: Kind) -> Error {
        self.error_at(self.sources.last().map(|source| (source.file, spot)), kind)
    }

    fn error_at(&self, at: Option<(u32, Spot)>, kind: Kind) -> Error {
        let at = at.map(|(file, spot)| {
            let SourceFile { path, text } = &self.read[file as usize];
            let Place { line, column, .. } = place(file, spot);
            At { path: path.clone(), line, column, text: line_of(text, spot) }
        });
        Error { kind, at }
    }
}

fn needs_block(name: &[u8], parent: &str) -> bool {
    let is_server = name == b"server" && parent != "upstream";
    is_server || name.ends_with(b"_by_lua_block") || BLOCKS.iter().any(|block| block.as_bytes() == name)
}

fn is_too_large(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn place(file: u32, spot: Spot) -> Place {
    let column = u32::try_from(spot.offset - spot.line_start + 1).unwrap_or(u32::MAX);
    Place { file, line: spot.line, column }
}

/// The line of a place, as far as it is shown.
fn line_of(text: &[u8], spot: Spot) -> String {
    let line = text[spot.line_start..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    lossy(&line[..line.len().min(SHOWN)])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::glob;

    /// The files of `/c`; the first is the main one.
    struct Memory(BTreeMap<PathBuf, Vec<u8>>);

    impl Files for Memory {
        fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not there");
            let text = self.0.get(path).ok_or_else(missing)?;
            if text.len() as u64 > most {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(text.clone())
        }

        fn glob(&self, pattern: &str, most: usize) -> io::Result<Vec<PathBuf>> {
            let names = || self.0.keys().filter_map(|path| path.file_name()).map(OsStr::to_os_string);
            glob::expand(pattern, most, |_| Ok(names().collect()), |path| self.0.contains_key(path))
        }
    }

    /// A small tree in one line: blocks in braces, directives ending with semicolons, words that need it in quotes.
    fn shown(directives: &[Directive]) -> String {
        let shown = directives.iter().map(|directive| {
            let words = [&directive.name].into_iter().chain(&directive.args).map(|word| word.text.as_str());
            let words = words.collect::<Vec<_>>().join(" ");
            match &directive.block {
                Some(children) => format!("{words}{{{}}}", shown(children)),
                None => format!("{words};"),
            }
        });
        shown.collect()
    }

    const LIMITS: Limits = Limits { bytes: 100, files: 5, words: 20, blocks: 3, includes: 2 };

    fn read(files: &[(&str, &str)], globals: Option<&str>, limits: &Limits) -> Result<Config, Error> {
        let paths = files.iter().map(|(name, text)| (Path::new("/c").join(name), text.as_bytes().to_vec()));
        load(&Memory(paths.collect()), &Path::new("/c").join(files[0].0), globals, limits)
    }

    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &str) {
        let found = match read(files, None, &LIMITS) {
            Ok(config) => shown(&config.directives),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{files:?}");
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        check_files(&[("main", text)], expected);
    }

    #[test]
    fn blocks_hold_directives() {
        check("", "");
        check("a b; c { d; e { } } f;", "a b;c{d;e{}}f;");
        check("a { b {", "/c/main:1:8: unexpected end of file, expecting \"}\" for the \"b\" of line 1");
        check("\n}", "/c/main:2:1: unexpected \"}\"");
        check("a { } }", "/c/main:1:7: unexpected \"}\"");
        check("http;", "/c/main:1:1: directive \"http\" has no opening \"{\"");
        check("upstream { server a; }", "upstream{server a;}");
        check("server a;", "/c/main:1:1: directive \"server\" has no opening \"{\"");
    }

    #[test]
    fn blocks_of_values_hold_no_blocks() {
        check("map { server a; if b; }", "map{server a;if b;}");
        check("map { a {", "/c/main:1:9: unexpected \"{\"");
        check("split_clients { include a; }", "split_clients{include a;}");
    }

    #[test]
    fn lua_code_is_the_last_argument() {
        check("content_by_lua_block { a {} }b;", "content_by_lua_block  a {} {}b;");
        check("set_by_lua_block $a { }", "set_by_lua_block $a  {}");
        check("set_by_lua_block a;", "/c/main:1:1: directive \"set_by_lua_block\" has no opening \"{\"");
    }

    #[test]
    fn a_byte_order_mark_is_of_the_first_word() {
        check(
            "\u{feff}a b;",
            "/c/main:1:1: unknown directive \"a\": the file begins with a byte order mark, save it without one",
        );
        check(
            "\u{feff}# a\nb;",
            "/c/main:2:2: unknown directive \"#\": the file begins with a byte order mark, save it without one",
        );
        check_files(&[("main", "map { include a; }"), ("a", "\u{feff}b c;")], "map{\u{feff}b c;}");
    }

    #[test]
    fn includes_are_replaced_by_what_they_name() {
        check_files(&[("main", "a; include b; c;"), ("b", "d { }")], "a;d{}c;");
        check_files(&[("main", "a { include /c/b; }"), ("b", "d;")], "a{d;}");
        check_files(&[("main", "include *.x;"), ("2.x", "b;"), ("1.x", "a;"), (".3.x", "c;")], "a;b;");
        check_files(&[("main", "include *.x; a;")], "a;");
        check_files(&[("main", "map { include *.x; }"), ("1.x", "a b;")], "map{a b;}");
        check_files(&[("main", "include b\0x;"), ("b", "d;")], "d;");
        check_files(&[("main", "include b; include b;"), ("b", "d;")], "d;d;");
        check("\ninclude b;", "/c/main:2:1: cannot read /c/b: it is not there");
        check("geo { include *.x; }", "/c/main:1:7: cannot read /c/*.x: it is not there");
        check("include;", "/c/main:1:1: invalid number of arguments in \"include\" directive");
        check("include a b;", "/c/main:1:1: invalid number of arguments in \"include\" directive");
        check("include a { }", "/c/main:1:1: directive \"include\" is not terminated by \";\"");
    }

    #[test]
    fn the_servers_of_a_state_file_stand_behind_it() {
        let file = ("b", "server c;\nserver d down;\n");
        check_files(
            &[("main", "upstream a { state b; }"), file],
            "upstream a{state b;server c;server d down;}",
        );
        check_files(
            &[("main", "upstream a { state /c/b; }"), file],
            "upstream a{state /c/b;server c;server d down;}",
        );
        check("upstream a { state none; }", "upstream a{state none;}");
        // Elsewhere it is something else.
        check_files(&[("main", "status { state b; }"), file], "status{state b;}");
        check_files(&[("main", "upstream a { state b c; }"), file], "upstream a{state b c;}");
        check_files(
            &[("main", "upstream a { state b; }"), ("b", "server")],
            "/c/b:1:7: unexpected end of file, expecting \";\" or \"}\"",
        );
    }

    #[test]
    fn blocks_end_in_the_file_in_which_they_begin() {
        let unfinished = "/c/b:1:4: unexpected end of file, expecting \"}\" for the \"d\" of line 1";
        check_files(&[("main", "include b; }"), ("b", "d {")], unfinished);
        check_files(&[("main", "a { include b;"), ("b", "}")], "/c/b:1:1: unexpected \"}\"");
    }

    #[test]
    fn includes_that_go_round_are_refused() {
        let round = "includes itself: nginx would open it until it has no more file descriptors";
        check("include main;", &format!("/c/main:1:1: /c/main {round}"));
        check_files(
            &[("main", "include b;"), ("b", "\ninclude main;")],
            &format!("/c/b:2:1: /c/main {round}"),
        );
    }

    #[test]
    fn globals_come_first_and_hold_no_blocks() {
        let config = read(&[("main", "a;")], Some("b 'c;'; d;"), &LIMITS).expect("no error");
        assert_eq!(shown(&config.directives), "b c;;d;a;");
        assert_eq!(config.files[0].path, Path::new(GLOBALS));
        let errors = [
            ("a { }", "command line:1:3: block directives are not supported in -g option"),
            ("a", "command line:1:2: unexpected end of parameter, expecting \";\""),
        ];
        for (globals, expected) in errors {
            let error = read(&[("main", "")], Some(globals), &LIMITS).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn places_and_the_lines_of_errors_are_kept() {
        let config =
            read(&[("main", "a\n b;\ninclude c;"), ("c", "\n\td;")], None, &LIMITS).expect("no error");
        let at = |file, line, column| Place { file, line, column };
        assert_eq!(config.directives[0].place(), at(0, 1, 1));
        assert_eq!(config.directives[0].args[0].place, at(0, 2, 2));
        assert_eq!(config.directives[1].place(), at(1, 2, 2));
        let error =
            read(&[("main", "a;\n\tb \"c\"d;\r\n")], None, &LIMITS).expect_err("a letter after a quote");
        let at = error.at.expect("it has a place");
        assert_eq!((at.line, at.column, at.text.as_str()), (2, 7, "\tb \"c\"d;"));
    }

    #[test]
    fn what_nobody_writes_is_too_much() {
        let too_much = |at: &str, most: usize, what: &str| {
            format!("{at}more than {most} {what}: that is too much for a configuration")
        };
        check(&"#".repeat(101), &too_much("", 100, "bytes in all files"));
        check(&"a;".repeat(21), &too_much("/c/main:1:41: ", 20, "words"));
        check("a{b{c{}}}", "a{b{c{}}}");
        check("a{b{c{d{}}}}", &too_much("/c/main:1:7: ", 3, "blocks inside each other"));
        check_files(
            &[("main", "include b;include b;include b;include b;include b;"), ("b", "")],
            &too_much("/c/main:1:41: ", 5, "files and patterns"),
        );
        let nested = [("main", "include b;"), ("b", "include c;"), ("c", "include d;"), ("d", "")];
        check_files(&nested, &too_much("/c/c:1:1: ", 2, "files that include each other"));
        check_files(&nested[1..], "");
    }
}
