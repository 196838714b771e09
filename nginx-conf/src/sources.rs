//! The files of a configuration, as they include each other: what is read of them next, and how much of them all is read.

use std::{io, path::PathBuf, vec};

use crate::{
    Files, Limits, Place, SourceFile,
    error::{At, Error, Kind, Measure},
    lexer::{End, Fault, Lexer, Spot, Token},
};

/// How much of an offending line is shown.
const MAX_SHOWN: usize = 200;

/// A place in one of the files that were read; none for what stands in no file.
pub(crate) type Site = Option<(u32, Spot)>;

/// All files.
pub(crate) struct Sources<'a> {
    files: &'a dyn Files,
    limits: &'a Limits,
    bytes: u64,
    looked_up: usize,
    read: Vec<SourceFile>,
    /// The files that we are in, each included by the one before.
    open: Vec<Source>,
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
    include: Site,
}

impl<'a> Sources<'a> {
    /// None is open yet.
    pub(crate) const fn new(files: &'a dyn Files, limits: &'a Limits) -> Self {
        Self { files, limits, bytes: 0, looked_up: 0, read: Vec::new(), open: Vec::new() }
    }

    /// Everything that was read, in that order.
    pub(crate) fn into_read(self) -> Vec<SourceFile> {
        self.read
    }

    /// Reads the next words, and what ends them; nothing where no file is open any more.
    pub(crate) fn directive(&mut self, words: &mut Vec<Token>) -> Result<Option<End>, Error> {
        let Some(source) = self.open.last_mut() else { return Ok(None) };
        let text = &self.read[source.file as usize].text;
        let end = source.lexer.directive(text, words);
        end.map(Some).map_err(|fault| self.fault(fault))
    }

    /// Reads the code of a Lua block whose brace was just read.
    pub(crate) fn lua(&mut self) -> Result<Option<Token>, Error> {
        let Some(source) = self.open.last_mut() else { return Ok(None) };
        let code = source.lexer.lua(&self.read[source.file as usize].text);
        code.map(Some).map_err(|fault| self.fault(fault))
    }

    /// Where we are in the file that is read; at its beginning where none is.
    pub(crate) fn here(&self) -> Spot {
        self.open.last().map_or(Spot::BEGINNING, |source| source.lexer.here())
    }

    /// A place in the file that is read.
    pub(crate) fn site(&self, spot: Spot) -> Site {
        self.open.last().map(|source| (source.file, spot))
    }

    /// The same, as it is kept.
    pub(crate) fn place(&self, spot: Spot) -> Place {
        place(self.open.last().map_or(0, |source| source.file), spot)
    }

    /// Whether what is read are the `-g` directives.
    pub(crate) fn is_in_globals(&self) -> bool {
        self.open.last().is_some_and(|source| source.is_globals)
    }

    /// How many blocks were open where the file was included that is read.
    pub(crate) fn floor(&self) -> usize {
        self.open.last().map_or(0, |source| source.floor)
    }

    /// Goes on in the `-g` directives, under that name.
    pub(crate) fn enter_globals(&mut self, name: &str, globals: &str, floor: usize) -> Result<(), Error> {
        let source = Source {
            file: 0,
            lexer: Lexer::new(true),
            is_globals: true,
            floor,
            rest: Vec::new().into_iter(),
            include: None,
        };
        self.enter(name.into(), globals.into(), source)
    }

    /// Reads a file, and goes on in it.
    pub(crate) fn open(&mut self, path: PathBuf, include: Site, floor: usize) -> Result<(), Error> {
        self.open_first(path, Vec::new().into_iter(), include, floor)
    }

