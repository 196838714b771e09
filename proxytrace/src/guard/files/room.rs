//! Room on the file system of a directory, so that it can be put back also when the disk is full by then.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat},
    io::Errno,
};

use super::listing::{Kind, Listing};

/// More is not reserved, in bytes: a configuration is smaller.
const MAX: u64 = 64 << 20;
/// Files take up whole blocks, and one more for what is known of them, in bytes.
const BLOCK: u64 = 4096;

/// Room that nobody else can take. It is given back when this is dropped, and when the process ends.
#[derive(Debug)]
pub(in super::super) struct Room {
    /// A file without a name. `None` where the file system has none, or no room to set aside.
    _file: Option<File>,
}

impl Room {
    /// Reserves what it takes to write all files of `listing` once more.
    ///
    /// # Errors
    /// There is not so much room.
    pub(in super::super) fn for_all(directory: &Path, listing: &Listing) -> io::Result<Self> {
        let of = |kind: &Kind| match kind {
            Kind::File { length, .. } => length.next_multiple_of(BLOCK) + BLOCK,
            Kind::Directory | Kind::Link { .. } => BLOCK,
            Kind::Written | Kind::Other => 0,
        };
        let bytes: u64 = listing.entries().map(|listed| of(&listed.entry.kind)).sum();
        match reserved(directory, bytes.min(MAX)) {
            Ok(file) => Ok(Self { _file: Some(file) }),
            Err(Errno::NOSPC | Errno::DQUOT) => {
                Err(io::Error::other(format!("{} KiB: No space left on device", bytes.min(MAX) >> 10)))
            }
            Err(_) => Ok(Self { _file: None }),
        }
    }
}

fn reserved(directory: &Path, bytes: u64) -> Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, directory, flags, Mode::from_raw_mode(0o600))?;
    if bytes > 0 {
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    }
    Ok(file.into())
}
