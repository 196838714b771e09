//! What is in a directory, with owners, modes, attributes and hashes.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest::{Context, SHA256};
use rustix::fs::{FileType, OFlags, Stat, fgetxattr, flistxattr};
use serde::{Deserialize, Serialize};

use super::{below::Below, paths, temporary, written::Written};

/// How much a directory may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    entries: usize,
    /// All together.
    bytes: u64,
}

/// More is no configuration.
pub(super) const MAX: Limits = Limits { entries: 65_536, bytes: 1 << 30 };

/// A directory and what is below it, by path in it: that of the directory itself is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in super::super) struct Listing(Vec<Listed>);

/// What is at a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    #[serde(with = "paths")]
    pub(super) path: PathBuf,
    pub(super) entry: Entry,
    /// When it was written; this alone is no change.
    pub(super) modified: (i64, i64),
}

/// A file, directory or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// Permissions, with those for set-user-ID and the like.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Extended attributes, ACLs among them: base64. Links have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Its length, and the hash of its content (SHA-256): none of one that is too long for a configuration.
    File {
        length: u64,
        sha256: String,
    },
    Directory,
    Link {
        #[serde(with = "paths")]
        target: PathBuf,
    },
    /// A file that a process of the proxy sees to, such as a log or its process id: it is not touched.
    Written,
    /// A socket, pipe or device: it is not touched.
    Other,
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.entry) == (&other.path, &other.entry)
    }
}

impl Eq for Listed {}

impl Listed {
    pub(super) const fn is_written(&self) -> bool {
        matches!(self.entry.kind, Kind::Written)
    }
}

impl Kind {
    pub(super) const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory)
    }
}

