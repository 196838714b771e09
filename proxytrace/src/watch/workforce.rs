//! Whether proxies that had workers still have some.

use std::collections::{HashMap, HashSet};

use proxytrace_ebpf::abi::{Event, Process};

use crate::kernel::Snapshot;

/// So long a proxy may be without workers where it is about to end, or to fork new ones.
const DOUBT_NS: u64 = 60_000_000;

/// The proxies that have had workers.
#[derive(Debug, Default)]
pub(super) struct Workforces(HashMap<u64, Workforce>);

#[derive(Debug, Default)]
struct Workforce {
    last_exit: Option<Exited>,
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
    /// None is left since this one ended.
    Gone(Exited),
    /// There are some again, or the proxy has ended itself.
    Over,
}

impl Workforces {
    /// Takes in that a worker has ended.
    pub(super) fn note(&mut self, event: &Event) {
        if event.kind == Event::WORKER_EXITED {
            let Event { pid, what: status, time_ns, proxy, .. } = *event;
            self.0.entry(proxy).or_default().last_exit = Some(Exited { pid, status, time_ns });
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
                turns.push((*proxy, Turn::Gone(exited)));
            }
        }
        turns
    }
}

/// The proxies that have workers.
pub(super) fn working(snapshot: &Snapshot) -> HashSet<u64> {
    let proxy_of: HashMap<u32, u64> =
        snapshot.processes.iter().map(|(pid, process)| (*pid, process.proxy)).collect();
    let is_worker = |process: &Process| {
        process.flags & Process::WORKER != 0 && proxy_of.get(&process.parent) == Some(&process.proxy)
    };
    snapshot
        .processes
        .iter()
        .filter(|(_, process)| is_worker(process))
        .map(|(_, process)| process.proxy)
        .collect()
}
