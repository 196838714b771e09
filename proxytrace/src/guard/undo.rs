//! Takes a change back: puts the files back, has the proxy take them, and watches whether it works then.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    command::{self, words},
    files::{Listing, Restored, Written, make_again, restore, shown},
    judging::{Judged, Question, judged},
    known::{Configurations, remains},
    options::Criteria,
    preflight::Nginx,
    report::Rollback,
    state::{Change, Store},
    verdict::Verdict,
    watching::Watching,
};
use crate::watch::Running;

/// A proxy that takes what COMMAND has it take is seen to do so by then.
const TAKING: Duration = Duration::from_secs(2);

/// How a change is taken back.
#[derive(Debug)]
pub(super) struct Undo<'a> {
    pub(super) store: &'a Store,
    pub(super) change: &'a Change,
    /// How the proxies were configured before the change, where that is known.
    pub(super) before: &'a Configurations,
    /// How they are configured by the change, where that is known.
    pub(super) configurations: &'a Configurations,
    /// Files that the proxies write to.
    pub(super) written: &'a Written,
    /// Whether it is no fault where none runs: none did before, or the machine was started again. The next one takes the files from before.
    pub(super) may_be_gone: bool,
    /// The proxies that have taken the change; where none was seen to, all are meant.
    pub(super) meant: BTreeSet<Arc<str>>,
    /// Whether the proxy runs what it ran before.
    pub(super) is_as_before: bool,
    /// Whether a new generation was seen. Without one it may still come, as when COMMAND was ended half-way.
    pub(super) is_seen: bool,
    /// Whether COMMAND itself changes the files, so that to run it again would change them again.
    pub(super) command_changes_files: bool,
    /// What is demanded afterwards.
    pub(super) criteria: Criteria,
    pub(super) window: Duration,
    pub(super) timeout: Duration,
    pub(super) probes: bool,
}

