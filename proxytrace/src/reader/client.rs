//! The side of the trace: starts the reader, asks, and hears answers.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe::{Receiver, Sender},
    sync::Notify,
    task::AbortHandle,
};

use super::{
    lines::Lines,
    pending::Pending,
    protocol::{MAX_ANSWER, MAX_REQUEST, Reply, Request},
    serve::COMMAND,
};

/// What stands around an answer in a line.
const ENVELOPE: usize = 1 << 10;

/// Where the service manager hears of the agent (sd_notify(3)).
const SERVICE_MANAGER: &[&str] = &["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The reader, to be asked. It ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    outbox: Arc<Outbox>,
    writing: AbortHandle,
}

/// Questions that the pipe does not take yet: one of each kind of each proxy.
#[derive(Debug, Default)]
struct Outbox {
    pending: Mutex<Pending>,
    news: Notify,
}

/// What it answers.
#[derive(Debug)]
pub struct Replies(Option<Lines<Receiver>>);

/// The reader is gone: nobody answers any more.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// It has ended, which it never does by itself.
    #[error(
        "the process that reads nginx's configurations has ended; see what it said before, and whether somebody killed it \
         (the kernel's log names what the OOM killer ended), then start again"
    )]
    Ended,
    /// What it says cannot be read.
    #[error(
        "what the process that reads nginx's configurations says cannot be read: {0}; please report this"
    )]
    Unreadable(io::Error),
}

/// Starts it, with this process's privileges: to be done before those are given up, in a runtime of tokio.
///
/// # Errors
/// No process could be started.
pub fn start() -> io::Result<(Client, Replies)> {
    // This program, whatever has become of its file.
    let mut command = Command::new("/proc/self/exe");
    // What it says would be taken for this process's word.
    SERVICE_MANAGER.iter().for_each(|name| {
        command.env_remove(name);
    });
    let mut child = command
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C is for the trace, which then ends this.
        .process_group(0)
        .spawn()?;
    let missing = || io::Error::other("a process has no pipe");
    let stdin: OwnedFd = child.stdin.take().ok_or_else(missing)?.into();
    let stdout: OwnedFd = child.stdout.take().ok_or_else(missing)?.into();
    let outbox = Arc::new(Outbox::default());
    let writing = tokio::spawn(write(Sender::from_owned_fd(stdin)?, Arc::clone(&outbox))).abort_handle();
    let lines = Lines::new(Receiver::from_owned_fd(stdout)?, MAX_ANSWER + ENVELOPE);
    Ok((Client { outbox, writing }, Replies(Some(lines))))
}

/// By itself, so that whoever asks never waits for a reader that is busy, stopped or stuck.
async fn write(mut pipe: Sender, outbox: Arc<Outbox>) -> io::Result<()> {
    loop {
        let next = outbox.pending().take(|_| true);
        match next {
            Some(request) => {
                let mut line = serde_json::to_vec(&request)?;
                line.push(b'\n');
                pipe.write_all(&line).await?;
            }
            None => outbox.news.notified().await,
        }
    }
}

impl Outbox {
    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Asks, and never waits: the answer comes later. While the reader takes nothing the question waits; one about a newer
    /// generation of the same proxy then takes its place.
    ///
    /// # Errors
    /// The reader is gone, or the question is longer than it takes.
    pub fn ask(&self, request: Request) -> io::Result<()> {
        if self.writing.is_finished() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if serde_json::to_vec(&request)?.len() > MAX_REQUEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.outbox.pending().push(request);
        self.outbox.news.notify_one();
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Replies {
    /// Waits for the next answer. Safe to cancel.
    ///
    /// # Errors
    /// Once, when the reader is gone. From then on this waits for ever.
    pub async fn next(&mut self) -> Result<Reply, Gone> {
        let Some(lines) = &mut self.0 else { return std::future::pending().await };
        let gone = match lines.next().await {
            Ok(Some(line)) => match serde_json::from_slice(&line) {
                Ok(reply) => return Ok(reply),
                Err(error) => Gone::Unreadable(error.into()),
            },
            Ok(None) => Gone::Ended,
            Err(error) => Gone::Unreadable(error),
        };
        self.0 = None;
        Err(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::PipeReader, os::fd::OwnedFd, sync::Arc};

    use super::{Client, Gone, Lines, MAX_REQUEST, Outbox, Receiver, Replies, Sender, write};
    use crate::reader::{
        protocol::{Lookup, Question},
        tests::request,
    };

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// A client of a reader that takes what this pipe gives.
    fn client() -> (Client, PipeReader) {
        let (receiver, sender) = std::io::pipe().unwrap();
        let outbox = Arc::new(Outbox::default());
        let pipe = Sender::from_owned_fd(OwnedFd::from(sender)).unwrap();
        let writing = tokio::spawn(write(pipe, Arc::clone(&outbox))).abort_handle();
        (Client { outbox, writing }, receiver)
    }

    fn lookups(count: usize) -> Question {
        let lookup =
            |n| Lookup { name: format!("n{n}.example.test"), is_service: false, servers: Vec::new() };
        Question::Addresses((0..count).map(lookup).collect())
    }

    #[test]
    fn who_asks_a_reader_that_takes_nothing_neither_waits_nor_piles_questions_up() {
        block_on(async {
            let (client, _receiver) = client();
            for generation in 0..100 {
                client.ask(request(1, generation, lookups(1000))).unwrap();
                tokio::task::yield_now().await;
            }
            let mut pending = client.outbox.pending();
            assert_eq!(pending.take(|_| true).map(|request| request.id.generation), Some(99));
            assert!(pending.is_empty());
            drop(pending);
            let error = client.ask(request(1, 0, lookups(MAX_REQUEST / 16))).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
        });
    }

    #[test]
    fn that_the_reader_is_gone_is_said_once_to_who_waits_and_to_who_asks() {
        block_on(async {
            let (receiver, sender) = std::io::pipe().unwrap();
            let pipe = Receiver::from_owned_fd(OwnedFd::from(receiver)).unwrap();
            let mut replies = Replies(Some(Lines::new(pipe, 100)));
            drop(sender);
            assert!(matches!(replies.next().await, Err(Gone::Ended)));
            let again = tokio::time::timeout(std::time::Duration::from_millis(20), replies.next()).await;
            assert!(again.is_err(), "nothing more");

            let (client, receiver) = client();
            drop(receiver);
            client.ask(request(1, 0, Question::Pod)).unwrap();
            while !client.writing.is_finished() {
                tokio::task::yield_now().await;
            }
            assert!(client.ask(request(1, 0, Question::Pod)).is_err());
        });
    }
}
