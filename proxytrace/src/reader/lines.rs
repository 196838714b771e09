//! Lines of a pipe, none longer than a limit: whoever writes cannot make the one who reads hold more.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// The capacity that is kept for the next line, in bytes; more is given back once a long line was taken.
const KEPT: usize = 1 << 20;

/// Lines, as they come.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    /// So much of the buffer holds no end of a line.
    searched: usize,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of `from`, of at most `max` bytes each.
    pub(super) const fn new(from: R, max: usize) -> Self {
        Self { from, buffer: Vec::new(), searched: 0, max }
    }

    /// The next line without its end; `None` at the end, where a line without an end does not count. Safe to cancel.
    ///
    /// # Errors
    /// The pipe could not be read, or a line is too long ([`io::ErrorKind::FileTooLarge`]).
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|end| self.searched + end) {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                self.searched = 0;
                self.buffer.shrink_to(KEPT);
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > self.max {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.buffer.reserve(CHUNK);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{CHUNK, Lines};

    /// The lines of a text, and what came instead of the next.
    fn read(text: &[u8], max: usize) -> (Vec<usize>, Option<io::ErrorKind>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut lines = Lines::new(text, max);
        let mut lengths = Vec::new();
        loop {
            match runtime.block_on(lines.next()) {
                Ok(Some(line)) => lengths.push(line.len()),
                Ok(None) => return (lengths, None),
                Err(error) => return (lengths, Some(error.kind())),
            }
        }
    }

    #[test]
    fn lines_come_whole_whatever_their_length_is_up_to_the_limit() {
        let max = 3 * CHUNK;
        let text = [&b"a\n\n"[..], &vec![b'b'; max], b"\nc\nwithout an end"].concat();
        assert_eq!(read(&text, max), (vec![1, 0, max, 1], None));
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_all_of_it_is_held() {
        let text = [&b"a\n"[..], &vec![b'b'; 100 * CHUNK]].concat();
        assert_eq!(read(&text, CHUNK), (vec![1], Some(io::ErrorKind::FileTooLarge)));
    }
}
