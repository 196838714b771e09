//! What outlives a guard that is killed: that a change is under way, a copy of the files from before, and how the change left them.
//! And the lock: two changes at once could not be told apart.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{
    files::{Kept, Listing, keep},
    known::Configurations,
};
use crate::escape;

/// How often it is looked whether another guard has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Of this, no newer one is read.
const FORMAT: u32 = 1;

/// The directory where all of it is, and the lock on it.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    _lock: File,
}

/// Another guard runs.
#[derive(Debug, thiserror::Error)]
#[error("another guard is at work ({0}), and did not end within --timeout; try again when it has")]
pub(super) struct Busy(String);

/// A change that is under way, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    format: u32,
    /// The guard.
    pub(super) pid: u32,
    /// When it began.
    pub(super) began: Timestamp,
    /// The directory that is put back.
    pub(super) directory: Option<PathBuf>,
    /// What makes the proxy take the change.
    pub(super) command: Vec<String>,
    /// What takes it back.
    pub(super) rollback: Option<String>,
    /// Whether the change may have been loaded.
    pub(super) is_loaded: bool,
    /// What was in the directory.
    before: Listing,
    /// How the change left it, once it is made.
    after: Option<Listing>,
}

/// A directory as it was when a proxy ran what is in it, and that worked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Good {
    format: u32,
    directory: PathBuf,
    /// When.
    pub(super) at: Timestamp,
    /// How the proxies were configured.
    pub(super) configurations: Configurations,
    listing: Listing,
}

/// A change that is under way.
#[derive(Debug)]
pub(super) struct Change {
    path: PathBuf,
    pub(super) journal: Journal,
}

impl Store {
    /// Takes the lock, and waits for it `within` that time.
    ///
    /// # Errors
    /// [`Busy`], or the directory cannot be made, or is not ours alone.
    pub(super) async fn open(path: &Path, within: Duration) -> anyhow::Result<Self> {
        let why = || format!("keep copies of files in {}", path.display());
        make_directory(path).with_context(why)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(why)?;
        let deadline = Instant::now() + within;
        let mut is_said = false;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error).with_context(why),
                Err(TryLockError::WouldBlock) => {}
            }
            let mut holder = String::new();
            lock.read_to_string(&mut holder)?;
            io::Seek::rewind(&mut lock)?;
            if Instant::now() >= deadline {
                return Err(Busy(holder.trim().to_owned()).into());
            }
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!("waiting for another guard to end ({})", holder.trim());
            }
            sleep(LOOK).await;
        }
        lock.set_len(0)?;
        writeln!(lock, "process {}", std::process::id())?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A change whose guard did not end it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn unfinished(&self) -> anyhow::Result<Option<Change>> {
        let path = self.path.join("change");
        let file = match File::open(path.join("journal.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read of a change that was not ended"),
        };
        let journal: Journal = serde_json::from_reader(io::BufReader::new(file))
            .with_context(|| format!("read of a change that was not ended, in {}", path.display()))?;
        anyhow::ensure!(
            journal.format == FORMAT,
            "{} is of a newer proxytrace: end that change with it",
            path.display()
        );
        Ok(Some(Change { path, journal }))
    }

    /// How the directory was when that worked last, if that is known.
    pub(super) fn good(&self, directory: &Path) -> Option<Good> {
        let file = File::open(self.good_path(directory).join("good.json")).ok()?;
        let good: Good = serde_json::from_reader(io::BufReader::new(file)).ok()?;
        (good.format == FORMAT && good.directory == directory).then_some(good)
    }

    /// The proxy runs what was in the directory, and that works. Where something else is there by now, nothing is kept.
    ///
    /// # Errors
    /// It cannot be copied.
    pub(super) fn keep_good(
        &self,
        directory: &Path,
        what: &Listing,
        configurations: &Configurations,
    ) -> io::Result<()> {
        let path = self.good_path(directory);
        let new = path.with_extension("new");
        remove(&new)?;
        DirBuilder::new().mode(0o700).recursive(true).create(&new)?;
        let listing = keep(directory, &new.join("contents"))?.listing;
        if listing != *what {
            remove(&path)?;
            return remove(&new);
        }
        let good = Good {
            format: FORMAT,
            directory: directory.to_owned(),
            at: Timestamp::now(),
            configurations: configurations.clone(),
            listing,
        };
        fs::write(new.join("good.json"), serde_json::to_vec(&good)?)?;
        rustix::fs::syncfs(File::open(&new)?)?;
        remove(&path)?;
        fs::rename(new, path)
    }

    fn good_path(&self, directory: &Path) -> PathBuf {
        let name = escape::hash([directory.as_os_str().as_bytes()]);
        self.path.join("good").join(format!("{name:016x}"))
    }

    /// A change begins: copies the directory, if one is to be put back. Where the change is made already, what is to be put back is
    /// what was `good`.
    ///
    /// # Errors
    /// It cannot be copied; nothing is left of it then.
    pub(super) fn begin(
        &self,
        directory: Option<&Path>,
        good: Option<Good>,
        command: &[String],
        rollback: Option<&str>,
    ) -> anyhow::Result<Change> {
        let path = self.path.join("change");
        // Without a journal it is of a guard that was killed before it changed anything.
        remove(&path)?;
        let begun = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            let contents = path.join("contents");
            let (before, after) = match (directory, good) {
                (Some(directory), Some(good)) => {
                    link_all(&self.good_path(directory).join("contents"), &contents)?;
                    (good.listing, Some(Listing::of(directory)?))
                }
                (Some(directory), None) => (keep(directory, &contents)?.listing, None),
                (None, _) => (Listing::default(), None),
            };
            let journal = Journal {
                format: FORMAT,
                pid: std::process::id(),
                began: Timestamp::now(),
                directory: directory.map(Path::to_owned),
                command: command.to_owned(),
                rollback: rollback.map(str::to_owned),
                is_loaded: false,
                before,
                after,
            };
            let change = Change { path: path.clone(), journal };
            change.save()?;
            io::Result::Ok(change)
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
}

