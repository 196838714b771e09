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
pub struct Replies(Lines<BufReader<Receiver>>);

/// The reader is gone: nothing is answered from now on.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process that reads nginx's configuration is gone ({0}), so no upstream can be named; start proxytrace again"
)]
pub struct Gone(String);

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
    Ok((Reader(stdin), Replies(lines)))
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
    /// Waits for the next answer. Safe to cancel.
    ///
    /// # Errors
    /// There will be none any more.
    pub async fn next(&mut self) -> Result<Reply, Gone> {
        match self.0.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|error| Gone(error.to_string())),
            Ok(None) => Err(Gone("it has ended; the kernel's log says whether memory ran out".to_owned())),
            Err(error) => Err(Gone(error.to_string())),
        }
    }
}
