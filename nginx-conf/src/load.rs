//! Puts directives and blocks together, and follows includes. Without recursion, so that no nesting overflows the stack.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use compact_str::CompactString;

use crate::{
    Config, Directive, Files, Limits, Word,
    blocks::{self, Include},
    error::{Error, Kind, Measure},
    lexer::{End, Spot, Token},
    sources::Sources,
};

/// What nginx calls the `-g` directives in its messages; they stand in [`Config::files`] under this name.
pub const GLOBALS: &str = "command line";

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
    let sources = Sources::new(files, limits);
    let mut loader = Loader { sources, prefix, limits, words: 0, blocks: vec![Block::default()] };
    if let Some(globals) = globals {
        loader.sources.enter_globals(GLOBALS, globals, loader.blocks.len())?;
        loader.run()?;
    }
    loader.sources.open(main.to_path_buf(), None, loader.blocks.len())?;
    loader.run()?;
    let directives = loader.blocks.pop().map(|top| top.children).unwrap_or_default();
    Ok(Config { files: loader.sources.into_read(), directives })
}

struct Loader<'a> {
    sources: Sources<'a>,
    prefix: &'a Path,
    limits: &'a Limits,
    words: usize,
    /// The blocks that we are in, the first being the top level.
    blocks: Vec<Block>,
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
        blocks::values(self.name())
    }
}

impl Loader<'_> {
    /// Reads until the files that were entered are at their end.
    fn run(&mut self) -> Result<(), Error> {
        let mut words = Vec::new();
        while let Some(end) = self.sources.directive(&mut words)? {
            match end {
                End::Semicolon => self.simple(&mut words)?,
                End::Open => self.block(&mut words)?,
                End::Close => self.close()?,
                End::File => self.leave()?,
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
        let must_have_block = values.is_none() && blocks::needs_block(&words[0].text, parent.name());
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
        match self.sources.open(path, self.sources.site(spot), self.blocks.len()) {
            Err(Error { kind: Kind::Unreadable { cause: io::ErrorKind::NotFound, .. }, .. }) => Ok(()),
            read => read,
        }
    }

    /// A directive that opens a block.
    fn block(&mut self, words: &mut Vec<Token>) -> Result<(), Error> {
        self.count(words)?;
        let brace = self.before_here();
        if self.sources.is_in_globals() {
            return Err(self.error(brace, Kind::BlockInGlobals));
        }
        if self.parent().values().is_some() {
            return Err(self.error(brace, Kind::Unexpected('{')));
        }
        if words[0].text == b"include" {
            return Err(self.error(self.named_by_nginx(words), Kind::NotTerminated("include".into())));
        }
        if blocks::is_lua(&words[0].text) {
            return self.lua(words);
        }
        // The first of them is the top level.
        if self.blocks.len() > self.limits.blocks {
            let max = self.limits.blocks as u64;
            return Err(self.sources.too_much(words[0].spot, Measure::Blocks, max));
        }
        let directive = self.directive(words);
        self.blocks.push(Block { opened_by: Some(directive), children: Vec::new() });
        Ok(())
    }

    fn lua(&mut self, words: &mut Vec<Token>) -> Result<(), Error> {
        words.extend(self.sources.lua()?);
        let directive = Directive { block: Some(Vec::new()), ..self.directive(words) };
        self.add(directive);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        if self.blocks.len() == self.sources.floor() {
            return Err(self.error(self.before_here(), Kind::Unexpected('}')));
        }
        if let Some(Block { opened_by: Some(directive), mut children }) = self.blocks.pop() {
            children.shrink_to_fit();
            self.add(Directive { block: Some(children), ..directive });
        }
        Ok(())
    }

    /// The end of a file, where all blocks must be closed that were opened in it.
    fn leave(&mut self) -> Result<(), Error> {
        if self.blocks.len() > self.sources.floor() {
            let block = self.parent();
            let line = block.opened_by.as_ref().map_or(0, |directive| directive.name.place.line);
            let kind = Kind::UnfinishedBlock { name: block.name().into(), line };
            return Err(self.error(self.here(), kind));
        }
        self.sources.leave()
    }

    fn include(&mut self, words: &[Token], include: Include) -> Result<(), Error> {
        let spot = self.named_by_nginx(words);
        let [_, name] = words else { return Err(self.error(spot, Kind::IncludeArguments)) };
        // It is a string of C.
        let name = name.text.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = self.prefix.join(OsStr::from_bytes(name));
        let is_pattern = path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
        if include == Include::OneFile || !is_pattern {
            return self.sources.open(path, self.sources.site(spot), self.blocks.len());
        }
        self.sources.open_all(&path.to_string_lossy(), spot, self.blocks.len())
    }

    fn count(&mut self, words: &[Token]) -> Result<(), Error> {
        self.words += words.len();
        if self.words > self.limits.words {
            let max = self.limits.words as u64;
            return Err(self.sources.too_much(words[0].spot, Measure::Words, max));
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
        if self.here().line == first.line { first } else { self.before_here() }
    }

    fn here(&self) -> Spot {
        self.sources.here()
    }

    /// At what was read last: a brace, or a semicolon.
    fn before_here(&self) -> Spot {
        let here = self.here();
        Spot { offset: here.offset.saturating_sub(1), ..here }
    }

    /// Makes a directive of words. There is at least one: the lexer refuses a lone semicolon or brace.
    fn directive(&self, words: &mut Vec<Token>) -> Directive {
        let mut words = words.drain(..).map(|token| Word {
            text: CompactString::from_utf8_lossy(&token.text),
            is_quoted: token.is_quoted,
            place: self.sources.place(token.spot),
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

    fn error(&self, spot: Spot, kind: Kind) -> Error {
        self.sources.error(spot, kind)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Place, glob};

    /// The files of `/c`; the first is the main one.
    struct Memory(BTreeMap<PathBuf, Vec<u8>>);

    impl Files for Memory {
        fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not there");
            let text = self.0.get(path).ok_or_else(missing)?;
            if text.len() as u64 > max {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(text.clone())
        }

        fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>> {
            let names = || self.0.keys().filter_map(|path| path.file_name()).map(OsStr::to_os_string);
            glob::expand(pattern, max, |_| Ok(names().collect()), |path| self.0.contains_key(path))
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
        check("http { server a; }", "/c/main:1:8: directive \"server\" has no opening \"{\"");
        check("server a;", "server a;");
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
        let too_much = |at: &str, max: usize, what: &str| {
            format!("{at}more than {max} {what}: that is too much for a configuration")
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
