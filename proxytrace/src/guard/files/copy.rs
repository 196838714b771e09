//! A copy of a directory elsewhere: the content of each file, by its hash.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    listing::{Kind, Listing, MAX},
    written::Written,
};

/// A copy.
#[derive(Debug)]
pub(in super::super) struct Kept {
    /// What was copied.
    pub(in super::super) listing: Listing,
    /// Where contents are.
    pub(super) contents: PathBuf,
}

impl Kept {
    /// One that was made before.
    pub(in super::super) const fn of(listing: Listing, contents: PathBuf) -> Self {
        Self { listing, contents }
    }

    /// The content with that hash.
    pub(super) fn content(&self, sha256: &str) -> io::Result<File> {
        File::open(self.contents.join(sha256))
    }
}

/// Copies what is below `directory` into `contents`, a directory that is made for it, but for what is being `written`. It is on disk when
/// this returns.
///
/// # Errors
/// Something cannot be read or written.
pub(in super::super) fn keep(directory: &Path, contents: &Path, written: &Written) -> io::Result<Kept> {
    fs::create_dir(contents)?;
    let mut copied = Vec::new();
    let listing = Listing::with(directory, written, Some(MAX), |path, file| {
        let to = contents.join(format!("incoming-{}", copied.len()));
        io::copy(file, &mut File::create_new(&to)?)?;
        copied.push((path.to_owned(), to));
        Ok(())
    })?;
    for (path, copy) in copied {
        if let Some(Kind::File { sha256, .. }) = listing.get(&path).map(|listed| &listed.entry.kind) {
            fs::rename(copy, contents.join(sha256))?;
        }
    }
    rustix::fs::syncfs(File::open(contents)?)?;
    Ok(Kept { listing, contents: contents.to_owned() })
}
