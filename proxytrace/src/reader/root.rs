//! Files as another process sees them: below its root directory, in its mount namespace.
//!
//! The kernel keeps every step of a path below that root (openat2(2)). A file is opened only after it is known to be one that
//! to open does nothing: a device may act when it is opened, and a file system may be a program of whoever mounted it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use jiff::Timestamp;
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2, statx,
    },
    io::Errno,
};

use super::mounts::Mounts;

/// How often a path is tried again that somebody moves about meanwhile.
const TRIES: usize = 16;

const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opening a pipe would wait for whoever writes, had somebody put one there meanwhile.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The root directory of a process.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    mounts: Mounts,
}

impl Root {
    pub(super) const fn new(directory: OwnedFd, mounts: Mounts) -> Self {
        Self { directory, mounts }
    }

    /// The root directory of the host.
    ///
    /// # Errors
    /// It is not ours to look below: that takes `CAP_SYS_PTRACE`.
    pub(super) fn of_host() -> io::Result<Self> {
        let directory = openat(CWD, "/proc/1/root", FIND | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self::new(directory, Mounts::new(vec![File::open("/proc/1/mountinfo")?])))
    }

    /// The directory `path`, as if it were a root.
    #[cfg(test)]
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let directory = openat(CWD, path, FIND | OFlags::DIRECTORY, Mode::empty())?;
        let tables = ["/proc/self/mountinfo", "/proc/1/mountinfo"].map(File::open);
        Ok(Self::new(directory, Mounts::new(tables.into_iter().collect::<io::Result<_>>()?)))
    }

    /// The content of a small file; empty where there is none.
    pub(super) fn text(&self, path: &str) -> String {
        const MAX_TEXT: u64 = 1 << 20;
        self.content(Path::new(path), MAX_TEXT)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// It is not there, no regular file, on something that is not looked at, not ours to read, or holds more than `max` bytes.
    pub(super) fn content(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let file = self.open_found(&self.find(path)?.0)?;
        let mut text = Vec::new();
        file.take(max.saturating_add(1)).read_to_end(&mut text)?;
        if text.len() as u64 > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// It is not there, no directory, on something that is not looked at, or not ours to read.
    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let found = self.find(directory)?.0;
        let entries = Dir::new(reopened(&found, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?)?;
        entries.map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned())).collect()
    }

    /// Whether a path leads to something.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    /// When what a path leads to was changed, or put there.
    ///
    /// # Errors
    /// It is not there, is on something that is not looked at, or has a time that is none.
    pub(super) fn changed(&self, path: &Path) -> io::Result<Timestamp> {
        let changed = self.find(path)?.1.stx_ctime;
        Timestamp::new(changed.tv_sec, changed.tv_nsec.cast_signed()).map_err(io::Error::other)
    }

    /// Whether a path leads to a file that was found before.
    pub(super) fn is_same(&self, path: &Path, found: &OwnedFd) -> bool {
        let inode = |about: Statx| (about.stx_dev_major, about.stx_dev_minor, about.stx_ino);
        let (one, other) = (self.find(path).map(|(_, about)| about), self.about(found));
        one.is_ok_and(|one| other.is_ok_and(|other| inode(one) == inode(other)))
    }

    /// Whether everybody may look up `path`, which is an absolute one without links: it is no secret that it is there.
    pub(super) fn is_public(&self, path: &Path) -> bool {
        let may_search = |directory: &Path| {
            self.find(directory)
                .is_ok_and(|(_, about)| Mode::from_bits_truncate(about.stx_mode.into()).contains(Mode::XOTH))
        };
        path.is_absolute() && path.ancestors().skip(1).all(may_search) && self.exists(path)
    }

    /// Opens a regular file that was found before, by descriptor.
    ///
    /// # Errors
    /// It is no regular file, on something that is not looked at, or not ours to read.
    pub(super) fn open_found(&self, found: &OwnedFd) -> io::Result<File> {
        let about = self.about(found)?;
        match file_type(&about) {
            FileType::RegularFile => Ok(reopened(found, READ)?.into()),
            FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// What `path`, an absolute one, leads to, whatever links are on the way. Opens nothing.
    fn find(&self, path: &Path) -> io::Result<(OwnedFd, Statx)> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tried = 0;
        let found = loop {
            tried += 1;
            match openat2(&self.directory, path, FIND, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tried < TRIES => {}
                found => break found?,
            }
        };
        let about = self.about(&found)?;
        Ok((found, about))
    }

    fn about(&self, found: impl AsFd) -> io::Result<Statx> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let about = statx(found, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, mask)?;
        self.mounts.check(&about)?;
        Ok(about)
    }
}

