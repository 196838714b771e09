//! Files as another process sees them: below its root directory, in its mount namespace.
//!
//! A path below /proc/PID/root is not enough: an absolute symbolic link in it would lead into our own root. So each
//! part of a path is opened by itself, and links are followed by hand.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;
use nginx_conf::{Files, glob};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, readlinkat},
    sys::stat::Mode,
};

/// As many symbolic links as the kernel follows in one path (include/linux/namei.h, MAXSYMLINKS).
const MOST_LINKS: usize = 40;

/// The root directory of a process.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// The root directory of the process `pid`.
    ///
    /// # Errors
    /// The process is gone, or not ours to look into.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        Ok(Self(openat(AT_FDCWD, &path, DIRECTORY | OFlag::O_PATH, Mode::empty())?))
    }

    /// The directory `path`, as if it were a root.
    #[cfg(test)]
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(AT_FDCWD, path, DIRECTORY, Mode::empty())?))
    }

    /// The content of a small file; empty where there is none.
    pub(super) fn text(&self, path: &str) -> String {
        const MOST: u64 = 1 << 20;
        self.read(Path::new(path), MOST)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// When what a path leads to was changed, or put there.
    ///
    /// # Errors
    /// It is not there, or has a time that is none.
    pub(super) fn changed(&self, path: &Path) -> io::Result<Timestamp> {
        let metadata = File::from(self.open(path, OFlag::O_PATH)?).metadata()?;
        Timestamp::new(metadata.ctime(), metadata.ctime_nsec() as i32).map_err(io::Error::other)
    }

    /// Opens `path`, an absolute one, with `flags`, whatever links lead there.
    fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let mut left: VecDeque<OsString> = parts(path).collect();
        // The directories from the root to where we are; to have no more of them than the path has parts is what `..`
        // above the root needs: it stays there.
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                above.pop();
                continue;
            }
            let here = above.last().unwrap_or(&self.0);
            let Ok(target) = readlinkat(here, part.as_os_str()) else {
                let flags = if left.is_empty() { flags } else { DIRECTORY | OFlag::O_PATH };
                above.push(openat(here, part.as_os_str(), flags | STEP, Mode::empty())?);
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP.into());
            }
            let target = PathBuf::from(target);
            if target.is_absolute() {
                above.clear();
            }
            for (at, part) in parts(&target).enumerate() {
                left.insert(at, part);
            }
        }
        match above.pop() {
            // It ended with `..`, which was opened to go on from.
            Some(last) if path.ends_with("..") => Ok(openat(&last, ".", flags | STEP, Mode::empty())?),
            Some(last) => Ok(last),
            None => Ok(openat(&self.0, ".", flags | STEP, Mode::empty())?),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let names = Dir::from_fd(self.open(directory, DIRECTORY)?)?;
        names
            .into_iter()
            .map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()))
            .collect()
    }
}

/// Opens nothing but the part that is asked for.
const STEP: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

/// What a path consists of, from the root on.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

impl Files for Root {
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        // Opening a pipe would wait for whoever writes.
        let file = File::from(self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut text = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut text)?;
        if text.len() as u64 > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }

    fn glob(&self, pattern: &str, most: usize) -> io::Result<Vec<PathBuf>> {
        let exists = |path: &Path| self.open(path, OFlag::O_PATH).is_ok();
        glob::expand(pattern, most, |directory| self.list(directory), exists)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::Root;
    use nginx_conf::Files as _;

    #[test]
    fn links_and_parents_lead_nowhere_but_below_the_root() {
        let directory = std::env::temp_dir().join(format!("proxytrace-root-{}", std::process::id()));
        fs::create_dir_all(directory.join("etc/nginx/sites")).unwrap();
        fs::write(directory.join("etc/nginx/nginx.conf"), "events {}").unwrap();
        fs::write(directory.join("etc/one"), "1").unwrap();
        symlink("/etc/nginx/nginx.conf", directory.join("etc/absolute")).unwrap();
        symlink("../../one", directory.join("etc/nginx/sites/relative")).unwrap();
        symlink("../../../../../../etc/one", directory.join("etc/nginx/sites/above")).unwrap();
        symlink("loop", directory.join("etc/loop")).unwrap();
        let root = Root::at(&directory).unwrap();
        let read = |path: &str| root.read(Path::new(path), 100).map_err(|error| error.to_string());
        assert_eq!(read("/etc/absolute").unwrap(), b"events {}");
        assert_eq!(read("/etc/nginx/sites/relative").unwrap(), b"1");
        assert_eq!(read("/etc/nginx/sites/above").unwrap(), b"1");
        assert_eq!(read("/../../etc/./nginx/../one").unwrap(), b"1");
        assert!(read("/etc/loop").unwrap_err().contains("symbolic links"));
        assert!(read("/etc/none").unwrap_err().contains("No such file"));
        assert!(read("/etc/nginx").unwrap_err().contains("is a directory"));
        assert!(root.read(Path::new("/etc/one"), 0).is_err());
        let found = root.glob("/etc/nginx/sites/[ar]*", 10).unwrap();
        assert_eq!(found, [Path::new("/etc/nginx/sites/above"), Path::new("/etc/nginx/sites/relative")]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
