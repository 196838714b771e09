//! The side of the trace: starts the reader, asks, and hears answers.

use std::{
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{ChildStdin, Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe::Receiver,
};

use super::{Reply, Request, serve::COMMAND};

/// The reader, to be asked. It ends when this is dropped.
#[derive(Debug)]
pub struct Reader(ChildStdin);

/// What it answers.
#[derive(Debug)]
pub struct Replies(Option<Lines<BufReader<Receiver>>>);

/// Starts it, with this process's privileges: to be done before those are given up.
///
/// # Errors
/// No process could be started.
pub fn start() -> io::Result<(Reader, Replies)> {
    // This program, whatever has become of its file.
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C is for the trace, which then ends this.
        .process_group(0)
        .spawn()?;
    let missing = || io::Error::other("a process has no pipe");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout: OwnedFd = child.stdout.take().ok_or_else(missing)?.into();
    let lines = BufReader::new(Receiver::from_owned_fd(stdout)?).lines();
    Ok((Reader(stdin), Replies(Some(lines))))
}

impl Reader {
    /// Asks; the answer comes later.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn ask(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

impl Replies {
    /// Waits for the next answer; for ever once the reader is gone, which is logged. Safe to cancel.
    pub async fn next(&mut self) -> Reply {
        while let Some(lines) = &mut self.0 {
            let why = match lines.next_line().await {
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(reply) => return reply,
                    Err(error) => error.to_string(),
                },
                Ok(None) => "it has ended".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(
                "the process that reads nginx's configuration: {why}; no upstream is named from now on"
            );
            self.0 = None;
        }
        std::future::pending().await
    }
}
