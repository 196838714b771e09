//! Where a configuration comes from: a file, a directory, or what `nginx -T` printed; and which files are meant by the paths in it.

use std::{
    cell::RefCell,
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use nginx_conf::{Disk, Error, Files, Kind, Limits, load, load_dump};

use super::{
    finding::{Finding, Shown},
    rules,
    subject::Subject,
};
use crate::nginx::version::Version;

/// How a file begins that holds what `nginx -T` printed, with or without its standard error.
const DUMPS: [&[u8]; 2] = [b"# configuration file ", b"nginx: the configuration file "];

/// The input itself is not there, or may not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Unreadable {
    /// Standard input can be read once.
    pub(crate) fn both_from_stdin() -> Self {
        Self("CONFIG and --against are both standard input: save one to a file".to_owned())
    }
}

/// Which files the absolute paths in a configuration mean.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// What is below it is nginx's own root directory.
    pub root: Option<PathBuf>,
    /// What begins with the one is at the other.
    pub maps: Vec<Map>,
}

/// `OLD=NEW`: what is below the path OLD is read below NEW.
#[derive(Clone, Debug)]
pub struct Map {
    old: PathBuf,
    new: PathBuf,
}

impl FromStr for Map {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((old, new)) if old.starts_with('/') && !new.is_empty() => {
                Ok(Self { old: old.into(), new: new.into() })
            }
            _ => Err("write OLD=NEW, where OLD is an absolute path".to_owned()),
        }
    }
}

impl Paths {
    /// The file that a path means.
    fn meant(&self, path: &Path) -> PathBuf {
        if let Some((map, rest)) =
            self.maps.iter().find_map(|map| Some((map, path.strip_prefix(&map.old).ok()?)))
        {
            return map.new.join(rest);
        }
        match &self.root {
            Some(root) if path.is_absolute() && !path.starts_with(root) => {
                root.join(path.strip_prefix("/").unwrap_or(path))
            }
            _ => path.to_owned(),
        }
    }

    const fn is_empty(&self) -> bool {
        self.root.is_none() && self.maps.is_empty()
    }
}

/// The files of this machine, by what the paths in a configuration mean.
struct Mapped<'a> {
    paths: &'a Paths,
    /// What was asked for by an absolute path, each time, in that order.
    asked: RefCell<Vec<PathBuf>>,
}

impl Files for Mapped<'_> {
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        self.note(path);
        Disk.read(&self.paths.meant(path), max)
    }

    fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>> {
        self.note(Path::new(pattern));
        Disk.glob(&self.paths.meant(Path::new(pattern)).to_string_lossy(), max)
    }
}

impl Mapped<'_> {
    fn note(&self, path: &Path) {
        let is_mapped = self.paths.meant(path) != path;
        if path.is_absolute() && !is_mapped {
            self.asked.borrow_mut().push(path.to_owned());
        }
    }
}

/// A configuration that was read.
pub struct Source {
    /// The main file.
    pub path: PathBuf,
    /// What it says.
    pub subject: Subject,
    /// The files and patterns that it names by absolute paths.
    asked: Vec<PathBuf>,
    paths: Paths,
}

/// Reads a configuration; `-` is standard input. The inner error is a finding: nginx would not read it either.
///
/// # Errors
/// It may not be read, is no file, or holds more than a configuration can.
pub fn read(path: &Path, paths: &Paths) -> Result<Result<Source, Box<Finding>>, Unreadable> {
    let limits = Limits::default();
    // Below a root a path without it is as nginx there would write it.
    let path = if paths.is_empty() || path.exists() && paths.root.is_none() {
        path.to_owned()
    } else {
        paths.meant(path)
    };
    let mapped = Mapped { paths, asked: RefCell::default() };
    let main = if path.is_dir() { path.join("nginx.conf") } else { path.clone() };
    let read = match dump(&path, limits.bytes) {
        Err(error) => return Err(Unreadable(format!("read {}: {error}", path.display()))),
        Ok(Some(dump)) => load_dump(&dump, &limits),
        // A relative path stays one, so that findings are at the paths that one knows.
        Ok(None) => load(&mapped, &main, None, &limits),
    };
    match read {
        Err(error) => refusal(error, &path).map(Err),
        Ok(mut config) => {
            for file in &mut config.files {
                file.path = paths.meant(&file.path);
            }
            let mut seen = HashSet::from([main.clone()]);
            let asked = mapped.asked.into_inner().into_iter().filter(|asked| seen.insert(asked.clone()));
            let asked = asked.collect();
            Ok(Ok(Source { path: main, subject: Subject::new(config), asked, paths: paths.clone() }))
        }
    }
}

