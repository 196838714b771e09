//! Links that lead to a directory: one that a deploy turns to another directory (`current`) is a part of what is put back.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{paths, temporary};

/// A link, and where it led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Link {
    #[serde(with = "paths")]
    pub(in super::super) path: PathBuf,
    #[serde(with = "paths")]
    target: PathBuf,
}

impl Link {
    /// Those on the way to `path`, as it is written.
    pub(in super::super) fn all(path: &Path) -> Vec<Self> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let link = |path: &Path| Some(Self { path: path.to_owned(), target: fs::read_link(path).ok()? });
        absolute.ancestors().filter_map(link).collect()
    }

    /// Whether it leads where it led.
    pub(in super::super) fn is_as_it_was(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == self.target)
    }

    /// Has it lead there again.
    ///
    /// # Errors
    /// Something else is in its place, or what the system says.
    pub(in super::super) fn put_back(&self) -> io::Result<()> {
        let new = self.path.with_file_name(temporary::name(0));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(&self.target, &new)?;
        fs::rename(&new, &self.path).inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::Link;

    #[test]
    fn links_on_the_way_are_turned_back() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        for name in ["1/nginx", "2/nginx"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink("1", path("current")).unwrap();
        let links = Link::all(&path("current/nginx"));
        let link = links.iter().find(|link| link.path == path("current")).unwrap();
        assert!(Link::all(&path("1/nginx")).iter().all(|link| !link.path.starts_with(temporary.path())));
        assert!(link.is_as_it_was());
        fs::remove_file(path("current")).unwrap();
        symlink("2", path("current")).unwrap();
        assert!(!link.is_as_it_was());
        link.put_back().unwrap();
        assert!(link.is_as_it_was());
        fs::remove_file(path("current")).unwrap();
        fs::create_dir(path("current")).unwrap();
        link.put_back().unwrap_err();
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 3, "nothing is left of it");
    }
}
