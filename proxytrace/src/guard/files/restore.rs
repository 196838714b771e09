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
};

/// What became of each path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Restored {
    /// As they were.
    pub(in super::super) put_back: Vec<PathBuf>,
    /// The change had added them.
    pub(in super::super) removed: Vec<PathBuf>,
    /// Somebody else changed them.
    pub(in super::super) left: Vec<PathBuf>,
    /// What went wrong, and where.
    pub(in super::super) failed: Vec<(PathBuf, String)>,
}

/// Puts back below `directory` what is `kept`, as far as it is as in `after`, which is how the change left it. What is
/// replaced and removed is copied to `taken`, where that is given.
///
/// # Errors
/// The directory is not there.
pub(in super::super) fn restore(
    directory: &Path,
    kept: &Kept,
    after: &Listing,
    taken: Option<&Path>,
) -> io::Result<Restored> {
    let below = Below::open(directory)?;
    let mut work = Work { below, kept, taken, restored: Restored::default(), temporaries: 0 };
    let before = &kept.listing;
    // What is in the way of a directory, or would be in one that is not to be there. The deepest first.
    for listed in after.entries().rev() {
        let is_in_the_way = match before.get(&listed.path) {
            None => true,
            Some(was) => was.entry.kind.is_directory() != listed.entry.kind.is_directory(),
        };
        if is_in_the_way {
            work.take_away(listed, before.get(&listed.path).is_none());
        }
    }
    // Directories come before what is in them.
    for listed in before.entries() {
        let left = after.get(&listed.path).map(|left| &left.entry);
        if left != Some(&listed.entry) {
            work.put_back(listed, left);
        }
    }
    Ok(work.restored)
}

struct Work<'a> {
    below: Below,
    kept: &'a Kept,
    taken: Option<&'a Path>,
    restored: Restored,
    temporaries: u32,
}

