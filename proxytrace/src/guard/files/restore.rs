//! Puts a directory back as it was. Only what the change made is touched: what is not as the change left it was changed by
//! somebody else, and is left and named.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest::{Context, SHA256};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown,
    fremovexattr, fsetxattr, futimens, mkdirat, symlinkat,
};

use super::{
    below::{Below, Place},
    copy::Kept,
    listing::{Entry, Kind, Listed, Listing, attributes_of, now},
    temporary,
    written::Written,
};

#[cfg(test)]
mod tests;

/// What became of each path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Restored {
    /// As they were.
    pub(in super::super) put_back: Vec<PathBuf>,
    /// The change had added them.
    pub(in super::super) removed: Vec<PathBuf>,
    /// Somebody else changed them.
    pub(in super::super) left: Vec<PathBuf>,
    /// Somebody writes to them, as nginx to its logs.
    pub(in super::super) written: Vec<PathBuf>,
    /// What went wrong, and where.
    pub(in super::super) failed: Vec<(PathBuf, String)>,
}

/// Puts back below `directory` what is `kept`, as far as it is as in `after`, which is how the change left it. What is
/// replaced and removed is copied to `taken`, where that is given. What is being `written` is left alone.
///
/// # Errors
/// The directory is not there.
pub(in super::super) fn restore(
    directory: &Path,
    kept: &Kept,
    after: &Listing,
    taken: Option<&Path>,
    written: &Written,
) -> io::Result<Restored> {
    let below = Below::open(directory)?;
    let mut work = Work { below, kept, taken, written, restored: Restored::default(), temporaries: 0 };
    let before = &kept.listing;
    work.sweep(before);
    // What is in the way of a directory, or would be in one that is not to be there. The deepest first.
    for listed in after.entries().rev() {
        let is_in_the_way = match before.get(&listed.path) {
            None => true,
            Some(was) => was.entry.kind.is_directory() != listed.entry.kind.is_directory(),
        };
        if is_in_the_way && !work.is_written([before.get(&listed.path), Some(listed)], &listed.path) {
            work.take_away(listed, before.get(&listed.path).is_none());
        }
    }
    // Directories come before what is in them.
    for listed in before.entries() {
        let left = after.get(&listed.path);
        if left != Some(listed) && !work.is_written([left, Some(listed)], &listed.path) {
            work.put_back(listed, left.map(|left| &left.entry));
        }
    }
    let all = after.entries().chain(before.entries()).filter(|listed| listed.is_written());
    work.restored.written.extend(all.map(|listed| listed.path.clone()));
    work.restored.written.sort();
    work.restored.written.dedup();
    Ok(work.restored)
}

struct Work<'a> {
    below: Below,
    kept: &'a Kept,
    taken: Option<&'a Path>,
    written: &'a Written,
    restored: Restored,
    temporaries: u32,
}

