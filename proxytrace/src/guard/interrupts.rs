//! The signals that ask a guard to end. None ends it at once: what was changed is taken back first.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that have come, and will.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
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
            hang_up: of(SignalKind::hangup())?,
        })
    }

    /// Waits for one, and gives its name. Safe to cancel.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}
