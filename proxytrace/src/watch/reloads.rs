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
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// SIGHUP in a set of signals.
const SIGHUP: u64 = 1;

/// The reloads that are open, and those that were found to be rejected.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    open: HashMap<u32, Open>,
    /// When the reload was asked for that was found to be rejected last, by master.
    rejected: HashMap<u32, u64>,
}

/// A reload that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// The id of the proxy.
    pub(super) proxy: u64,
    /// The master.
    pub(super) pid: u32,
    /// The generation that runs.
    pub(super) generation: u32,
    /// When it was asked for, boot time in nanoseconds.
    pub(super) asked_ns: u64,
    /// How it shows that the master is done with the reload: [`Process::WAITS_FOR_SIGNALS`] for one that holds SIGHUP back until
    /// then, [`Process::UPGRADES`] for one that ends where it refuses, and 0 for any other.
    pub(super) shows: u32,
}

impl Open {
    const WAYS_TO_SHOW: u32 = Process::WAITS_FOR_SIGNALS | Process::UPGRADES;

    /// The open reload of a process in the kernel half's table, if there is one.
    #[must_use]
    pub(super) fn of_process(pid: u32, process: &Process) -> Option<Self> {
        (process.reload_asked_ns != 0).then_some(Self {
            proxy: process.proxy,
            pid,
            generation: process.generation,
            asked_ns: process.reload_asked_ns,
            shows: process.flags & Self::WAYS_TO_SHOW,
        })
    }

    /// Whether the master is done with it, as far as can be seen from outside.
    fn is_done(&self, now_ns: u64) -> bool {
        let status = || Proc::new(self.pid.cast_signed())?.status();
        if self.shows == Process::UPGRADES {
            return false; // the kernel half sees its end
        }
        match status() {
            // It waits. Between the delivery of a signal and its handler the mask is that of sigsuspend() still, but then it
            // runs, or would if the host let it.
            Ok(status) if self.shows == Process::WAITS_FOR_SIGNALS => {
                status.sigblk & SIGHUP == 0 && status.state.starts_with('S')
            }
            _ => now_ns.saturating_sub(self.asked_ns) >= FORK_TIMEOUT.as_nanos() as u64,
        }
    }
}

impl Reloads {
    /// Whether there is any of which it is not known what became of it.
    #[must_use]
    pub(super) fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The ids of the proxies that have one.
    pub(super) fn open(&self) -> impl Iterator<Item = u64> {
        self.open.values().map(|open| open.proxy)
    }

    /// Takes up a reload that the kernel half holds open, unless it was found to be rejected.
    pub(super) fn note_open(&mut self, open: Open) {
        if !self.is_rejected(&open) {
            self.open.insert(open.pid, open);
        }
    }

