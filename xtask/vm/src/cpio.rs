//! Writes the archive that a kernel unpacks into its first file system (cpio, "newc").

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// The end of an archive; another may follow.
const TRAILER: &str = "TRAILER!!!";
/// Between archives and at the end the kernel wants whole blocks.
const BLOCK: usize = 512;

/// An archive that is being written.
pub(crate) struct Archive<W> {
    out: W,
    written: usize,
    entries: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, entries: 0, directories: BTreeSet::new() }
    }

    /// Adds a directory with those above it, unless it is there.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.parent(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.with_parent(path, FILE, content)
    }

    pub(crate) fn program(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.with_parent(path, PROGRAM, content)
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.with_parent(path, LINK, target.as_bytes())
    }

    /// Ends the archive.
    pub(crate) fn end(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, &[])?;
        self.pad(BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn with_parent(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        self.parent(path)?;
        self.entry(path, mode, content)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        let parent = Path::new(path).parent().unwrap_or(Path::new(""));
        self.directory(&parent.to_string_lossy())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let too_large = |_| io::Error::other(format!("{path} is too large for an archive"));
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        let links = 1;
        // inode, mode, owner, group, links, time, size, four device numbers, length of the name, no checksum
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        self.put(format!("070701{fields}{path}\0").as_bytes())?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&[0; BLOCK][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_header_a_name_and_a_content_each_padded_to_four_bytes() {
        let mut archive = Archive::new(Vec::new());
        archive.file("ab", b"xyz").unwrap();
        let bytes = archive.end().unwrap();
        let header = "070701\
            00000001000081a400000000000000000000000100000000\
            0000000300000000000000000000000000000000\
            0000000300000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..120], b"ab\0\0\0\0xyz\0");
        assert_eq!(bytes.len() % BLOCK, 0);
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", b"").unwrap();
        archive.link("/a/b/two", "one").unwrap();
        let text = String::from_utf8(archive.end().unwrap()).unwrap();
        let names: Vec<_> =
            text.split("070701").skip(1).map(|entry| entry[104..].trim_end_matches('\0')).collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two\0\0\0one", TRAILER]);
    }
}
