//! Whether proxies that had workers still have some.

use std::collections::{HashMap, HashSet};

use proxytrace_ebpf::abi::{Event, Process};

use crate::kernel::Snapshot;

/// So long a proxy may be without workers where it is about to end, or to fork new ones.
const DOUBT_NS: u64 = 60_000_000;

/// A failure so long before the last worker ended is the reason why none is left.
const SAME_REASON_NS: u64 = 60_000_000_000;

/// The proxies that have had workers.
#[derive(Debug, Default)]
pub(super) struct Workforces(HashMap<u64, Workforce>);

#[derive(Debug, Default)]
struct Workforce {
    last_exit: Option<Exited>,
    /// The last that ended for an error, or by a signal.
    last_failure: Option<Exited>,
    is_in_doubt: bool,
    is_gone: bool,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exited {
    pub(super) pid: u32,
    /// As wait(2) has it.
    pub(super) status: u32,
    /// Boot time in nanoseconds.
    pub(super) time_ns: u64,
}

/// What has become of the workers of a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// None is left since that time, boot time in nanoseconds; and the one that says most of it.
    Gone(u64, Exited),
    /// There are some again, or the proxy has ended itself.
    Over,
}

impl Workforces {
    /// Takes in that a worker has ended.
    pub(super) fn note(&mut self, event: &Event) {
        if event.kind == Event::WORKER_EXITED {
            let Event { pid, what: status, time_ns, proxy, .. } = *event;
            let (workforce, exited) = (self.0.entry(proxy).or_default(), Exited { pid, status, time_ns });
            workforce.last_exit = Some(exited);
            if status != 0 {
                workforce.last_failure = Some(exited);
            }
        }
    }

    /// Whether a proxy has no worker, and it is too soon to say so.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.0.values().any(|workforce| workforce.is_in_doubt)
    }

    /// Looks at who is there, and gives what has changed.
    pub(super) fn look(
        &mut self,
        snapshot: &Snapshot,
        living: &HashSet<u64>,
        now_ns: u64,
    ) -> Vec<(u64, Turn)> {
        let mut turns = Vec::new();
        let working = working(snapshot);
        for proxy in &working {
            let workforce = self.0.entry(*proxy).or_default();
            workforce.is_in_doubt = false;
            if std::mem::take(&mut workforce.is_gone) {
                turns.push((*proxy, Turn::Over));
            }
        }
        self.0.retain(|proxy, workforce| {
            let lives = living.contains(proxy);
            if !lives && workforce.is_gone {
                turns.push((*proxy, Turn::Over));
            }
            lives
        });
        for (proxy, workforce) in self.0.iter_mut().filter(|(proxy, _)| !working.contains(proxy)) {
            let Some(exited) = workforce.last_exit.filter(|_| !workforce.is_gone) else { continue };
            workforce.is_in_doubt = now_ns.saturating_sub(exited.time_ns) < DOUBT_NS;
            if !workforce.is_in_doubt {
                workforce.is_gone = true;
                // Where the workers of a reload fail at once, the old ones end well after them.
                let is_recent =
                    |failure: &Exited| exited.time_ns.saturating_sub(failure.time_ns) < SAME_REASON_NS;
                let telling = workforce.last_failure.filter(is_recent).unwrap_or(exited);
                turns.push((*proxy, Turn::Gone(exited.time_ns, telling)));
            }
        }
        turns
    }
}

/// The workers of all proxies. One whose master was killed serves on; one that came without a master is a program on its way into the
/// background, as long as whoever forked it runs.
pub(super) fn workers(snapshot: &Snapshot) -> impl Iterator<Item = &Process> {
    // One pass over all processes: a proxy may have thousands.
    let proxy_of: HashMap<u32, u64> =
        snapshot.processes.iter().map(|(pid, process)| (*pid, process.proxy)).collect();
    snapshot.processes.iter().map(|(_, process)| process).filter(move |process| {
        let is_started = process.flags & Process::STARTED != 0;
        process.flags & Process::WORKER != 0
            && (is_started || proxy_of.get(&process.parent) == Some(&process.proxy))
    })
}

/// The proxies that have workers.
fn working(snapshot: &Snapshot) -> HashSet<u64> {
    workers(snapshot).map(|process| process.proxy).collect()
}