impl Work<'_> {
    /// Whether somebody writes to what is there, or did; that is noted.
    fn is_written(&mut self, listed: [Option<&Listed>; 2], path: &Path) -> bool {
        let about = || {
            let place = self.below.place(path)?;
            io::Result::Ok((place.stat()?, place))
        };
        let is_written = listed.into_iter().flatten().any(Listed::is_written)
            || about().is_ok_and(|(about, place)| self.written.has(&place, &about));
        if is_written {
            self.restored.written.push(path.to_owned());
        }
        is_written
    }

    /// Removes what a guard has left beside its place that was killed: nobody else is at work here.
    fn sweep(&self, before: &Listing) {
        for directory in before.entries().filter(|listed| listed.entry.kind.is_directory()) {
            for name in self.below.names(&directory.path).unwrap_or_default() {
                let path = directory.path.join(name);
                if temporary::is_one(&path)
                    && let Err(error) = self.below.place(&path).and_then(|place| place.remove(false))
                {
                    tracing::warn!("{} is left: {error}", super::shown(&path));
                }
            }
        }
    }

    fn take_away(&mut self, listed: &Listed, is_added: bool) {
        let Listed { path, entry, .. } = listed;
        match self.removed(path, entry) {
            Ok(true) if is_added => self.restored.removed.push(path.clone()),
            Ok(_) => {}
            Err(error) => self.restored.failed.push((path.clone(), error.to_string())),
        }
    }

    /// Removes what is as the change left it; gives false where it is not, which is noted.
    fn removed(&mut self, path: &Path, left: &Entry) -> io::Result<bool> {
        match now(&self.below, path)? {
            None => return Ok(false),
            Some(now) if now == *left => {}
            Some(_) => {
                self.restored.left.push(path.to_owned());
                return Ok(false);
            }
        }
        self.take(path, left);
        let removed = self.below.place(path)?.remove(left.kind.is_directory());
        match removed {
            // Somebody else has put something there.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.restored.left.push(path.to_owned());
                Ok(false)
            }
            removed => removed.map(|()| true),
        }
    }

    fn put_back(&mut self, listed: &Listed, left: Option<&Entry>) {
        let path = &listed.path;
        match self.placed(listed, left) {
            Ok(true) => self.restored.put_back.push(path.clone()),
            Ok(false) => {}
            Err(error) => self.restored.failed.push((path.clone(), error.to_string())),
        }
    }

    /// Gives false where nothing was to be done, or something is there that is not of the change.
    fn placed(&mut self, listed: &Listed, left: Option<&Entry>) -> io::Result<bool> {
        let Listed { path, entry, modified } = listed;
        let is_there = now(&self.below, path)?;
        if is_there.as_ref() == Some(entry) {
            return Ok(false);
        }
        // What was in the way of another kind is gone by now, if it was of the change.
        let was_in_the_way = left.is_some_and(|left| left.kind.is_directory() != entry.kind.is_directory());
        let expected = if was_in_the_way { None } else { left };
        if is_there.as_ref() != expected {
            if !self.restored.left.contains(path) {
                self.restored.left.push(path.clone());
            }
            return Ok(false);
        }
        if let Some(left) = expected {
            self.take(path, left);
        }
        let place = self.below.place(path)?;
        match &entry.kind {
            Kind::Directory => {
                if expected.is_none() {
                    mkdirat(&place.parent, &place.name, Mode::RWXU)?;
                }
                set(&place.open(OFlags::RDONLY | OFlags::DIRECTORY, 0)?, entry, None)?;
            }
            Kind::File { sha256, .. } => {
                let temporary = self.temporary(&place)?;
                let file = temporary.open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, 0o600)?;
                self.filled(&file, entry, sha256, *modified)
                    .and_then(|()| temporary.rename(&place))
                    .inspect_err(|_| drop(temporary.remove(false)))?;
            }
            Kind::Link { target } => {
                let temporary = self.temporary(&place)?;
                symlinkat(target, &temporary.parent, &temporary.name)?;
                let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
                chownat(&temporary.parent, &temporary.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io::Error::from)
                    .and_then(|()| temporary.rename(&place))
                    .inspect_err(|_| drop(temporary.remove(false)))?;
            }
            Kind::Written | Kind::Other => {
                return Err(io::Error::other("a socket, pipe or device is not kept"));
            }
        }
        Ok(true)
    }

    fn temporary(&mut self, place: &Place) -> io::Result<Place> {
        self.temporaries += 1;
        place.sibling(temporary::name(self.temporaries))
    }

    fn filled(&self, file: &File, entry: &Entry, sha256: &str, modified: (i64, i64)) -> io::Result<()> {
        let mut content = self.kept.content(sha256)?;
        let (mut hash, mut buffer) = (Context::new(&SHA256), vec![0; 64 << 10]);
        loop {
            let read = content.read(&mut buffer)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            hash.update(part);
            (&mut &*file).write_all(part)?;
        }
        let found: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != sha256 {
            return Err(io::Error::other("its copy was changed"));
        }
        set(file, entry, Some(modified))?;
        file.sync_all()
    }

    /// Keeps what is taken back, where that is possible: whoever made the change may want to look at it.
    fn take(&self, path: &Path, left: &Entry) {
        // What is too long for a configuration may be too long for where it would be kept.
        let (Some(taken), Kind::File { sha256, .. }) = (self.taken, &left.kind) else { return };
        if sha256.is_empty() {
            return;
        }
        let copy = || {
            let to = taken.join(path);
            fs::create_dir_all(to.parent().unwrap_or(taken))?;
            let mut file = self.below.place(path)?.open(OFlags::RDONLY, 0)?;
            io::copy(&mut file, &mut File::create(to)?)
        };
        if let Err(error) = copy() {
            tracing::warn!("no copy of what is taken back of {}: {error}", super::shown(path));
        }
    }
}

/// Gives an open file or directory its owner, mode, attributes and time.
fn set(file: &File, entry: &Entry, modified: Option<(i64, i64)>) -> io::Result<()> {
    let file = file.as_fd();
    fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    let has = attributes_of(file)?;
    for name in has.keys().filter(|name| !entry.attributes.contains_key(*name)) {
        fremovexattr(file, name.as_str())?;
    }
    for (name, value) in entry.attributes.iter().filter(|(name, value)| has.get(*name) != Some(*value)) {
        let value = STANDARD.decode(value).map_err(io::Error::other)?;
        fsetxattr(file, name.as_str(), &value, XattrFlags::empty())?;
    }
    if let Some((tv_sec, tv_nsec)) = modified {
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omitted, last_modification: Timespec { tv_sec, tv_nsec } };
        futimens(file, &times)?;
    }
    Ok(())
}
