//! The files of this machine: the only place with input and output.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::{Files, glob};

/// The files of this machine, as this process sees them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let metadata = fs::metadata(path)?;
        let kind = metadata.file_type();
        // What nginx reads of them: as much as their size says.
        if kind.is_char_device() || kind.is_block_device() {
            return Ok(Vec::new());
        }
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Opening a pipe would wait for whoever writes.
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut text = Vec::new();
        File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut text)?;
        if text.len() as u64 > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }

    fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>> {
        let list = |directory: &Path| {
            fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
        };
        glob::expand(pattern, max, list, |path| path.symlink_metadata().is_ok())
    }
}
