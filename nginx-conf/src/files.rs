//! Where configuration files come from.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Where configuration files come from.
pub trait Files {
    /// The content of a file.
    ///
    /// # Errors
    /// It is not there, may not be read, or holds more than `max` bytes.
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>>;

    /// The paths that match a shell pattern, sorted, without those whose name begins with a dot unless the pattern has
    /// it: glob(3) as nginx calls it. None is no error.
    ///
    /// # Errors
    /// A directory could not be read, or more than `max` match.
    fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>>;
}