    /// Notes what an event reports of a reload. Gives false for a rejection that was found here before.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let asked_ns = event.time_ns.saturating_sub(event.duration_ns);
        match event.kind {
            Event::RELOAD_ASKED => {
                let Event { proxy, pid, generation, what, .. } = *event;
                let shows = what & Open::WAYS_TO_SHOW;
                // On a busy host it may have been found in the table before, and be rejected by now.
                self.note_open(Open { proxy, pid, generation, asked_ns, shows });
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
    pub(super) fn rejected(&mut self, now_ns: u64, is_open: impl Fn(&Open) -> bool) -> Vec<Open> {
        let done: Vec<_> = self.open.values().filter(|open| open.is_done(now_ns)).copied().collect();
        // What the master did was done before it waited, so the kernel half knows of it by now.
        let rejected: Vec<_> = done.iter().filter(|open| is_open(open)).copied().collect();
        for open in done {
            self.open.remove(&open.pid);
        }
        self.rejected.extend(rejected.iter().map(|open| (open.pid, open.asked_ns)));
        rejected
    }

    /// Whether a reload that the kernel half holds open was found to be rejected.
    pub(super) fn is_rejected(&self, open: &Open) -> bool {
        self.rejected.get(&open.pid) == Some(&open.asked_ns)
    }

    /// Forgets the masters that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.open.retain(|pid, _| is_there(*pid));
        self.rejected.retain(|pid, _| is_there(*pid));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use proxytrace_ebpf::abi::{Event, Process};

    use super::{Duration, FORK_TIMEOUT, Open, Proc, Reloads};

    const ASKED_NS: u64 = 1_000;
    const LATER_NS: u64 = ASKED_NS + FORK_TIMEOUT.as_nanos() as u64;

    /// A process that waits, and holds no signal back. (This one's main thread does for moments, when it makes threads.)
    struct Master(Child);

    impl Master {
        fn new() -> Self {
            let master = Self(Command::new("sleep").arg("60").spawn().unwrap());
            let state = || Proc::new(master.0.id().cast_signed()).unwrap().status().unwrap().state;
            while !state().starts_with('S') {
                std::thread::sleep(Duration::from_millis(5));
            }
            master
        }

        /// An event about a reload of it.
        fn event(&self, kind: u32, what: u32) -> Event {
            let (time_ns, duration_ns) = (ASKED_NS + 10, 10);
            Event { time_ns, duration_ns, pid: self.0.id(), kind, what, ..Event::ZERO }
        }

        fn asked(&self, what: u32) -> Reloads {
            let mut reloads = Reloads::default();
            reloads.note(&self.event(Event::RELOAD_ASKED, what));
            assert!(reloads.is_any_open());
            reloads
        }
    }

    impl Drop for Master {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_master_that_waits_for_signals_again_has_rejected_what_is_open() {
        let master = Master::new();
        let mut reloads = master.asked(Process::WAITS_FOR_SIGNALS);
        let rejected = reloads.rejected(ASKED_NS, |open| open.asked_ns == ASKED_NS);
        assert_eq!(rejected.len(), 1);
        assert!(!reloads.is_any_open());
        // The kernel half comes to see it as well, later.
        assert!(!reloads.note(&master.event(Event::RELOAD_REJECTED, 0)), "it is reported twice");
    }

    #[test]
    fn what_the_kernel_half_has_settled_is_left_to_it() {
        let master = Master::new();
        let mut reloads = master.asked(Process::WAITS_FOR_SIGNALS);
        assert!(reloads.rejected(ASKED_NS, |_| false).is_empty());
        assert!(reloads.note(&master.event(Event::RELOAD_REJECTED, 0)));
        let mut reloads = master.asked(Process::WAITS_FOR_SIGNALS);
        assert!(reloads.note(&master.event(Event::RELOADED, 0)));
        assert!(!reloads.is_any_open());
    }

    #[test]
    fn a_master_that_does_not_show_when_it_is_done_is_given_time() {
        let master = Master::new();
        let mut reloads = master.asked(0);
        assert!(reloads.rejected(LATER_NS - 1, |_| true).is_empty());
        assert!(reloads.is_any_open());
        assert_eq!(reloads.rejected(LATER_NS, |_| true).len(), 1);
    }

    #[test]
    fn a_new_master_that_still_begins_has_all_the_time_it_needs() {
        let master = Master::new();
        let mut reloads = master.asked(Process::UPGRADES);
        assert!(reloads.rejected(LATER_NS, |_| true).is_empty());
        assert!(reloads.is_any_open());
        assert!(reloads.note(&master.event(Event::RELOAD_REJECTED, 0)));
        assert!(!reloads.is_any_open());
    }

    #[test]
    fn one_whose_event_was_lost_is_found_in_the_table_and_reported_once() {
        let master = Master::new();
        let flags = Process::WAITS_FOR_SIGNALS;
        let process = Process { reload_asked_ns: ASKED_NS, flags, ..Process::ZERO };
        let open = Open::of_process(master.0.id(), &process).unwrap();
        let mut reloads = Reloads::default();
        reloads.note_open(open);
        assert!(reloads.is_any_open() && !reloads.is_rejected(&open));
        assert_eq!(reloads.rejected(ASKED_NS, |_| true).len(), 1);
        assert!(reloads.is_rejected(&open));
        // The kernel half holds it open until the next signal.
        reloads.note_open(open);
        assert!(!reloads.is_any_open());
        // The event was only late.
        reloads.note(&master.event(Event::RELOAD_ASKED, Process::WAITS_FOR_SIGNALS));
        assert!(!reloads.is_any_open(), "it is reported twice");
        assert!(Open::of_process(1, &Process::ZERO).is_none());
    }
}
