//! What becomes of reloads and workers.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{self, Event};

use super::{
    Watch,
    configurations::pids,
    rejections::{LAST_WORDS_TIMEOUT, REASON_TIMEOUT, Rejection, Rejections},
    reloads::{Open, Reloads},
    workforce::{Exited, Turn},
};
use crate::{
    kernel::{Error, Snapshot, Tracer, boot_ns},
    model::{Body, Exit, Reload, ReloadResult},
    reader::GenerationId,
};

/// Reloads that are open, and why others were rejected.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    reloads: Reloads,
    rejections: Rejections,
}

impl Lifecycle {
    /// Takes up the reloads that the kernel half holds open: the event that one was asked for may have been lost.
    pub(super) fn note_open_reloads(&mut self, snapshot: &Snapshot) {
        let open = snapshot.processes.iter().filter_map(|(pid, process)| Open::of_process(*pid, process));
        open.for_each(|open| self.reloads.note_open(open));
    }

    /// Whether a reload that the kernel half holds open was found to be rejected.
    pub(super) fn is_rejected(&self, open: &Open) -> bool {
        self.reloads.is_rejected(open)
    }

    /// Takes nginx's own reason for a rejected reload, where there is one. Gives whether the rejection was shown without.
    pub(super) fn note_reason(&mut self, rejection: Rejection, reason: Option<String>) -> bool {
        self.rejections.answer(rejection, reason)
    }

    /// The reason, if one is known. If not, it is shown when it is.
    pub(super) fn show_reason(&mut self, rejection: Rejection) -> Option<Arc<str>> {
        self.rejections.show(rejection)
    }

    /// Whether it is worth waiting for the reason of a rejection.
    pub(super) fn lacks_reason(&self, rejection: Rejection) -> bool {
        self.rejections.is_pending(rejection, REASON_TIMEOUT)
    }

    /// The same of the last words of a worker.
    pub(super) fn lacks_last_words(&self, ended: Rejection) -> bool {
        self.rejections.is_pending(ended, LAST_WORDS_TIMEOUT)
    }

    /// The reason, if one is known.
    pub(super) fn reason(&self, rejection: Rejection) -> Option<Arc<str>> {
        self.rejections.reason(rejection)
    }

    /// Forgets the masters that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.reloads.retain(is_there);
    }
}

impl Watch {
    /// Whether there is a reload of which it is not known what became of it: then [`Watch::take_rejected_reloads`] is to be
    /// called again and again.
    #[must_use]
    pub fn is_reload_open(&self) -> bool {
        self.lifecycle.reloads.is_any_open()
    }

    /// The proxies that have such a reload, as far as they have names.
    pub fn open_reloads(&self) -> impl Iterator<Item = Arc<str>> {
        self.lifecycle.reloads.open().filter_map(|proxy| self.names.given(proxy))
    }

    /// Finds the reloads that turn out to be rejected now, which the kernel half has not seen; they become records where those are
    /// wanted. Gives whether there was one.
    pub fn take_rejected_reloads(&mut self, wants_records: bool) -> bool {
        let (time, time_ns) = (Timestamp::now(), boot_ns());
        let rejected = self.lifecycle.reloads.rejected(time_ns, |open| is_open(&self.tracer, open));
        for Open { proxy, pid, generation, asked_ns, .. } in &rejected {
            let (proxy, pid, generation, kind) = (*proxy, *pid, *generation, Event::RELOAD_REJECTED);
            let duration_ns = time_ns.saturating_sub(*asked_ns);
            let event = Event { proxy, pid, generation, time_ns, duration_ns, kind, ..Event::ZERO };
            self.note_end_of_reload(time, &event);
            if wants_records {
                self.held.push(time, &event);
            }
        }
        !rejected.is_empty()
    }

    /// Notes what an event means for reloads. Gives false for a rejected reload that was found before.
    pub(super) fn note_reload(&mut self, time: Timestamp, event: &Event) -> bool {
        let is_about_a_reload =
            matches!(event.kind, Event::RELOAD_ASKED | Event::RELOADED | Event::RELOAD_REJECTED);
        let is_news = !is_about_a_reload || self.lifecycle.reloads.note(event);
        if is_news && matches!(event.kind, Event::RELOADED | Event::RELOAD_REJECTED) {
            self.note_end_of_reload(time, event);
        }
        is_news
    }

    /// A reload was accepted or rejected; of a rejected one it is asked why.
    fn note_end_of_reload(&mut self, time: Timestamp, event: &Event) {
        self.detection.reloaded(time, event);
        if event.kind == Event::RELOAD_REJECTED {
            let rejection = Rejection::of(event);
            let of = GenerationId { proxy: event.proxy, generation: event.generation };
            if self.naming.ask_why(of, event.pid, rejection.asked_ns) {
                self.lifecycle.rejections.ask(rejection);
            }
        }
    }

    /// Whether it is about to show whether a proxy is left without workers: then the next tick is to come soon.
    #[must_use]
    pub fn misses_workers(&self) -> bool {
        self.workforces.is_in_doubt()
    }

    /// Looks for proxies that have lost all workers, or have some again.
    pub(super) fn look_at_workers(&mut self, snapshot: &Snapshot, living: &HashSet<u64>) {
        for (proxy, turn) in self.workforces.look(snapshot, living, boot_ns()) {
            // Only of nginx is it known that it cannot do without.
            let generation =
                snapshot.proxies.iter().find(|(id, _)| *id == proxy).map(|(_, state)| state.generation);
            let known = generation.filter(|generation| self.newest_known(proxy, *generation).is_some());
            match (turn, known) {
                (Turn::Gone(_, exited), Some(generation)) => {
                    self.ask_for_last_words(snapshot, GenerationId { proxy, generation }, exited);
                }
                (Turn::Gone(..), None) => continue,
                (Turn::Over, _) => {}
            }
            self.detection.workers_turned(proxy, turn);
        }
    }

    /// Asks for what the last worker said that has ended for an error. Here and not at each exit: whoever lets thousands of processes fail
    /// a second would keep the reader and us busy.
    fn ask_for_last_words(&mut self, snapshot: &Snapshot, of: GenerationId, exited: Exited) {
        if abi::exit_code(exited.status) == 0 {
            return;
        }
        let ended = Rejection { proxy: of.proxy, asked_ns: exited.time_ns };
        let master = pids(&snapshot.processes, of).first().copied();
        if master.is_some_and(|master| self.naming.ask_why(of, master, ended.asked_ns)) {
            self.lifecycle.rejections.ask(ended);
        }
    }

    /// What became of a process or a reload, as a record.
    pub(super) fn lifecycle(&mut self, event: &Event) -> Result<Option<Body>, Error> {
        Ok(match event.kind {
            Event::RELOADED | Event::RELOAD_REJECTED => {
                let is_accepted = event.kind == Event::RELOADED;
                let result = if is_accepted { ReloadResult::Accepted } else { ReloadResult::Rejected };
                let reason = self.lifecycle.reason(Rejection::of(event));
                Some(Body::Reload(Reload { master: self.worker(event)?, result, reason }))
            }
            Event::WORKER_STARTED => Some(Body::WorkerStarted(self.worker(event)?)),
            Event::WORKER_EXITED => {
                Some(Body::WorkerExited(Exit::of_status(self.worker(event)?, event.what)))
            }
            _ => None,
        })
    }
}

/// Whether the kernel half has not seen what became of the reload.
fn is_open(tracer: &Tracer, open: &Open) -> bool {
    tracer.process(open.pid).is_some_and(|process| process.reload_asked_ns == open.asked_ns)
}