    /// Reads what matches a pattern: goes on in the first of these files, and in each other at the end of the one before.
    pub(crate) fn open_all(&mut self, pattern: &str, spot: Spot, floor: usize) -> Result<(), Error> {
        let include = self.site(spot);
        self.look_up(include)?;
        let max = self.limits.files - self.looked_up;
        let mut found = self.files.glob(pattern, max).map_err(|error| {
            if is_too_large(&error) {
                return self.too_much(spot, Measure::Files, self.limits.files as u64);
            }
            let (cause, why) = (error.kind(), error.to_string());
            self.error(spot, Kind::Unsearchable { pattern: pattern.to_owned(), cause, why })
        })?;
        if found.len() > max {
            return Err(self.too_much(spot, Measure::Files, self.limits.files as u64));
        }
        found.shrink_to_fit();
        let mut found = found.into_iter();
        match found.next() {
            Some(first) => self.open_first(first, found, include, floor),
            None => Ok(()),
        }
    }

    /// At the end of a file: on with what its `include` means besides, or back to where that stands.
    pub(crate) fn leave(&mut self) -> Result<(), Error> {
        if let Some(Source { mut rest, include, floor, .. }) = self.open.pop()
            && let Some(next) = rest.next()
        {
            self.open_first(next, rest, include, floor)?;
        }
        Ok(())
    }

    fn open_first(
        &mut self,
        path: PathBuf,
        rest: vec::IntoIter<PathBuf>,
        include: Site,
        floor: usize,
    ) -> Result<(), Error> {
        let is_open = |source: &Source| self.read[source.file as usize].path == path;
        if self.open.iter().any(is_open) {
            return Err(self.error_at(include, Kind::Cycle(path)));
        }
        self.look_up(include)?;
        let left = self.limits.bytes - self.bytes;
        match self.files.read(&path, left) {
            Ok(text) if text.len() as u64 <= left => {
                let lexer = Lexer::new(false);
                self.enter(path, text, Source { file: 0, lexer, is_globals: false, floor, rest, include })
            }
            Err(error) if !is_too_large(&error) => {
                let (cause, why) = (error.kind(), error.to_string());
                Err(self.error_at(include, Kind::Unreadable { path, cause, why }))
            }
            _ => {
                let kind = Kind::Limit { what: Measure::Bytes, max: self.limits.bytes };
                Err(self.error_at(include, kind))
            }
        }
    }

    fn enter(&mut self, path: PathBuf, text: Vec<u8>, source: Source) -> Result<(), Error> {
        if self.open.len() > self.limits.includes {
            let kind = Kind::Limit { what: Measure::Includes, max: self.limits.includes as u64 };
            return Err(self.error_at(source.include, kind));
        }
        self.bytes += text.len() as u64;
        let file = u32::try_from(self.read.len()).unwrap_or(u32::MAX);
        self.read.push(SourceFile { path, text });
        self.open.push(Source { file, ..source });
        Ok(())
    }

    fn look_up(&mut self, include: Site) -> Result<(), Error> {
        if self.looked_up == self.limits.files {
            let kind = Kind::Limit { what: Measure::Files, max: self.limits.files as u64 };
            return Err(self.error_at(include, kind));
        }
        self.looked_up += 1;
        Ok(())
    }

    /// That there is too much of something, in the file that is read.
    pub(crate) fn too_much(&self, spot: Spot, what: Measure, max: u64) -> Error {
        self.error(spot, Kind::Limit { what, max })
    }

    fn fault(&self, Fault { kind, spot }: Fault) -> Error {
        self.error(spot, kind)
    }

    /// What is wrong in the file that is read.
    pub(crate) fn error(&self, spot: Spot, kind: Kind) -> Error {
        self.error_at(self.site(spot), kind)
    }

    fn error_at(&self, at: Site, kind: Kind) -> Error {
        let at = at.map(|(file, spot)| {
            let SourceFile { path, text } = &self.read[file as usize];
            let Place { line, column, .. } = place(file, spot);
            At { path: path.clone(), line, column, text: line_of(text, spot) }
        });
        Error { kind, at }
    }
}

fn is_too_large(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}

fn place(file: u32, spot: Spot) -> Place {
    let column = u32::try_from(spot.offset - spot.line_start + 1).unwrap_or(u32::MAX);
    Place { file, line: spot.line, column }
}

/// The line of a place, as far as it is shown.
fn line_of(text: &[u8], spot: Spot) -> String {
    let line = text[spot.line_start..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(&line[..line.len().min(MAX_SHOWN)]).into_owned()
}
