//! The ends of the logs that a process has open.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use super::root::Root;

/// How much of the end of a log is read, in bytes: some ten of nginx's longest lines, which it cuts at 2 KiB (ngx_log.h).
const MAX_END: u64 = 64 << 10;

/// Permission to read for everybody.
const READ_BY_OTHERS: u32 = 0o004;

/// The end of a log.
pub(super) struct End {
    pub(super) text: String,
    /// Everybody may read it.
    pub(super) is_public: bool,
}

/// The end of a regular file, whatever has become of its name.
///
/// # Errors
/// It is no regular file, on something that is not looked at, or not ours to read.
pub(super) fn end(root: &Root, log: &OwnedFd) -> io::Result<End> {
    let mut file = root.open_found(log)?;
    let about = file.metadata()?;
    file.seek(SeekFrom::Start(about.len().saturating_sub(MAX_END)))?;
    let mut end = Vec::new();
    file.take(MAX_END).read_to_end(&mut end)?;
    let is_public = about.mode() & READ_BY_OTHERS != 0 && has_public_path(root, log);
    Ok(End { text: String::from_utf8_lossy(&end).into_owned(), is_public })
}

/// Whether everybody may look up a file that is open, by the name that it has now.
fn has_public_path(root: &Root, file: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|path| root.is_public(&path))
}