impl Listing {
    /// What is below `directory` now, where some files are being `written`. `read` takes the content of each other file, after its path.
    ///
    /// # Errors
    /// It cannot be read, or holds more than the `limits` say.
    pub(super) fn with(
        directory: &Path,
        written: &Written,
        limits: Option<Limits>,
        mut read: impl FnMut(&Path, &mut dyn io::Read) -> io::Result<()>,
    ) -> io::Result<Self> {
        let below = Below::open(directory)?;
        let mut listing: Vec<_> = listed(&below, Path::new(""), written, &mut read)?.into_iter().collect();
        let mut waiting = vec![PathBuf::new()];
        let mut bytes = 0;
        while let Some(parent) = waiting.pop() {
            for name in below.names(&parent).map_err(|error| at(&parent, &error))? {
                let path = parent.join(name);
                // A guard that was killed may have left it.
                if temporary::is_one(&path) {
                    continue;
                }
                let Some(listed) =
                    listed(&below, &path, written, &mut read).map_err(|error| at(&path, &error))?
                else {
                    continue;
                };
                if let Kind::File { length, .. } = &listed.entry.kind {
                    bytes += length;
                } else if listed.entry.kind.is_directory() {
                    waiting.push(path);
                }
                listing.push(listed);
                if limits
                    .is_some_and(|Limits { entries, bytes: most }| listing.len() > entries || bytes > most)
                {
                    return Err(io::Error::other(
                        "it holds more than a configuration does (65536 files, 1 GiB)",
                    ));
                }
            }
        }
        listing.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self(listing))
    }

    /// What is below `directory` now.
    ///
    /// # Errors
    /// As above.
    pub(in super::super) fn of(directory: &Path, written: &Written) -> io::Result<Self> {
        Self::with(directory, written, Some(MAX), |_, _| Ok(()))
    }

    /// The same, however much that is.
    ///
    /// # Errors
    /// It cannot be read.
    pub(in super::super) fn whole(directory: &Path, written: &Written) -> io::Result<Self> {
        Self::with(directory, written, None, |_, _| Ok(()))
    }

    /// Whether nothing differs, but for what is being written.
    pub(in super::super) fn is_same(&self, other: &Self) -> bool {
        let is_written =
            |path: &Path| [self, other].iter().any(|of| of.get(path).is_some_and(Listed::is_written));
        let of = |listing: &'_ Self| -> Vec<_> {
            listing.0.iter().filter(|listed| !is_written(&listed.path)).cloned().collect()
        };
        of(self) == of(other)
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Listed> {
        self.0.iter()
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Listed> {
        let found = self.0.binary_search_by(|listed| listed.path.as_path().cmp(path)).ok()?;
        self.0.get(found)
    }

    /// The paths at which this and another one differ.
    #[cfg(test)]
    pub(in super::super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Path> {
        let here = self
            .entries()
            .filter(move |one| other.get(&one.path).map(|there| &there.entry) != Some(&one.entry));
        let there = other.entries().filter(move |one| self.get(&one.path).is_none());
        here.chain(there).map(|listed| listed.path.as_path())
    }
}

/// What is at `path` now; nothing where nothing is.
///
/// # Errors
/// It cannot be read.
pub(super) fn now(below: &Below, path: &Path) -> io::Result<Option<Entry>> {
    match listed(below, path, &Written::default(), &mut |_, _| Ok(())) {
        Ok(listed) => Ok(listed.map(|listed| listed.entry)),
        // The directory that it was in is not there, or a link is in its place.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn listed(
    below: &Below,
    path: &Path,
    written: &Written,
    read: &mut impl FnMut(&Path, &mut dyn io::Read) -> io::Result<()>,
) -> io::Result<Option<Listed>> {
    let about = match below.place(path).and_then(|place| Ok((place.stat()?, place))) {
        Ok((about, place)) => (about, place),
        // Removed while we look.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (about, place) = about;
    let mut attributes = BTreeMap::new();
    let kind = match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile if written.has(&place, &about) => Kind::Written,
        FileType::RegularFile if about.st_size.unsigned_abs() > MAX.bytes => {
            Kind::File { length: about.st_size.unsigned_abs(), sha256: String::new() }
        }
        FileType::RegularFile => {
            let file = place.open(OFlags::RDONLY, 0)?;
            attributes = attributes_of(&file)?;
            let mut hashed = Hashed { file, hash: Context::new(&SHA256), length: 0 };
            read(path, &mut hashed)?;
            io::copy(&mut hashed, &mut io::sink())?;
            let hash = hashed.hash.finish();
            let sha256 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            Kind::File { length: hashed.length, sha256 }
        }
        FileType::Directory => {
            attributes = attributes_of(&place.open(OFlags::RDONLY | OFlags::DIRECTORY, 0)?)?;
            Kind::Directory
        }
        FileType::Symlink => Kind::Link { target: place.link()? },
        _ => Kind::Other,
    };
    Ok(Some(Listed {
        path: path.to_owned(),
        entry: entry(&about, kind, attributes),
        modified: modified(&about),
    }))
}

fn entry(about: &Stat, kind: Kind, attributes: BTreeMap<String, String>) -> Entry {
    Entry { kind, mode: about.st_mode & 0o7777, uid: about.st_uid, gid: about.st_gid, attributes }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the types differ between architectures"
)]
fn modified(about: &Stat) -> (i64, i64) {
    (about.st_mtime as i64, about.st_mtime_nsec as i64)
}

/// A file that is hashed as it is read.
struct Hashed {
    file: File,
    hash: Context,
    length: u64,
}

impl io::Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = io::Read::read(&mut self.file, buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        self.length += read as u64;
        Ok(read)
    }
}

/// The extended attributes of something open; none on a file system that has none.
pub(super) fn attributes_of(file: impl AsFd) -> io::Result<BTreeMap<String, String>> {
    /// The kernel's own limit of a list and of a value.
    const MAX: usize = 64 << 10;
    let mut names = vec![0; MAX];
    let length = match flistxattr(&file, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut attributes = BTreeMap::new();
    let names = names.get(..length).unwrap_or_default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let mut value = vec![0; MAX];
        let length = fgetxattr(&file, name, &mut value)?;
        attributes.insert(name.to_owned(), STANDARD.encode(value.get(..length).unwrap_or_default()));
    }
    Ok(attributes)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", paths::shown(path)))
}