impl Source {
    /// The file that a path in it means.
    #[must_use]
    pub fn meant(&self, path: &Path) -> PathBuf {
        self.paths.meant(path)
    }

    /// Files that are read by absolute paths outside of the tree, where the tree has a copy of them: whoever changes the copy
    /// changes nothing that is read. With `old`: those that both read.
    #[must_use]
    pub fn outside(&self, old: Option<&Self>) -> Option<Finding> {
        let tree = self.path.parent().and_then(|tree| fs::canonicalize(tree).ok())?;
        let is_outside = |path: &&PathBuf| !path.starts_with(&tree);
        let has_copy = |path: &Path| {
            let parts: Vec<_> = path.components().skip(1).collect();
            // From the longest end of the path to the shortest; a pattern stands for its directory.
            let is_pattern = path.to_string_lossy().contains(['*', '?', '[']);
            let end = parts.len() - usize::from(is_pattern && !parts.is_empty());
            (1..end).any(|from| tree.join(parts[from..end].iter().collect::<PathBuf>()).exists())
        };
        let is_in_both = |path: &Path| {
            old.is_some_and(|old| {
                old.path.parent() != self.path.parent() && old.asked.iter().any(|known| known == path)
            })
        };
        let meant: Vec<_> =
            self.asked.iter().filter(is_outside).filter(|path| has_copy(path) || is_in_both(path)).collect();
        let first = meant.first()?;
        let more = if meant.len() > 1 { format!(" and {} more", meant.len() - 1) } else { String::new() };
        let what = format!(
            "{}{more} is read from outside of {}: what differs in a copy of it here is not seen",
            first.display(),
            tree.display()
        );
        let fix = format!(
            "give --root DIR, or --map {}={}",
            first.parent().unwrap_or(first).display(),
            tree.display()
        );
        let place = format!("{}:1", self.path.display());
        Some(Finding::new(&rules::OUTSIDE, &place, what, fix))
    }
}

/// What `nginx -T` printed, if that is what is there.
fn dump(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(max + 1).read_to_end(&mut text)?;
    } else if path.is_file() {
        let mut file = File::open(path)?.take(max + 1);
        file.by_ref().take(DUMPS[1].len() as u64).read_to_end(&mut text)?;
        if !DUMPS.iter().any(|start| text.starts_with(start)) {
            return Ok(None);
        }
        file.read_to_end(&mut text)?;
    } else {
        return Ok(None);
    }
    if text.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(text))
}

/// What we may not read says nothing about what nginx may.
fn refusal(error: Error, path: &Path) -> Result<Box<Finding>, Unreadable> {
    let is_ours = match &error.kind {
        Kind::Unreadable { cause, .. } => error.at.is_none() || *cause != io::ErrorKind::NotFound,
        Kind::Unsearchable { .. } | Kind::Limit { .. } | Kind::NotADump => true,
        _ => false,
    };
    if is_ours {
        return Err(Unreadable(error.to_string()));
    }
    let Error { kind, at } = error;
    let place = at
        .as_ref()
        .map_or_else(|| format!("{}:1", path.display()), |at| format!("{}:{}", at.path.display(), at.line));
    let what = format!("nginx refuses the configuration: {kind}");
    let mut finding = Finding::new(&rules::SYNTAX, &place, what, "correct it here, or in a line before");
    finding.shown = at.map(|at| {
        let before = at.text.as_bytes().get(..at.column.saturating_sub(1) as usize).unwrap_or_default();
        Shown { column: String::from_utf8_lossy(before).chars().count() + 1, text: at.text }
    });
    Ok(Box::new(finding))
}

/// Where the program is usually installed, besides the directories of PATH.
const PROGRAM_DIRECTORIES: &str = "/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin";

/// The version of the nginx that is installed here, read from the program: it is not run.
#[must_use]
pub fn installed_version() -> Option<Version> {
    Version::of_program(&fs::read(installed_program()?).ok()?)
}

/// The nginx that is installed here.
pub(super) fn installed_program() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(PROGRAM_DIRECTORIES.split(':')).filter(|one| !one.is_empty());
    directories.map(|directory| Path::new(directory).join("nginx")).find(|program| program.is_file())
}

/// The path of a configuration as one writes it, where none is given.
#[must_use]
pub fn default_path() -> PathBuf {
    PathBuf::from("/etc/nginx/nginx.conf")
}
