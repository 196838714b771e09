//! Files as another process sees them: below its root directory, in its mount namespace.
//!
//! A path below /proc/PID/root is not enough: an absolute symbolic link in it would lead into our own root. So each
//! part of a path is opened by itself, and links are followed by hand.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

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
pub struct Root(OwnedFd);

impl Root {
    /// The root directory of the process `pid`.
    ///
    /// # Errors
    /// The process is gone, or not ours to look into.
    pub fn of(pid: u32) -> io::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        Ok(Self(openat(AT_FDCWD, &path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// Opens an absolute path for reading.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, path: &Path) -> io::Result<File> {
        Ok(File::from(self.walk(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?))
    }

    /// Opens the last part of `path` with `flags`, whatever links lead there.
    fn walk(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let mut left: VecDeque<OsString> = parts(path).collect();
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        let step = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                above.pop();
                continue;
            }
            let here = above.last().unwrap_or(&self.0);
            if let Ok(target) = readlinkat(here, part.as_os_str()) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    above.clear();
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(part);
                }
                continue;
            }
            if left.is_empty() {
                return Ok(openat(here, part.as_os_str(), flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?);
            }
            let next = openat(here, part.as_os_str(), step | OFlag::O_DIRECTORY, Mode::empty())?;
            above.push(next);
        }
        let here = above.last().unwrap_or(&self.0);
        Ok(openat(here.as_fd(), ".", flags | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let directory = self.walk(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

use std::os::unix::ffi::OsStrExt as _;

/// What a path consists of, from the root; `..` is kept.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

impl Files for Root {
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut text = Vec::new();
        file.take(most + 1).read_to_end(&mut text)?;
        if text.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it holds more than {most} bytes")));
        }
        Ok(text)
    }

    fn glob(&self, pattern: &str, most: usize) -> io::Result<Vec<PathBuf>> {
        todo!("{pattern} {most} {:?}", self.list(Path::new("/")))
    }
}
