//! How a command begins to trace.

use std::time::Duration;

use super::options::Tracing;
use crate::{
    privilege,
    session::{Pump, Session},
    watch::{Limits, Names, Watch},
};

/// What a command wants of a trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Whether it shows records; else events are only counted.
    pub(super) records: bool,
    /// Whether somebody waits for the first look at everything, such as for an agent to be ready.
    pub(super) soon: bool,
    /// Whether established connects are among them.
    pub(super) established: bool,
    /// So many addresses of one owner get series of their own.
    pub(super) max_addresses: usize,
    /// How long a series is kept that is neither declared nor used.
    pub(super) series_kept: Duration,
    /// How long anything is kept of a proxy that has ended.
    pub(super) ended_kept: Duration,
}

/// Attaches everything, with all privileges.
///
/// # Errors
/// The host does not let us trace.
pub(super) fn start(options: &Tracing, wanted: Wanted) -> anyhow::Result<(Session, Pump)> {
    let Wanted { max_addresses, series_kept, ended_kept, .. } = wanted;
    let limits = Limits { max_addresses, series_kept, ended_kept };
    let names = Names { config: options.nginx_config.clone(), resolves: !options.no_resolve };
    let (watch, events, replies) = Watch::start(&options.options(wanted.established), names, limits)?;
    Ok(Session::new(watch, events, replies, wanted.records, wanted.soon))
}

/// Gives privileges up, once everything is open and attached. `start` starts the threads that are to have what is kept.
///
/// # Errors
/// They cannot be given up, or `start` failed.
pub(super) fn give_up_privileges<T>(
    options: &Tracing,
    session: Session,
    start: impl FnOnce(Session) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if options.keep_privileges {
        tracing::info!("keeps all its privileges, as --keep-privileges asks for");
        return start(session);
    }
    let lowered = privilege::lower(|| session.watch().events_lost().is_ok())?;
    let started = start(session)?;
    lowered.confine();
    Ok(started)
}

/// The process trees below these pids, in words.
pub(super) fn trees(pids: &[u32]) -> String {
    match pids {
        [pid] => format!("pid {pid} and what it starts"),
        pids => {
            let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
            format!("pids {} and what they start", pids.join(", "))
        }
    }
}
