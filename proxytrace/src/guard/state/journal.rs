//! A change that is under way, as it is stored.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FORMAT, remove};
use crate::guard::{
    files::{Kept, Link, Listing, settle, to_text},
    group::Group,
};

/// Another one after each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A change that is under way, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Journal {
    format: u32,
    /// The guard.
    pub(in super::super) pid: u32,
    /// What [`BOOT_ID`] said then.
    boot: String,
    /// When it began.
    pub(in super::super) began: Timestamp,
    /// The directory that is put back.
    pub(in super::super) directory: Option<PathBuf>,
    /// The same as it was given, where links lead there, and those.
    #[serde(default)]
    pub(in super::super) links: Links,
    /// What makes the proxy take the change.
    pub(in super::super) command: Vec<String>,
    /// What takes it back.
    pub(in super::super) rollback: Option<String>,
    /// What was in the directory.
    before: Listing,
    /// How the change left it, where that is known: not while a program runs that may change it.
    after: Option<Listing>,
    /// That program.
    #[serde(default)]
    pub(in super::super) program: Option<Group>,
}

/// Links that lead to a directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Links {
    /// What was given.
    given: Option<String>,
    pub(in super::super) all: Vec<Link>,
}

impl Links {
    pub(super) fn of(given: Option<&Path>) -> Self {
        let all = given.map(Link::all).unwrap_or_default();
        Self { given: given.filter(|_| !all.is_empty()).map(text), all }
    }

    /// Whether that was given, wherever it leads by now.
    pub(super) fn are_of(&self, given: &Path) -> bool {
        self.given == Some(text(given))
    }
}

/// A path as it is written, but for where it begins.
fn text(path: &Path) -> String {
    to_text(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components().collect::<PathBuf>())
}

/// A change that is under way.
#[derive(Debug)]
pub(in super::super) struct Change {
    path: PathBuf,
    pub(in super::super) journal: Journal,
}

impl Change {
    /// One that begins. What was in the directory is in `path` already; where the change is made already, it is known how it left it.
    pub(super) fn begin(
        path: &Path,
        (directory, links): (Option<&Path>, Links),
        command: &[String],
        rollback: Option<&str>,
        (before, after): (Listing, Option<Listing>),
    ) -> io::Result<Self> {
        let journal = Journal {
            format: FORMAT,
            pid: std::process::id(),
            boot: boot(),
            began: Timestamp::now(),
            directory: directory.map(Path::to_owned),
            links,
            command: command.to_owned(),
            rollback: rollback.map(str::to_owned),
            before,
            after,
            program: None,
        };
        let change = Self { path: path.to_owned(), journal };
        change.save()?;
        // The place itself may be new.
        for parent in path.ancestors().skip(1).take(2) {
            File::open(parent)?.sync_all()?;
        }
        Ok(change)
    }

    /// One that was not ended, if there is one.
    pub(super) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let file = match File::open(path.join("journal.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read of a change that was not ended"),
        };
        let journal: Journal = serde_json::from_reader(io::BufReader::new(file))
            .with_context(|| format!("read of a change that was not ended, in {}", path.display()))?;
        anyhow::ensure!(
            journal.format == FORMAT,
            "{} is of another version of proxytrace: end that change with it",
            path.display()
        );
        Ok(Some(Self { path: path.to_owned(), journal }))
    }

    /// Whether the machine was started again since it began: whatever runs now has read the files since.
    pub(in super::super) fn is_of_earlier_start(&self) -> bool {
        self.journal.boot != boot()
    }

    /// What was there before.
    pub(in super::super) fn kept(&self) -> Kept {
        Kept::of(self.journal.before.clone(), self.path.join("contents"))
    }

    /// What was in the directory.
    pub(in super::super) const fn before(&self) -> &Listing {
        &self.journal.before
    }

    /// How the change left the directory.
    pub(in super::super) const fn after(&self) -> Option<&Listing> {
        self.journal.after.as_ref()
    }

    /// A program may change it from now on, and how it leaves it is not known. It is known what it is once it was started.
    ///
    /// # Errors
    /// That cannot be stored.
    pub(in super::super) fn runs(&mut self, program: Option<Group>) -> io::Result<()> {
        (self.journal.after, self.journal.program) = (None, program);
        self.save()
    }

    /// The change was made, and left the directory like that.
    ///
    /// # Errors
    /// That cannot be stored; it is known nevertheless.
    pub(in super::super) fn made(&mut self, after: Listing) -> io::Result<()> {
        (self.journal.after, self.journal.program) = (Some(after), None);
        self.save()
    }

    /// It is over: nothing is to be put back any more.
    ///
    /// # Errors
    /// The copy cannot be removed.
    pub(in super::super) fn end(self) -> io::Result<()> {
        // What was put back is on disk before that which could put it back is gone. Nobody puts anything back into a directory that is
        // not there.
        if let Some(directory) =
            self.journal.directory.as_ref().filter(|path| path.is_dir() && !path.is_symlink())
        {
            settle(directory, self.before(), self.before())?;
        }
        // Without a journal nobody takes it up.
        fs::remove_file(self.path.join("journal.json"))?;
        remove(&self.path)
    }

    /// Where the copy is.
    pub(in super::super) fn path(&self) -> &Path {
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

fn boot() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}
