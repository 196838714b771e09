//! The commands, one a file, all shaped alike: `Args` and `run`.

pub mod agent;
pub mod check;
pub mod doctor;
pub mod replay;
pub mod trace;

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{cli::Tracing, privilege, watch::Watch};

/// The signals that end a command.
struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
}

impl Shutdown {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// When findings look: soon after something happened, and every second otherwise.
struct Pace {
    has_news: bool,
    last: Instant,
}

impl Pace {
    const SOON: Duration = Duration::from_millis(100);
    const SELDOM: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { has_news: false, last: Instant::now() }
    }

    const fn note_news(&mut self) {
        self.has_news = true;
    }

    /// Waits until it is time to look. Safe to cancel.
    async fn due(&self) {
        sleep_until(self.last + if self.has_news { Self::SOON } else { Self::SELDOM }).await;
    }

    /// That has been done.
    fn note_look(&mut self) {
        *self = Self::new();
    }
}

/// Once everything is open and attached.
fn give_up_privileges(tracing: &Tracing, watch: &Watch) -> anyhow::Result<()> {
    if tracing.keep_privileges {
        tracing::info!("keeps all its privileges, as --keep-privileges asks for");
        return Ok(());
    }
    privilege::lower(|| watch.events_lost().is_ok())
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
