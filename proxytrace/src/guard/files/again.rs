//! A directory that is to be put back and is not there any more is made again.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

/// Makes `directory` again where it is not there, or where something that is none is in its place and may be `replaced`. Gives
/// whether that was needed.
///
/// # Errors
/// What the system says, or something else is there.
pub(in super::super) fn make_again(directory: &Path, replaced: bool) -> io::Result<bool> {
    match fs::symlink_metadata(directory) {
        Ok(about) if about.is_dir() => return Ok(false),
        Ok(_) if replaced => fs::remove_file(directory)?,
        Ok(_) => return Err(io::Error::other("it is no directory any more, by no doing of the change")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Its owner and mode come with what is in it.
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    Ok(true)
}
