//! The change stays, or is taken back.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Guard, say};
use crate::{
    guard::{
        files::{Listing, shown},
        judging::Judged,
        known::Configurations,
        options::{Criteria, Options},
        report::{Generation, Report, Rollback, Times},
        state::Change,
        undo::Undo,
        verdict::Verdict,
    },
    model,
};

impl Guard<'_> {
    /// Ends it: the change stays, or is taken back.
    pub(super) async fn end(mut self, judged: Judged) -> Report {
        let since = |time: Instant| self.begun.map(|begun| (time - begun).as_millis() as u64);
        self.report.times = Times {
            loaded_ms: judged.loaded.and_then(since),
            judged_ms: since(Instant::now()),
            back_ms: None,
        };
        let Judged { judgement, generations, configurations, changes, upstreams, findings, probes, .. } =
            judged;
        self.report.verdict = judgement.verdict;
        self.report.reasons = judgement.reasons;
        self.report.notes.extend(judgement.notes);
        self.report.changes = changes.or(self.report.changes);
        let generation = |of: model::Generation| Generation { proxy: of.proxy, generation: of.number };
        self.report.generations = generations.into_iter().map(generation).collect();
        (self.report.upstreams, self.report.findings) = (upstreams, findings);
        if !probes.is_empty() {
            self.report.probes = probes;
        }
        if self.report.verdict == Some(Verdict::Passed) {
            let change = self.change.take();
            self.note_written();
            let has_all = self.has_loaded_all();
            if let Some(change) = change.as_ref().filter(|_| has_all) {
                self.keep_good(change.after().unwrap_or_else(|| change.before()), &configurations);
            }
            if let Some(Err(error)) = change.map(Change::end) {
                self.report.notes.push(format!("the copy from before could not be removed: {error}"));
            }
        } else if self.change.is_some() {
            self.report.reasons.iter().for_each(|reason| say(reason));
            say("takes the change back");
            self.report.rollback = self.take_back(&configurations).await;
        }
        self.report
    }

    /// Whether all that read the directory run what is there now; that others do not is noted.
    fn has_loaded_all(&mut self) -> bool {
        let Some(directory) = self.options.files.as_ref().filter(|_| self.watching.reads_directory()) else {
            return true;
        };
        let running = self.watching.running().unwrap_or_default();
        let is_old = |of: &&model::Generation| !self.watching.generations.contains_key(&of.proxy);
        let old: Vec<_> = running.iter().map(|running| &running.of).filter(is_old).collect();
        self.report.notes.extend(old.iter().map(|of| {
            let (proxy, directory) = (&of.proxy, shown(directory));
            format!("{proxy} reads {directory} too, and was not reloaded: it runs what it ran before")
        }));
        old.is_empty()
    }

    /// What was there works: a later change that comes before its guard is taken back to that.
    fn keep_good(&self, what: &Listing, configurations: &Configurations) {
        if let Err(error) = self.store.keep_good(what, configurations, &self.written) {
            tracing::warn!("keep a copy of what works: {error}");
        }
    }

    pub(super) async fn take_back(&mut self, configurations: &Configurations) -> Option<Rollback> {
        let change = self.change.take()?;
        let meant: BTreeSet<_> = self.watching.generations.keys().cloned().collect();
        let is_seen = !meant.is_empty();
        self.note_written();
        // It is there for that.
        self.room = None;
        let Options { window, timeout, probes, .. } = *self.options;
        let undo = Undo {
            store: &self.store,
            change: &change,
            before: &self.before,
            configurations,
            written: &self.written,
            may_be_gone: !self.has_run || change.is_of_earlier_start(),
            meant,
            is_seen,
            // One may have refused what another has taken, or somebody's later reload.
            is_as_before: !self.is_loaded || !is_seen && self.watching.rejection().is_some(),
            command_changes_files: self.command_changes_files,
            criteria: Criteria {
                max_failure_ratio: self.options.criteria.max_failure_ratio,
                allow_unproven: true,
                ..Criteria::default()
            },
            window,
            timeout,
            probes,
        };
        let (mut rollback, judged) = undo.run(&mut self.watching).await;
        self.report.times.back_ms =
            judged.loaded.zip(self.begun).map(|(loaded, begun)| (loaded - begun).as_millis() as u64);
        if rollback.worked {
            let known = if judged.configurations.is_empty() { &self.before } else { &judged.configurations };
            self.keep_good(change.before(), known);
            if let Err(error) = change.end() {
                rollback.reasons.push(format!("the copy from before could not be removed: {error}"));
            }
        } else {
            let path = change.path().display();
            rollback.reasons.push(format!("the copy from before is kept in {path}"));
        }
        Some(rollback)
    }
}
