//! The places, one for each directory that is put back, and who holds which.
//!
//! A lock of the kernel's is held for as long as its process lives, so neither a process id that is used again nor another start of the
//! machine leaves one behind. What stands in it tells people who that is, and which directory it is about.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{CHANGE, Change};
use crate::{
    escape,
    guard::files::{of_text, shown, to_text},
};

/// How often it is looked whether another guard has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The lock of each place, and of the list of places.
const LOCK: &str = "lock";

/// Another guard runs.
#[derive(Debug, thiserror::Error)]
#[error("another guard is at work ({0}), and did not end within --timeout; try again when it has")]
pub(in super::super) struct Busy(String);

/// A place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// What is put back; `None` for changes that put nothing back.
    pub(super) directory: Option<PathBuf>,
    /// Whether a guard is at work there.
    pub(super) is_held: bool,
    pid: u32,
}

/// What stands in the lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    /// A path, as text from which it can be made again.
    directory: Option<String>,
}

impl Place {
    pub(super) fn has_change(&self) -> bool {
        self.path.join(CHANGE).join("journal.json").exists()
    }

    /// Whether its change is of the directory that this path led to.
    pub(super) fn is_given_by(&self, given: &Path) -> bool {
        let change = Change::read(&self.path.join(CHANGE)).ok().flatten();
        change.is_some_and(|change| change.journal.links.are_of(given))
    }

    /// Whether one cannot be put back without the other.
    pub(super) fn overlaps(&self, directory: Option<&Path>) -> bool {
        match (&self.directory, directory) {
            (Some(own), Some(other)) => own.starts_with(other) || other.starts_with(own),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether a guard that is at work there would mistake what `directory` brings for its own change.
    fn meets(&self, directory: Option<&Path>) -> bool {
        self.is_held && (self.directory.is_none() || directory.is_none() || self.overlaps(directory))
    }

    pub(super) fn in_words(&self) -> String {
        self.directory.as_deref().map_or_else(|| "one without files".to_owned(), shown)
    }
}

/// Takes the place of a directory, which is made where it is not there.
///
/// # Errors
/// [`Busy`], or what the system says.
pub(super) async fn take(
    root: &Path,
    directory: Option<&Path>,
    within: Duration,
) -> anyhow::Result<(PathBuf, File)> {
    let why = || format!("keep copies of files in {}", root.display());
    if let Some(directory) = directory.filter(|directory| real(root).starts_with(directory)) {
        anyhow::bail!(
            "{} is in {}: what is kept would be taken back with it; choose another --state",
            root.display(),
            shown(directory)
        );
    }
    make_directory(root).with_context(why)?;
    let deadline = Instant::now() + within;
    let mut is_said = false;
    loop {
        let holder = match taken(root, directory).with_context(why)? {
            Ok(taken) => return Ok(taken),
            Err(holder) => holder,
        };
        if Instant::now() >= deadline {
            return Err(Busy(holder).into());
        }
        if !std::mem::replace(&mut is_said, true) {
            tracing::warn!("waiting for another guard to end ({holder})");
        }
        sleep(LOOK).await;
    }
}

/// All places.
///
/// # Errors
/// They cannot be read.
pub(super) fn all(root: &Path) -> io::Result<Vec<Place>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut places = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let mut lock = match File::open(path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => continue,
            Err(error) => return Err(error),
        };
        let is_held = match lock.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        let mut text = String::new();
        lock.read_to_string(&mut text)?;
        // Whoever was killed before it could write that has changed nothing.
        let Ok(Holder { pid, directory }) = serde_json::from_str(&text) else { continue };
        let directory = directory.and_then(|text| of_text(&text));
        places.push(Place { path, directory, is_held, pid });
    }
    places.sort_by(|one, other| one.directory.cmp(&other.directory));
    Ok(places)
}

/// Takes it if nobody is in the way; gives who is.
fn taken(root: &Path, directory: Option<&Path>) -> io::Result<Result<(PathBuf, File), String>> {
    // Who looks and who takes is one at a time: otherwise two could find that nobody is there.
    let list = open_lock(root)?;
    if !lock(&list)? {
        return Ok(Err("one that begins".to_owned()));
    }
    if let Some(held) = all(root)?.into_iter().find(|place| place.meets(directory)) {
        return Ok(Err(format!("process {}, {}", held.pid, held.in_words())));
    }
    let path = root.join(name(directory));
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut own = open_lock(&path)?;
    if !lock(&own)? {
        return Ok(Err("one that has just begun".to_owned()));
    }
    let holder = Holder { pid: std::process::id(), directory: directory.map(to_text) };
    own.set_len(0)?;
    own.rewind()?;
    own.write_all(&serde_json::to_vec(&holder)?)?;
    Ok(Ok((path, own)))
}

fn open_lock(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(directory.join(LOCK))
}

fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn name(directory: Option<&Path>) -> String {
    match directory {
        // People see which is which, by its last part.
        Some(directory) => {
            let last = directory.file_name().map(|name| name.to_string_lossy().into_owned());
            let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
            let plain: String = last.unwrap_or_default().chars().filter(is_plain).take(32).collect();
            format!("{plain}-{:016x}", escape::hash([directory.as_os_str().as_bytes()]))
        }
        None => "without-files".to_owned(),
    }
}

/// Where a path leads, also where its end is not there yet.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|parent| Some((parent, parent.canonicalize().ok()?)));
    there.map_or(path.clone(), |(parent, real)| match path.strip_prefix(parent) {
        Ok(rest) if rest.as_os_str().is_empty() => real,
        Ok(rest) => real.join(rest),
        Err(_) => path.clone(),
    })
}

/// A directory that nobody else may look into. One that is there stays as it is: what is made in it is for its owner only.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let about = fs::symlink_metadata(path)?;
    /// The permissions of its group and of everybody to write.
    const BY_OTHERS: u32 = 0o022;
    let is_ours = about.is_dir() && about.uid() == nix::unistd::geteuid().as_raw();
    if !is_ours {
        return Err(io::Error::other("it is somebody else's, or no directory"));
    }
    if about.mode() & BY_OTHERS != 0 {
        return Err(io::Error::other(
            "others may write there: choose another --state, or take that right from them",
        ));
    }
    Ok(())
}
