//! Makes sure that files are on disk: after a power cut, what is there may be something else otherwise.

use std::{fs::File, io, path::Path};

use rustix::fs::OFlags;

use super::{
    below::Below,
    listing::{Kind, Listing},
};

/// Waits until on disk is what differs between `now` and `known`, and all names. Only that: whatever else is being written on the same
/// file system may take long.
///
/// # Errors
/// It cannot be written. What is not there any more is none of it.
pub(in super::super) fn settle(directory: &Path, now: &Listing, known: &Listing) -> io::Result<()> {
    let below = Below::open(directory)?;
    File::from(below.directory(Path::new(""))?).sync_all()?;
    for listed in now.entries() {
        let file = match &listed.entry.kind {
            Kind::File { .. } if known.get(&listed.path) != Some(listed) => {
                below.place(&listed.path).and_then(|place| place.open(OFlags::RDONLY, 0))
            }
            Kind::Directory => below.directory(&listed.path).map(File::from),
            _ => continue,
        };
        match file {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