impl Undo<'_> {
    /// Does it. Nothing interrupts that.
    pub(super) async fn run(self, watching: &mut Watching) -> (Rollback, Judged) {
        let mut rollback = Rollback::default();
        self.put_back(&mut rollback);
        self.turn_back(&mut rollback);
        if let Err(error) = watching.begin().await {
            rollback.reasons.push(format!("{error:#}"));
        }
        self.reload(watching, &mut rollback).await;
        let nothing = Judged::default();
        let judged = match rollback.reloaded_by {
            // What a command of the user's did, and where it had nothing to reload, is no failure.
            Some(_)
                if self.is_as_before && watching.generations.is_empty() && watching.rejection().is_none() =>
            {
                nothing
            }
            Some(_) => {
                let judged = self.judged(watching).await;
                if judged.judgement.verdict != Some(Verdict::Passed) {
                    rollback.reasons.extend(judged.judgement.reasons.clone());
                }
                let still = remains(self.before, self.configurations, &judged.configurations);
                rollback.reasons.extend(still.map(|line| format!("the proxy still runs the change: {line}")));
                judged
            }
            None => nothing,
        };
        rollback.upstreams.clone_from(&judged.upstreams);
        rollback.worked = rollback.reasons.is_empty();
        (rollback, judged)
    }

    /// Watches what runs now. What differs from the change is proven, and what is still not as before.
    async fn judged(&self, watching: &mut Watching) -> Judged {
        let question = Question {
            criteria: &self.criteria,
            before: &[self.configurations, self.before],
            window: self.window,
            timeout: self.timeout,
            probes: self.probes,
        };
        judged(watching, None, &question).await
    }

    /// The masters of nginx: what SIGHUP does to other programs is not known.
    fn masters(&self, watching: &mut Watching) -> BTreeSet<u32> {
        let is_meant = |running: &Running| self.meant.is_empty() || self.meant.contains(&running.of.proxy);
        let running = watching.running().unwrap_or_default();
        let nginx = running.into_iter().filter(|running| is_meant(running) && Nginx::runs(running));
        nginx.map(|running| running.master).collect()
    }

    /// Turns the links back that lead to the directory.
    fn turn_back(&self, rollback: &mut Rollback) {
        for link in self.change.journal.links.all.iter().filter(|link| !link.is_as_it_was()) {
            match link.put_back() {
                Ok(()) => rollback.put_back.push(shown(&link.path)),
                Err(error) => rollback.reasons.push(format!("{}: {error}", shown(&link.path))),
            }
        }
    }

    fn put_back(&self, rollback: &mut Rollback) {
        let Some(directory) = &self.change.journal.directory else { return };
        let known = self.change.after();
        // Where nobody could see how the change left them, what is there is the change's, however much that is. What is replaced is
        // kept.
        let after = make_again(directory, known.is_none()).and_then(|is_made| match known {
            Some(known) if !is_made => Ok(Cow::Borrowed(known)),
            _ => Listing::whole(directory, self.written).map(Cow::Owned),
        });
        let after = match after {
            Ok(after) => after,
            Err(error) => return rollback.reasons.push(format!("{}: {error}", shown(directory))),
        };
        let taken =
            self.store.taken().inspect_err(|error| tracing::warn!("no copy of what is taken back: {error}"));
        let taken = taken.ok();
        match restore(directory, &self.change.kept(), &after, taken.as_deref(), self.written) {
            Ok(Restored { put_back, removed, left, written, failed }) => {
                let all = |paths: Vec<PathBuf>| paths.iter().map(|path| named(path)).collect();
                rollback.kept_in =
                    taken.filter(|_| put_back.len() + removed.len() > 0).map(|path| shown(&path));
                (rollback.put_back, rollback.removed, rollback.left) =
                    (all(put_back), all(removed), all(left));
                rollback.written = all(written);
                let failed = failed.iter().map(|(path, why)| format!("{}: {why}", named(path)));
                rollback.reasons.extend(failed);
            }
            Err(error) => rollback.reasons.push(format!("{}: {error}", shown(directory))),
        }
    }

    /// Has the proxy take what is there now.
    async fn reload(&self, watching: &mut Watching, rollback: &mut Rollback) {
        let journal = &self.change.journal;
        let masters = self.masters(watching);
        let (line, by) = match &journal.rollback {
            Some(line) => (words(line), line.clone()),
            None if self.is_as_before => {
                return rollback.notes.push("the proxy had not taken the change".to_owned());
            }
            None if self.may_be_gone && masters.is_empty() => {
                return rollback
                    .notes
                    .push("no nginx runs yet: it takes these files when it starts".to_owned());
            }
            None if self.command_changes_files || !self.is_seen && !masters.is_empty() => {
                (Vec::new(), String::new())
            }
            None => (journal.command.clone(), journal.command.join(" ")),
        };
        if !line.is_empty() {
            let ended =
                watching.during(command::run(&line, self.timeout, std::future::pending(), |_| ())).await;
            match ended {
                Ok(ended) if ended.is_well() => {
                    let is_enough = self.is_as_before || journal.directory.is_none();
                    if is_enough || watching.takes(TAKING).await || self.masters(watching).is_empty() {
                        return rollback.reloaded_by = Some(by);
                    }
                    // Such as a second USR2, while the program of the first one runs.
                    tracing::warn!(
                        "the proxy does not take the files by {by}; the master is sent SIGHUP instead"
                    );
                }
                Ok(ended) => {
                    let what = format!("{by} {}", ended.in_words(self.timeout));
                    // The files are the ones from before. What makes the proxy take them may need what is not there now.
                    if self.is_as_before || journal.directory.is_none() {
                        return rollback.reasons.push(what);
                    }
                    tracing::warn!("{what}; the master is sent SIGHUP instead");
                }
                Err(error) => return rollback.reasons.push(format!("{error:#}")),
            }
        }
        let signalled = self
            .masters(watching)
            .into_iter()
            .map(|pid| kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP));
        match signalled.collect::<Result<Vec<_>, _>>() {
            Ok(signalled) if signalled.is_empty() => {
                rollback.reasons.push("there is no master to send SIGHUP to; start the proxy".to_owned());
            }
            Ok(_) => rollback.reloaded_by = Some("SIGHUP".to_owned()),
            Err(error) => rollback.reasons.push(format!("send SIGHUP to the master: {error}")),
        }
    }
}

/// A path in the directory, for people.
fn named(path: &Path) -> String {
    if path.as_os_str().is_empty() { "the directory itself".to_owned() } else { shown(path) }
}