impl Change {
    /// What was there before.
    pub(super) fn kept(&self) -> Kept {
        Kept::of(self.journal.before.clone(), self.path.join("contents"))
    }

    /// What was in the directory.
    pub(super) const fn before(&self) -> &Listing {
        &self.journal.before
    }

    /// How the change left the directory.
    pub(super) const fn after(&self) -> Option<&Listing> {
        self.journal.after.as_ref()
    }

    /// The change was made, and left the directory like that.
    ///
    /// # Errors
    /// That cannot be stored; it is known nevertheless.
    pub(super) fn made(&mut self, after: Listing) -> io::Result<()> {
        self.journal.after = Some(after);
        self.save()
    }

    /// It is loaded from now on.
    ///
    /// # Errors
    /// As above.
    pub(super) fn loads(&mut self) -> io::Result<()> {
        self.journal.is_loaded = true;
        self.save()
    }

    /// It is over: nothing is to be put back any more.
    ///
    /// # Errors
    /// The copy cannot be removed.
    pub(super) fn end(self) -> io::Result<()> {
        // Without a journal nobody takes it up.
        fs::remove_file(self.path.join("journal.json"))?;
        remove(&self.path)
    }

    /// Where the copy is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn save(&self) -> io::Result<()> {
        let (new, path) = (self.path.join("journal.new"), self.path.join("journal.json"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        serde_json::to_writer(io::BufWriter::new(&file), &self.journal)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(new, path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// A directory that nobody else may look into.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let about = fs::symlink_metadata(path)?;
    let is_ours = about.is_dir() && about.uid() == nix::unistd::geteuid().as_raw();
    if !is_ours {
        return Err(io::Error::other("it is somebody else's, or no directory"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

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
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::{Busy, Store};
    use crate::guard::files::{Listing, restore};

    fn open(path: &std::path::Path) -> anyhow::Result<Store> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Store::open(path, Duration::from_millis(1)))
    }

    #[test]
    fn what_a_killed_guard_left_is_found_and_put_back() {
        let temporary = tempfile::tempdir().unwrap();
        let (state, directory) = (temporary.path().join("state"), temporary.path().join("nginx"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("a\u{e4} b"), "before").unwrap();
        let command = ["nginx".to_owned()];
        {
            let store = open(&state).unwrap();
            assert!(open(&state).unwrap_err().is::<Busy>());
            assert!(store.unfinished().unwrap().is_none());
            let mut change = store.begin(Some(&directory), None, &command, None).unwrap();
            fs::write(directory.join("a\u{e4} b"), "after").unwrap();
            change.made(Listing::of(&directory).unwrap()).unwrap();
            change.loads().unwrap();
        }
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        let store = open(&state).unwrap();
        let change = store.unfinished().unwrap().unwrap();
        assert_eq!(change.journal.directory.as_deref(), Some(&*directory));
        assert!(change.journal.is_loaded);
        let restored = restore(&directory, &change.kept(), change.after().unwrap(), None).unwrap();
        assert_eq!(restored.put_back.len(), 1);
        assert_eq!(fs::read_to_string(directory.join("a\u{e4} b")).unwrap(), "before");
        change.end().unwrap();
        assert!(store.unfinished().unwrap().is_none());
    }

    #[test]
    fn nothing_is_left_of_a_copy_that_failed() {
        let temporary = tempfile::tempdir().unwrap();
        let store = open(&temporary.path().join("state")).unwrap();
        let gone = temporary.path().join("gone");
        assert!(store.begin(Some(&gone), None, &[], None).is_err());
        assert!(store.unfinished().unwrap().is_none());
        assert!(!temporary.path().join("state/change").exists());
    }
}
