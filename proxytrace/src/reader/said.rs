//! What the process that works on one question says to the one that started it: lines of bounded length.

use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::protocol::{Answer, MAX_ANSWER};

/// Why something is not reported that was found.
pub(super) const TOO_LARGE: &str = "its configuration is too large: of one proxy at most 8 MiB of servers, routes and \
                                    upstreams are taken";

/// A line, of which the answer is the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// All files that the answer needs were read: what is left is to wait for name servers.
    FilesRead,
    Answer(Answer),
}

impl Said {
    /// The line, where it is no longer than answers may be.
    ///
    /// # Errors
    /// It is ([`io::ErrorKind::FileTooLarge`]).
    pub(super) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = Bounded(Vec::new());
        serde_json::to_writer(&mut line, self)?;
        line.0.push(b'\n');
        Ok(line.0)
    }
}

/// Says that from now on only name servers are waited for.
pub(super) fn note_files_read() -> anyhow::Result<()> {
    io::stdout().write_all(&Said::FilesRead.line()?)?;
    Ok(io::stdout().flush()?)
}

/// Bytes, of which there can be no more than an answer may have.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_ANSWER {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, MAX_ANSWER, Said, TOO_LARGE};

    #[test]
    fn an_answer_that_is_too_long_is_no_line() {
        let line = |length| Said::Answer(Answer::Unreadable("a".repeat(length))).line();
        assert!(
            line(MAX_ANSWER)
                .is_err_and(|error| error.io_error_kind() == Some(std::io::ErrorKind::FileTooLarge))
        );
        assert!(line(MAX_ANSWER - 100).is_ok_and(|line| line.len() <= MAX_ANSWER));
        assert!(TOO_LARGE.contains(&format!("{} MiB", MAX_ANSWER >> 20)));
    }
}
