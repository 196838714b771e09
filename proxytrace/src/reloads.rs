//! Reloads that were asked for, until it is known what became of them.
//!
//! An accepted reload shows in the kernel half, by the fork of a new worker. A rejected one shows there at the next signal
//! only; here it is found as soon as the master waits for signals again.

use std::{collections::HashMap, time::Duration};

use procfs::process::Process as Proc;
use proxytrace_ebpf::abi::{Event, Process};

/// How often to ask for [`Reloads::rejected`] while a reload is open.
pub const CHECK: Duration = Duration::from_millis(50);

/// How long a master may take to fork a worker that does not show when it is done, as nginx's does.
const PATIENCE: Duration = Duration::from_secs(10);

/// SIGHUP in a set of signals.
const SIGHUP: u64 = 1;

/// The reloads that are open, and those that were found to be rejected.
#[derive(Debug, Default)]
pub struct Reloads {
    open: HashMap<u32, Open>,
    /// When the reload was asked for that was rejected last, by master.
    rejected: HashMap<u32, u64>,
}

/// A reload that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The id of the proxy.
    pub proxy: u64,
    /// The master.
    pub pid: u32,
    /// The generation that runs.
    pub generation: u32,
    /// When it was asked for, boot time in nanoseconds.
    pub asked_ns: u64,
    /// Whether the master holds SIGHUP back until it is done with the reload.
    pub shows_when_done: bool,
}

impl Open {
    /// The open reload of a process in the kernel half's table, if there is one.
    #[must_use]
    pub fn of_process(pid: u32, process: &Process) -> Option<Self> {
        (process.reload_asked_ns != 0).then_some(Self {
            proxy: process.proxy,
            pid,
            generation: process.generation,
            asked_ns: process.reload_asked_ns,
            shows_when_done: process.flags & Process::WAITS_FOR_SIGNALS != 0,
        })
    }

    /// Whether the master is done with it, as far as can be seen from outside.
    fn is_done(&self, now_ns: u64) -> bool {
        let held_back = || Proc::new(self.pid.cast_signed())?.status().map(|status| status.sigblk);
        match held_back() {
            Ok(held_back) if self.shows_when_done => held_back & SIGHUP == 0,
            _ => now_ns.saturating_sub(self.asked_ns) >= PATIENCE.as_nanos() as u64,
        }
    }
}

impl Reloads {
    /// Whether there is any of which it is not known what became of it.
    #[must_use]
    pub fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Notes what an event tells of a reload. Gives false for a rejection that was found here before.
    pub fn note(&mut self, event: &Event) -> bool {
        let asked_ns = event.time_ns.saturating_sub(event.duration_ns);
        match event.kind {
            Event::RELOAD_ASKED => {
                let shows_when_done = event.what & Process::WAITS_FOR_SIGNALS != 0;
                let Event { proxy, pid, generation, .. } = *event;
                self.open.insert(pid, Open { proxy, pid, generation, asked_ns, shows_when_done });
                true
            }
            Event::RELOADED => {
                self.open.remove(&event.pid);
                true
            }
            Event::RELOAD_REJECTED => {
                self.open.retain(|pid, open| *pid != event.pid || open.asked_ns != asked_ns);
                self.rejected.insert(event.pid, asked_ns) != Some(asked_ns)
            }
            _ => true,
        }
    }

    /// The open reloads that are found to be rejected now; each is given once. `is_open` asks the kernel half.
    pub fn rejected(&mut self, now_ns: u64, is_open: impl Fn(&Open) -> bool) -> Vec<Open> {
        let done: Vec<_> = self.open.values().filter(|open| open.is_done(now_ns)).copied().collect();
        // What the master did was done before it waited, so the kernel half knows of it by now.
        let rejected: Vec<_> = done.iter().filter(|open| is_open(open)).copied().collect();
        for open in done {
            self.open.remove(&open.pid);
        }
        self.rejected.extend(rejected.iter().map(|open| (open.pid, open.asked_ns)));
        rejected
    }

    /// Whether a reload that the kernel half holds open is rejected: once it is, it stays so.
    pub fn is_rejected(&mut self, open: &Open, now_ns: u64, is_open: impl Fn(&Open) -> bool) -> bool {
        if self.rejected.get(&open.pid) == Some(&open.asked_ns) {
            return true;
        }
        let is_rejected = open.is_done(now_ns) && is_open(open);
        if is_rejected {
            self.rejected.insert(open.pid, open.asked_ns);
            self.open.remove(&open.pid);
        }
        is_rejected
    }

    /// Forgets the masters that are gone.
    pub fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.open.retain(|pid, _| is_there(*pid));
        self.rejected.retain(|pid, _| is_there(*pid));
    }
}
