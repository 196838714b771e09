//! Files that were read, and whether they have changed since.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::config_file;

/// Files as they were when they were read.
#[derive(Debug, Default)]
pub struct Files(Vec<(PathBuf, Option<Stamp>)>);

/// What differs when a file was written, or another one has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Files {
    /// Reads one, and remembers it, also if that fails.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        // Before it is read: a change in between shows later.
        self.0.push((path.to_owned(), stamp(path)));
        config_file::read(path)
    }

    /// Whether one of them is another now.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, before)| stamp(path) != *before)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::Files;

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Files::default().read(&path).unwrap_err();
        assert!(error.to_string().contains("a pipe cannot be read again"), "{error}");
    }

    #[test]
    fn a_file_that_is_written_replaced_removed_or_linked_elsewhere_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "one").unwrap();
        let read = || {
            let mut files = Files::default();
            let _ = files.read(&path("a"));
            assert!(!files.have_changed());
            files
        };
        let files = read();
        fs::write(path("a"), "other").unwrap();
        assert!(files.have_changed());

        let files = read();
        fs::write(path("b"), "other").unwrap();
        fs::rename(path("b"), path("a")).unwrap();
        assert!(files.have_changed());

        let files = read();
        fs::remove_file(path("a")).unwrap();
        assert!(files.have_changed());

        let files = read();
        fs::write(path("c"), "other").unwrap();
        symlink(path("c"), path("a")).unwrap();
        assert!(files.have_changed(), "it was not there before");

        // As Kubernetes changes what is mounted of a Secret.
        let files = read();
        fs::write(path("d"), "other").unwrap();
        symlink(path("d"), path("e")).unwrap();
        fs::rename(path("e"), path("a")).unwrap();
        assert!(files.have_changed());
    }
}
