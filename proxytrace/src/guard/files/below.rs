//! Files below a directory, by descriptor. Others than root may write there, so no step of a path follows a link: none may be put
//! in the way that leads elsewhere.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat,
};

/// A directory.
#[derive(Debug)]
pub(super) struct Below {
    directory: OwnedFd,
}

/// A place in it: the directory that it is in, and its name there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
}

impl Below {
    /// # Errors
    /// It is not there, or no directory: what is behind a link is another one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(directory) => Ok(Self { directory }),
            Err(_) if path.is_symlink() => Err(io::Error::other("a link is in its place")),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory `path` in it; an empty path is the directory itself.
    ///
    /// # Errors
    /// It is not there, no directory, or behind a link.
    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(&self.directory, path, flags, Mode::empty(), resolve)?)
    }

    /// An empty path is the directory itself.
    ///
    /// # Errors
    /// The directory that it is in is not there.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        if path.as_os_str().is_empty() {
            return Ok(Place { parent: self.directory.try_clone()?, name: ".".into() });
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok(Place { parent: self.directory(path.parent().unwrap_or(Path::new("")))?, name })
    }

    /// The names in the directory `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.directory(path)?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Place {
    /// What is there, itself where it is a link.
    ///
    /// # Errors
    /// Nothing is.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens what is there, if it is no link.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(openat(&self.parent, &self.name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Where the link that is there leads.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn link(&self) -> io::Result<PathBuf> {
        let target = readlinkat(&self.parent, &self.name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Gives what is there the name `to`, in place of whatever has that.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn rename(&self, to: &Self) -> io::Result<()> {
        rustix::fs::renameat_with(&self.parent, &self.name, &to.parent, &to.name, RenameFlags::empty())?;
        Ok(())
    }

    /// Removes what is there.
    ///
    /// # Errors
    /// It is a directory with something in it, or what else the system says.
    pub(super) fn remove(&self, is_directory: bool) -> io::Result<()> {
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(&self.parent, &self.name, flags)?)
    }

    /// The same directory, another name.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn sibling(&self, name: OsString) -> io::Result<Self> {
        Ok(Self { parent: self.parent.try_clone()?, name })
    }
}
