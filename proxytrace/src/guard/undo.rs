//! Takes a change back: puts the files back, has the proxy take them, and watches whether it works then.

use std::{collections::BTreeSet, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    command::{self, words},
    files::{Listing, Restored, restore, shown},
    judging::{Judged, Question, judged},
    known::Configurations,
    options::Criteria,
    report::Rollback,
    state::{Change, Store},
    verdict::Verdict,
    watching::Watching,
};

/// How a change is taken back.
#[derive(Debug)]
pub(super) struct Undo<'a> {
    pub(super) store: &'a Store,
    pub(super) change: &'a Change,
    /// How the proxies are configured by the change, where that is known.
    pub(super) configurations: &'a Configurations,
    /// The masters of nginx: what SIGHUP does to other programs is not known.
    pub(super) masters: BTreeSet<u32>,
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
        if let Err(error) = watching.begin() {
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
                let judged = judged(watching, None, &self.question()).await;
                if judged.judgement.verdict != Some(Verdict::Passed) {
                    rollback.reasons.extend(judged.judgement.reasons.clone());
                }
                judged
            }
            None => nothing,
        };
        rollback.upstreams.clone_from(&judged.upstreams);
        rollback.worked = rollback.reasons.is_empty();
        (rollback, judged)
    }

    fn question(&self) -> Question<'_> {
        Question {
            criteria: &self.criteria,
            before: self.configurations,
            window: self.window,
            timeout: self.timeout,
            probes: self.probes,
        }
    }

    fn put_back(&self, rollback: &mut Rollback) {
        let Some(directory) = &self.change.journal.directory else { return };
        let now;
        let after = match self.change.after() {
            Some(after) => after,
            // The guard was killed before it could see how the change left them. What is replaced is kept.
            None => match Listing::of(directory) {
                Ok(listing) => {
                    now = listing;
                    &now
                }
                Err(error) => return rollback.reasons.push(format!("{}: {error}", shown(directory))),
            },
        };
        let taken =
            self.store.taken().inspect_err(|error| tracing::warn!("no copy of what is taken back: {error}"));
        match restore(directory, &self.change.kept(), after, taken.ok().as_deref()) {
            Ok(Restored { put_back, removed, left, failed }) => {
                let all = |paths: Vec<std::path::PathBuf>| paths.iter().map(|path| shown(path)).collect();
                (rollback.put_back, rollback.removed, rollback.left) =
                    (all(put_back), all(removed), all(left));
                let failed = failed.iter().map(|(path, why)| format!("{}: {why}", shown(path)));
                rollback.reasons.extend(failed);
            }
            Err(error) => rollback.reasons.push(format!("{}: {error}", shown(directory))),
        }
    }

    /// Has the proxy take what is there now.
    async fn reload(&self, watching: &mut Watching, rollback: &mut Rollback) {
        let journal = &self.change.journal;
        let (line, by) = match &journal.rollback {
            Some(line) => (words(line), line.clone()),
            None if self.is_as_before => return,
            None if self.command_changes_files || !self.is_seen && !self.masters.is_empty() => {
                (Vec::new(), String::new())
            }
            None => (journal.command.clone(), journal.command.join(" ")),
        };
        if !line.is_empty() {
            let ended = watching.during(command::run(&line, self.timeout, std::future::pending())).await;
            match ended {
                Ok(ended) if ended.is_well() => return rollback.reloaded_by = Some(by),
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
        let signalled =
            self.masters.iter().map(|&pid| kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP));
        match signalled.collect::<Result<Vec<_>, _>>() {
            Ok(signalled) if signalled.is_empty() => {
                rollback.reasons.push("there is no master to send SIGHUP to; start the proxy".to_owned());
            }
            Ok(_) => rollback.reloaded_by = Some("SIGHUP".to_owned()),
            Err(error) => rollback.reasons.push(format!("send SIGHUP to the master: {error}")),
        }
    }
}