impl Work<'_> {
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
            Kind::Other => return Err(io::Error::other("a socket, pipe or device is not kept")),
        }
        Ok(true)
    }

    fn temporary(&mut self, place: &Place) -> io::Result<Place> {
        self.temporaries += 1;
        place.sibling(format!(".proxytrace-guard.{}.{}", std::process::id(), self.temporaries).into())
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
        let (Some(taken), Kind::File { .. }) = (self.taken, &left.kind) else { return };
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::Path,
    };

    use super::{Kept, Listing, Restored, XattrFlags, fsetxattr, restore};
    use crate::guard::files::keep;

    struct Scene {
        temporary: tempfile::TempDir,
        kept: Kept,
    }

    impl Scene {
        /// A directory with a file, a link and a directory with a file, which was copied.
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let directory = temporary.path().join("nginx");
            fs::create_dir_all(directory.join("conf.d")).unwrap();
            for (name, text) in
                [("nginx.conf", "main"), ("conf.d/api.conf", "api"), ("conf.d/same.conf", "api")]
            {
                fs::write(directory.join(name), text).unwrap();
            }
            fs::set_permissions(directory.join("nginx.conf"), fs::Permissions::from_mode(0o640)).unwrap();
            symlink("conf.d/api.conf", directory.join("link")).unwrap();
            let kept = keep(&directory, &temporary.path().join("contents")).unwrap();
            Self { temporary, kept }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.temporary.path().join("nginx").join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn listing(&self) -> Listing {
            Listing::of(&self.path("")).unwrap()
        }

        fn restore(&self, after: &Listing) -> Restored {
            let taken = self.temporary.path().join("taken");
            restore(&self.path(""), &self.kept, after, Some(&taken)).unwrap()
        }
    }

    fn names(paths: &[std::path::PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn everything_is_put_back_as_it_was() {
        let scene = Scene::new();
        let modified = fs::metadata(scene.path("nginx.conf")).unwrap().mtime();
        scene.write("nginx.conf", "other");
        fs::set_permissions(scene.path("nginx.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(scene.path("link")).unwrap();
        symlink("elsewhere", scene.path("link")).unwrap();
        fs::remove_dir_all(scene.path("conf.d")).unwrap();
        scene.write("conf.d", "a file in its place");
        fs::create_dir(scene.path("new")).unwrap();
        scene.write("new/more.conf", "more");
        let after = scene.listing();
        assert_eq!(after.differing(&scene.kept.listing).count(), 7);
        let restored = scene.restore(&after);
        assert_eq!(scene.listing(), scene.kept.listing, "{restored:?}");
        assert_eq!(restored.left, Vec::<std::path::PathBuf>::new());
        assert_eq!(restored.failed, Vec::new());
        assert_eq!(names(&restored.removed), ["new/more.conf", "new"]);
        let put_back = ["conf.d", "conf.d/api.conf", "conf.d/same.conf", "link", "nginx.conf"];
        assert_eq!(names(&restored.put_back), put_back);
        assert_eq!(fs::metadata(scene.path("nginx.conf")).unwrap().mtime(), modified);
        let taken = scene.temporary.path().join("taken");
        assert_eq!(fs::read_to_string(taken.join("nginx.conf")).unwrap(), "other");
        assert_eq!(fs::read_to_string(taken.join("new/more.conf")).unwrap(), "more");
        // A second time there is nothing to do.
        assert_eq!(scene.restore(&scene.listing()), Restored::default());
    }

    #[test]
    fn owners_and_attributes_are_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("nginx");
        fs::create_dir(&directory).unwrap();
        let (file, link) = (directory.join("key"), directory.join("link"));
        fs::write(&file, "secret").unwrap();
        symlink("key", &link).unwrap();
        let set = |value: &[u8]| {
            let file = fs::File::open(&file).unwrap();
            fsetxattr(&file, "user.origin", value, XattrFlags::empty())
        };
        // Whoever is no root may not give files away, and a file system may have no attributes.
        let may_give_away = std::os::unix::fs::chown(&file, Some(33), Some(33)).is_ok();
        let has_attributes = set(b"vault\0").is_ok();
        if may_give_away {
            std::os::unix::fs::lchown(&link, Some(33), Some(33)).unwrap();
        }
        let kept = keep(&directory, &temporary.path().join("contents")).unwrap();
        // As a deploy does that knows nothing of them.
        for path in [&file, &link] {
            fs::remove_file(path).unwrap();
        }
        fs::write(&file, "secret").unwrap();
        symlink("key", &link).unwrap();
        let after = Listing::of(&directory).unwrap();
        let expected = if may_give_away { 2 } else { usize::from(has_attributes) };
        assert_eq!(after.differing(&kept.listing).count(), expected);
        let restored = restore(&directory, &kept, &after, None).unwrap();
        assert_eq!((restored.put_back.len(), restored.failed.len()), (expected, 0), "{restored:?}");
        assert_eq!(Listing::of(&directory).unwrap(), kept.listing);
        if has_attributes {
            set(b"somebody else").unwrap();
            let restored = restore(&directory, &kept, &after, None).unwrap();
            assert_eq!(restored.left.len(), 1, "an attribute is a change as well: {restored:?}");
        }
    }

    #[test]
    fn what_somebody_else_changed_is_left() {
        let scene = Scene::new();
        scene.write("nginx.conf", "the change");
        scene.write("conf.d/api.conf", "the change");
        scene.write("added.conf", "the change");
        fs::create_dir(scene.path("dir")).unwrap();
        let after = scene.listing();
        scene.write("conf.d/api.conf", "somebody else");
        scene.write("added.conf", "somebody else");
        scene.write("dir/file", "somebody else");
        scene.write("conf.d/same.conf", "somebody else");
        scene.write("theirs.conf", "somebody else");
        let restored = scene.restore(&after);
        assert_eq!(names(&restored.left), ["dir", "added.conf", "conf.d/api.conf"]);
        assert_eq!(names(&restored.put_back), ["nginx.conf"]);
        assert!(restored.removed.is_empty() && restored.failed.is_empty(), "{restored:?}");
        let read = |name: &str| fs::read_to_string(scene.path(name)).unwrap();
        assert_eq!(read("nginx.conf"), "main");
        for name in ["conf.d/api.conf", "added.conf", "dir/file", "conf.d/same.conf", "theirs.conf"] {
            assert_eq!(read(name), "somebody else", "{name}");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_directory() {
        let scene = Scene::new();
        scene.write("conf.d/api.conf", "the change");
        let after = scene.listing();
        let outside = scene.temporary.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("api.conf"), "the change").unwrap();
        fs::remove_dir_all(scene.path("conf.d")).unwrap();
        symlink(&outside, scene.path("conf.d")).unwrap();
        let restored = scene.restore(&after);
        assert_eq!(fs::read_to_string(outside.join("api.conf")).unwrap(), "the change", "{restored:?}");
        assert_eq!(names(&restored.left), ["conf.d/api.conf"]);
    }

    #[test]
    fn a_copy_that_was_changed_is_not_put_back() {
        let scene = Scene::new();
        scene.write("nginx.conf", "the change");
        let after = scene.listing();
        for copy in fs::read_dir(scene.temporary.path().join("contents")).unwrap() {
            fs::write(copy.unwrap().path(), "forged").unwrap();
        }
        let restored = scene.restore(&after);
        assert_eq!(
            restored.failed,
            [(Path::new("nginx.conf").to_owned(), "its copy was changed".to_owned())]
        );
        assert_eq!(fs::read_to_string(scene.path("nginx.conf")).unwrap(), "the change");
        assert_eq!(scene.listing().differing(&after).count(), 0, "no temporary file is left");
    }
}
