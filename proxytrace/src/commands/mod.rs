//! The commands, one a file, all shaped alike: `Args` and `run`.

pub mod agent;
pub mod check;
pub mod doctor;
pub mod replay;
pub mod trace;

mod shutdown;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{cli::Tracing, privilege, watch::Watch};
use shutdown::Shutdown;

/// When findings look: soon after something happened, and every second otherwise.
pub(crate) struct Pace {
    has_news: bool,
    last: Instant,
}

impl Pace {
    const SOON: Duration = Duration::from_millis(100);
    const SELDOM: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self { has_news: false, last: Instant::now() }
    }

    pub(crate) const fn note_news(&mut self) {
        self.has_news = true;
    }

    /// Waits until it is time to look. Safe to cancel.
    pub(crate) async fn due(&self) {
        sleep_until(self.last + if self.has_news { Self::SOON } else { Self::SELDOM }).await;
    }

    /// That has been done.
    pub(crate) fn note_look(&mut self) {
        *self = Self::new();
    }
}

/// Once everything is open and attached. `start` starts the threads that are to have what is kept.
fn give_up_privileges<T>(
    tracing: &Tracing,
    watch: Watch,
    start: impl FnOnce(Watch) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if tracing.keep_privileges {
        tracing::info!("keeps all its privileges, as --keep-privileges asks for");
        return start(watch);
    }
    let lowered = privilege::lower(|| watch.events_lost().is_ok())?;
    let started = start(watch)?;
    lowered.confine();
    Ok(started)
}

/// The process trees below these pids, in words.
fn trees(pids: &[u32]) -> String {
    match pids {
        [pid] => format!("pid {pid} and what it starts"),
        pids => {
            let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
            format!("pids {} and what they start", pids.join(", "))
        }
    }
}

/// Everything runs on one thread: what is read comes from one ring buffer, and a proxy host's CPUs are the proxy's.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
