//! SIGTERM and SIGINT end a command within a second, also one that waits for somebody who does not read what it writes.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{exit::Failure, threads};

/// A command that cannot write is given so long to end by itself.
const STUCK: Duration = Duration::from_millis(700);

/// Any other is given so long: there is much to sum up on a slow machine.
const LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether it can write.
const LOOK: Duration = Duration::from_millis(50);

/// The request to end.
#[derive(Debug)]
pub(super) struct Shutdown(Arc<Notify>);

impl Shutdown {
    /// Begins to wait for the signals, on a thread of its own.
    ///
    /// # Errors
    /// They cannot be handled, or no thread can be started.
    pub(super) fn start() -> anyhow::Result<Self> {
        let requested = Arc::new(Notify::new());
        let request = Arc::clone(&requested);
        threads::start_without_capabilities("signals", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let (mut interrupt, mut terminate) = {
                let _context = runtime.enter();
                let of = |kind| signal(kind).context("handle signals");
                (of(SignalKind::interrupt())?, of(SignalKind::terminate())?)
            };
            Ok(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                request.notify_one();
                end_when_stuck();
            })
        })?;
        Ok(Self(requested))
    }

    /// Waits until the command is to end. Safe to cancel.
    pub(super) async fn requested(&self) {
        self.0.notified().await;
    }
}

/// Ends the process if it does not end by itself, and so this thread.
fn end_when_stuck() {
    let started = Instant::now();
    let (stdout, stderr) = (io::stdout(), io::stderr());
    while started.elapsed() < LIMIT {
        thread::sleep(LOOK);
        let is_stuck = || !is_writable(stdout.as_fd()) || !is_writable(stderr.as_fd());
        if started.elapsed() >= STUCK && is_stuck() {
            break;
        }
    }
    #[expect(unsafe_code, reason = "whatever is done at an orderly end could wait for the same pipe")]
    // SAFETY: it ends the process, without a look at its memory.
    unsafe {
        libc::_exit(Failure::Failed as i32)
    }
}

/// Whether a write would not wait. What cannot be asked counts as writable, as does a pipe that nobody will ever read.
fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].any().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::AsFd as _};

    use super::is_writable;

    #[test]
    fn a_full_pipe_is_not_writable_and_a_closed_one_makes_nobody_wait() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert!(is_writable(writer.as_fd()));
        let mut file = std::fs::File::from(writer.try_clone().unwrap());
        // The kernel's usual size of a pipe.
        file.write_all(&[0; 65536]).unwrap();
        assert!(!is_writable(writer.as_fd()));
        drop(reader);
        assert!(is_writable(writer.as_fd()));
    }
}
