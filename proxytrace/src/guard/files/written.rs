//! Files that running processes see to: those that they hold open for writing, as nginx does with its logs, and the one that says their
//! process id. They change all the time and are no configuration, so they are neither copied nor put back: nobody but their writer would
//! get what is written to another file of that name, and an id from before is nobody's.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use procfs::process::Process;
use rustix::fs::{OFlags, Stat};

use super::below::Place;

/// A process id in a file is no longer, in bytes.
const MAX_ID: i64 = 16;

/// Those files, as of the moment in which it was looked: what was written to may be removed since, and its inode be another file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Written {
    /// By device and inode.
    open: BTreeSet<(u64, u64)>,
    /// The process ids of masters, also as they are in their containers.
    ids: BTreeSet<i32>,
}

impl Written {
    /// Those of these masters and of all their workers, also of old ones, as far as they can be seen.
    pub(in super::super) fn of(masters: impl IntoIterator<Item = u32>) -> Self {
        let mut written = Self::default();
        for master in masters {
            // One that has ended writes nothing.
            written.open.extend(open_in(master).unwrap_or_default());
            let process = Process::new(master.cast_signed());
            let children = process.as_ref().map(children).unwrap_or_default();
            written.open.extend(children.into_iter().flat_map(|pid| open_in(pid).unwrap_or_default()));
            let inner = process.and_then(|process| process.status()).ok().and_then(|status| status.nspid);
            written.ids.extend(inner.unwrap_or_default());
            written.ids.insert(master.cast_signed());
        }
        written
    }

    #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    pub(super) fn has(&self, place: &Place, about: &Stat) -> bool {
        self.open.contains(&(about.st_dev as u64, about.st_ino as u64))
            || about.st_size as i64 <= MAX_ID && self.is_id(place).unwrap_or(false)
    }

    /// Whether it says the id of a master, and nothing else.
    fn is_id(&self, place: &Place) -> io::Result<bool> {
        if self.ids.is_empty() {
            return Ok(false);
        }
        let mut text = String::new();
        place.open(OFlags::RDONLY, 0)?.take(MAX_ID.unsigned_abs()).read_to_string(&mut text)?;
        Ok(text.trim_end().parse().is_ok_and(|id| self.ids.contains(&id)))
    }
}

fn children(process: &Process) -> Vec<u32> {
    let of_main = process.task_main_thread().and_then(|thread| thread.children());
    of_main.unwrap_or_default()
}

fn open_in(pid: u32) -> io::Result<BTreeSet<(u64, u64)>> {
    /// The permission of a descriptor's link that stands for writing.
    const FOR_WRITING: u32 = 0o200;
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let is_writable = |about: &fs::Metadata| about.permissions().mode() & FOR_WRITING != 0;
        // It may be closed meanwhile. What has no name is nowhere.
        if fs::symlink_metadata(&path).is_ok_and(|link| is_writable(&link))
            && let Ok(about) = fs::metadata(&path)
            && about.is_file()
            && about.nlink() > 0
        {
            files.insert((about.dev(), about.ino()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        path::Path,
    };

    use super::Written;
    use crate::guard::files::below::Below;

    #[test]
    fn only_what_a_process_sees_to_is_written() {
        let temporary = tempfile::tempdir().unwrap();
        let own = format!("{}\n", std::process::id());
        let files =
            [("log", ""), ("read", ""), ("closed", ""), ("pid", &*own), ("other.pid", "2147483647\n")];
        for (name, text) in files {
            fs::write(temporary.path().join(name), text).unwrap();
        }
        let open =
            |name: &str| fs::OpenOptions::new().append(true).create(true).open(temporary.path().join(name));
        let (_log, removed) = (open("log").unwrap(), open("removed").unwrap());
        let _reader = File::open(temporary.path().join("read")).unwrap();
        fs::remove_file(temporary.path().join("removed")).unwrap();
        let written = Written::of([std::process::id(), u32::MAX]);
        let below = Below::open(temporary.path()).unwrap();
        let has = |name: &str| {
            let place = below.place(Path::new(name)).unwrap();
            written.has(&place, &place.stat().unwrap())
        };
        assert_eq!(files.map(|(name, _)| has(name)), [true, false, false, true, false]);
        // An inode without a name may be another file's tomorrow.
        let about = rustix::fs::fstat(&removed).unwrap();
        assert!(!written.has(&below.place(Path::new("read")).unwrap(), &about));
    }
}
