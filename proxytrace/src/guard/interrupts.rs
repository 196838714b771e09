//! The signals that ask a guard to end. None ends it at once: what was changed is taken back first.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that have come, and will.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where whoever started the guard has it ignored, as nohup does.
    hang_up: Option<Signal>,
}

impl Interrupts {
    /// From now on they end nothing by themselves.
    ///
    /// # Errors
    /// They cannot be handled.
    pub(super) fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("handle signals");
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(of(SignalKind::hangup())?) },
        })
    }

    /// Waits for one, and gives its name. Safe to cancel.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hung_up(self.hang_up.as_mut()) => "SIGHUP",
        }
    }
}

async fn hung_up(signal: Option<&mut Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

fn ignores_hang_up() -> bool {
    /// SIGHUP in a set of signals.
    const SIGHUP: u64 = 1;
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.sigign & SIGHUP != 0)
}