fn file_type(about: &Statx) -> FileType {
    FileType::from_raw_mode(about.stx_mode.into())
}

/// The same file, to be read: what a path leads to may have changed, what a descriptor leads to has not.
fn reopened(found: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
        path::Path,
    };

    use nix::{
        sys::{
            inotify::{AddWatchFlags, InitFlags, Inotify},
            stat::Mode,
        },
        unistd::mkfifo,
    };

    use super::Root;

    #[test]
    fn links_and_parents_lead_nowhere_but_below_the_root() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path();
        fs::create_dir_all(directory.join("etc/nginx/sites")).unwrap();
        fs::write(directory.join("etc/nginx/nginx.conf"), "events {}").unwrap();
        fs::write(directory.join("etc/one"), "1").unwrap();
        symlink("/etc/nginx/nginx.conf", directory.join("etc/absolute")).unwrap();
        symlink("../../one", directory.join("etc/nginx/sites/relative")).unwrap();
        symlink("../../../../../../etc/one", directory.join("etc/nginx/sites/above")).unwrap();
        symlink("loop", directory.join("etc/loop")).unwrap();
        let root = Root::at(directory).unwrap();
        let read = |path: &str| root.content(Path::new(path), 100).map_err(|error| error.to_string());
        assert_eq!(read("/etc/absolute").unwrap(), b"events {}");
        assert_eq!(read("/etc/nginx/sites/relative").unwrap(), b"1");
        assert_eq!(read("/etc/nginx/sites/above").unwrap(), b"1");
        assert_eq!(read("/../../etc/./nginx/../one").unwrap(), b"1");
        assert!(read("/etc/loop").unwrap_err().contains("symbolic link"));
        assert!(read("/etc/none").unwrap_err().contains("No such file"));
        assert!(read("/etc/nginx").unwrap_err().contains("is a directory"));
        assert!(root.content(Path::new("/etc/one"), 0).is_err());
        let mut found = root.list(Path::new("/etc/nginx/sites")).unwrap();
        found.retain(|name| name != "." && name != "..");
        found.sort();
        assert_eq!(found, ["above", "relative"]);
        assert!(root.exists(Path::new("/etc/nginx/sites/above")) && !root.exists(Path::new("/etc/none")));
    }

    #[test]
    fn what_is_no_regular_file_is_never_opened() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("regular"), "1").unwrap();
        mkfifo(&directory.path().join("pipe"), Mode::S_IRWXU).unwrap();
        // A device behaves as the pipe does here; to make one takes privileges that a test may lack.
        symlink("pipe", directory.path().join("link")).unwrap();
        let opened = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        opened.add_watch(directory.path(), AddWatchFlags::IN_OPEN).unwrap();
        let root = Root::at(directory.path()).unwrap();
        for path in ["/pipe", "/link"] {
            let error = root.content(Path::new(path), 100).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{path}");
            root.changed(Path::new(path)).unwrap();
        }
        assert!(opened.read_events().is_err(), "something was opened");
        root.content(Path::new("/regular"), 100).unwrap();
        let names: Vec<_> =
            opened.read_events().unwrap().into_iter().filter_map(|event| event.name).collect();
        assert_eq!(names, ["regular"], "the watch sees what is opened");
    }

    #[test]
    fn a_path_is_public_where_everybody_may_look_it_up() {
        let directory = tempfile::tempdir().unwrap();
        let set = |path: &str, mode: u32| {
            fs::set_permissions(directory.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/file"), "").unwrap();
        for path in ["", "a", "a/b"] {
            set(path, 0o755);
        }
        set("a/b/file", 0o600);
        let root = Root::at(directory.path()).unwrap();
        assert!(root.is_public(Path::new("/a/b/file")));
        assert!(!root.is_public(Path::new("/a/b/none")));
        assert!(!root.is_public(Path::new("a/b/file")));
        set("a", 0o750);
        assert!(!root.is_public(Path::new("/a/b/file")));
    }
}
