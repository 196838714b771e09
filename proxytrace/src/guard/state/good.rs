//! What worked last: a later change that comes before its guard is taken back to that.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FORMAT, remove};
use crate::guard::{
    files::{self, Listing, Written},
    known::Configurations,
};

/// A directory as it was when a proxy ran what is in it, and that worked.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Good {
    format: u32,
    pub(super) directory: PathBuf,
    /// When.
    pub(in super::super) at: Timestamp,
    /// How the proxies were configured.
    pub(in super::super) configurations: Configurations,
    /// What was in the directory.
    pub(in super::super) listing: Listing,
}

impl Good {
    pub(super) fn read(path: &Path) -> Option<Self> {
        let file = File::open(path.join("good.json")).ok()?;
        let good: Self = serde_json::from_reader(io::BufReader::new(file)).ok()?;
        (good.format == FORMAT).then_some(good)
    }
}

/// Copies the directory to `path`, in place of what is there; where it is not as in `what` any more, nothing is kept.
pub(super) fn keep(
    path: &Path,
    directory: &Path,
    what: &Listing,
    configurations: &Configurations,
    written: &Written,
) -> io::Result<()> {
    let new = path.with_extension("new");
    remove(&new)?;
    DirBuilder::new().mode(0o700).create(&new)?;
    let listing = files::keep(directory, &new.join("contents"), written)?.listing;
    if !listing.is_same(what) {
        remove(path)?;
        return remove(&new);
    }
    let good = Good {
        format: FORMAT,
        directory: directory.to_owned(),
        at: Timestamp::now(),
        configurations: configurations.clone(),
        listing,
    };
    fs::write(new.join("good.json"), serde_json::to_vec(&good)?)?;
    rustix::fs::syncfs(File::open(&new)?)?;
    remove(path)?;
    fs::rename(new, path)
}
