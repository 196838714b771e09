//! The threads beside the main one. A signal, a client or a full pipe is then waited for where nothing else waits.

use std::{io, sync::mpsc, thread};

use anyhow::Context as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::privilege;

/// Starts a thread that holds no capability, and waits until `prepare` is done there: it may need system calls that are
/// refused later. What `prepare` gives is what the thread then does.
///
/// # Errors
/// It could not be started or prepared.
pub fn start_without_capabilities<W: FnOnce()>(
    name: &'static str,
    prepare: impl FnOnce() -> anyhow::Result<W> + Send + 'static,
) -> anyhow::Result<()> {
    start(name, || {
        privilege::drop_all()?;
        prepare()
    })
}

/// The same with the capabilities of the thread that calls this.
///
/// # Errors
/// It could not be started or prepared.
pub fn start<W: FnOnce()>(
    name: &'static str,
    prepare: impl FnOnce() -> anyhow::Result<W> + Send + 'static,
) -> anyhow::Result<()> {
    let (sender, prepared) = mpsc::sync_channel(1);
    let run = move || {
        let (result, work) = match prepare() {
            Ok(work) => (Ok(()), Some(work)),
            Err(error) => (Err(error), None),
        };
        // The other end waits for this.
        let _ = sender.send(result);
        if let Some(work) = work {
            work();
        }
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .with_context(|| format!("start thread {name}"))?;
    let result = prepared.recv().unwrap_or_else(|_| Err(io::Error::other("it has panicked").into()));
    result.with_context(|| format!("prepare thread {name}"))
}

/// Does something in a thread that holds no capability, and waits for what comes of it.
///
/// # Errors
/// What it says; or capabilities could not be given up.
pub fn without_capabilities<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let there = || {
        privilege::drop_all()?;
        work()
    };
    let done = thread::scope(|scope| scope.spawn(there).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Threads that the agent cannot do without.
#[derive(Debug)]
pub struct Crew {
    sender: UnboundedSender<&'static str>,
    ended: UnboundedReceiver<&'static str>,
}

impl Crew {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, ended) = unbounded_channel();
        Self { sender, ended }
    }

    /// To be kept by a thread as long as it runs.
    #[must_use]
    pub fn member(&self, name: &'static str) -> Member {
        Member { name, crew: self.sender.clone() }
    }

    /// Waits until a member has ended, and gives its name. Safe to cancel.
    pub async fn lost(&mut self) -> &'static str {
        match self.ended.recv().await {
            Some(name) => name,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }
}

impl Default for Crew {
    fn default() -> Self {
        Self::new()
    }
}

/// A thread that is missed when it ends, by a panic as well.
#[derive(Debug)]
pub struct Member {
    name: &'static str,
    crew: UnboundedSender<&'static str>,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Nobody misses it when the agent itself has ended.
        let _ = self.crew.send(self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::{Crew, start};

    #[test]
    fn a_thread_that_cannot_be_prepared_is_an_error_and_so_is_one_that_panics() {
        let error = start("one", || anyhow::Result::<fn()>::Err(anyhow::anyhow!("no"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "prepare thread one: no");
        let error = start("two", || -> anyhow::Result<fn()> { panic_any(()) }).unwrap_err();
        assert_eq!(format!("{error:#}"), "prepare thread two: it has panicked");
    }

    #[test]
    fn a_member_that_panics_is_missed() {
        let mut crew = Crew::new();
        let member = crew.member("work");
        start("work", move || {
            Ok(move || {
                let _member = member;
                panic_any(())
            })
        })
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(crew.lost()), "work");
    }
}
