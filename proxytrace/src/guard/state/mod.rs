//! What outlives a guard that is killed: that a change is under way, a copy of the files from before, and how the change left them.
//! Each directory that is put back has a place of its own, so that a change of one is nothing to a guard of another.
//!
//! * `place`: the places, and who holds which: two changes of the same at once could not be told apart.
//! * `journal`: a change that is under way. `good`: what worked last.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    files::{Listing, Written, keep},
    known::Configurations,
};
use place::Place;

mod good;
mod journal;
mod place;

pub(super) use good::Good;
pub(super) use journal::Change;
use journal::Links;
pub(super) use place::Busy;

/// Of this, no other one is read.
const FORMAT: u32 = 2;

/// The place of a directory, which is held.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    path: PathBuf,
    directory: Option<PathBuf>,
    /// The same as it was given.
    given: Option<PathBuf>,
    _lock: File,
}

impl Store {
    /// Takes the place of `directory`, and waits `within` that time for guards of it, and of what it is in or is in it. Without a
    /// directory it is the place of changes that put no files back.
    ///
    /// # Errors
    /// [`Busy`], or the place cannot be made, or is not ours alone.
    pub(super) async fn open(
        root: &Path,
        directory: Option<&Path>,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let (path, lock) = place::take(root, directory, within).await?;
        let given = directory.map(Path::to_owned);
        Ok(Self { root: root.to_owned(), path, directory: given.clone(), given, _lock: lock })
    }

    /// That directory was given by this path.
    #[must_use]
    pub(super) fn given(self, given: Option<PathBuf>) -> Self {
        Self { given, ..self }
    }

    /// The place of the change that a guard did not end, which is held then: that of `directory`, where it is given (also as it was written
    /// then, wherever that leads by now), and of the only one otherwise.
    ///
    /// # Errors
    /// As above; or there are several.
    pub(super) async fn of_unfinished(
        root: &Path,
        directory: Option<&Path>,
        given: Option<&Path>,
        within: Duration,
    ) -> anyhow::Result<Option<Self>> {
        let mut places = place::all(root)?;
        places.retain(Place::has_change);
        if let Some(given) = given {
            places.retain(|place| place.directory.as_deref() == directory || place.is_given_by(given));
        }
        // Those that are held may be ended by whoever holds them.
        if places.iter().any(|place| !place.is_held) {
            places.retain(|place| !place.is_held);
        }
        match &places[..] {
            [] => Ok(None),
            [Place { directory, .. }] => Ok(Some(Self::open(root, directory.as_deref(), within).await?)),
            several => {
                let all: Vec<_> = several.iter().map(Place::in_words).collect();
                anyhow::bail!(
                    "{} changes were not ended; say which one is meant by --rollback-files: {}",
                    all.len(),
                    all.join(", ")
                )
            }
        }
    }

    /// A change whose guard did not end it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn unfinished(&self) -> anyhow::Result<Option<Change>> {
        Change::read(&self.change_path())
    }

    /// The same, also of what this directory is in and what is in it: they cannot be put back one without the other.
    ///
    /// # Errors
    /// As above.
    pub(super) fn in_the_way(&self) -> anyhow::Result<Option<Change>> {
        for place in place::all(&self.root)? {
            if (place.overlaps(self.directory.as_deref())
                || self.given.as_ref().is_some_and(|given| place.is_given_by(given)))
                && let Some(change) = Change::read(&place.path.join(CHANGE))?
            {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    /// How the directory was when that worked last, if that is known.
    pub(super) fn good(&self) -> Option<Good> {
        Good::read(&self.path.join(GOOD)).filter(|good| Some(&good.directory) == self.directory.as_ref())
    }

    /// The proxy runs what was in the directory, and that works. Where something else is there by now, nothing is kept.
    ///
    /// # Errors
    /// It cannot be copied.
    pub(super) fn keep_good(
        &self,
        what: &Listing,
        configurations: &Configurations,
        written: &Written,
    ) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        good::keep(&self.path.join(GOOD), directory, what, configurations, written)
    }

    /// A change begins: copies the directory, if one is to be put back. Where the change is made already, what is to be put back is
    /// what was `good`.
    ///
    /// # Errors
    /// It cannot be copied; nothing is left of it then.
    pub(super) fn begin(
        &self,
        good: Option<Good>,
        command: &[String],
        rollback: Option<&str>,
        written: &Written,
    ) -> anyhow::Result<Change> {
        let path = self.change_path();
        // Without a journal it is of a guard that was killed before it changed anything.
        remove(&path)?;
        let directory = self.directory.as_deref();
        let begun = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            let contents = path.join("contents");
            let (before, after) = match (directory, good) {
                (Some(directory), Some(good)) => {
                    link_all(&self.path.join(GOOD).join("contents"), &contents)?;
                    (good.listing, Some(Listing::of(directory, written)?))
                }
                (Some(directory), None) => (keep(directory, &contents, written)?.listing, None),
                (None, _) => (Listing::default(), None),
            };
            let links = Links::of(self.given.as_deref());
            Change::begin(&path, (directory, links), command, rollback, (before, after))
        };
        begun().inspect_err(|_| drop(remove(&path))).with_context(|| match directory {
            Some(directory) => format!("copy {} to {}", directory.display(), path.display()),
            None => format!("note the change in {}", path.display()),
        })
    }

    /// Where what was taken back last is kept; empty now.
    pub(super) fn taken(&self) -> io::Result<PathBuf> {
        let path = self.path.join("taken-back");
        remove(&path)?;
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    fn change_path(&self) -> PathBuf {
        self.path.join(CHANGE)
    }
}

/// In each place: a change that is under way, and what worked last.
const CHANGE: &str = "change";
const GOOD: &str = "good";

/// The same files in another directory, which is made.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::hard_link(entry.path(), to.join(entry.file_name()))?;
    }
    rustix::fs::syncfs(File::open(to)?)?;
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
