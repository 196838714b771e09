//! Where a configuration comes from: a file, a directory, or what `nginx -T` printed.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use nginx_conf::{Disk, Error, Kind, Limits, load, load_dump};

use super::{
    finding::{Finding, Shown},
    rules,
    subject::Subject,
};

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

/// Reads a configuration; `-` is standard input. The inner error is a finding: nginx would not read it either.
///
/// # Errors
/// It may not be read, is no file, or holds more than a configuration can.
pub fn read(path: &Path) -> Result<Result<Subject, Box<Finding>>, Unreadable> {
    let limits = Limits::default();
    let read = match dump(path, limits.bytes) {
        Err(error) => return Err(Unreadable(format!("read {}: {error}", path.display()))),
        Ok(Some(dump)) => load_dump(&dump, &limits),
        Ok(None) => {
            let main = if path.is_dir() { path.join("nginx.conf") } else { path.to_owned() };
            // A relative path stays one, so that findings are at the paths that one knows.
            load(&Disk, &main, None, &limits)
        }
    };
    read.map_or_else(|error| refusal(error, path).map(Err), |config| Ok(Ok(Subject::new(config))))
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

/// The path of a configuration as one writes it, where none is given.
#[must_use]
pub fn default_path() -> PathBuf {
    PathBuf::from("/etc/nginx/nginx.conf")
}
