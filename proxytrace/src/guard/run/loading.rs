//! The files are changed and loaded.

use std::{collections::BTreeMap, future, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Guard, Stop, say};
use crate::guard::{
    command,
    files::{Link, Listing, settle, shown},
    group::Group,
    judging::{Judged, Question, judged},
    options::Options,
    preflight::Nginx,
    report,
    verdict::Verdict,
};

/// nginx says what is wrong by then, or is not waited for: the change waits to be taken back.
const SAYING: Duration = Duration::from_secs(3);

impl Guard<'_> {
    /// All steps, up to the verdict.
    pub(super) async fn change(&mut self) -> Judged {
        match self.load().await {
            Ok(()) => {}
            Err(stop) => {
                let seen = self.watching.seen.upstreams();
                let mut judged = Judged::from(stop);
                judged.upstreams = report::rows(&seen);
                judged.findings = self.watching.findings();
                return judged;
            }
        }
        let question = Question {
            criteria: &self.options.criteria,
            before: &[&self.before],
            window: self.options.window,
            timeout: self.options.timeout,
            probes: self.options.probes,
        };
        judged(&mut self.watching, Some(&mut self.interrupts), &question).await
    }

    async fn load(&mut self) -> Result<(), Stop> {
        tokio::select! {
            biased;
            signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
            () = future::ready(()) => {}
        }
        let baseline = Instant::now() + self.options.baseline;
        let earlier = if self.options.apply.is_some() { self.faults().await } else { BTreeMap::new() };
        self.apply().await?;
        if self.options.checks {
            let looked = self.look_at_what_is_to_be_loaded(&earlier).await;
            // nginx -t makes logs and directories that are not there.
            let noted = self.note_listing();
            looked.and(noted)?;
        }
        if !self.options.baseline.is_zero() {
            tokio::select! {
                watched = self.watching.during(sleep_until(baseline)) => watched?,
                signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
            }
            self.count_all_of_the_baseline().await?;
        }
        self.watching.seen.end_baseline(self.options.earlier.clone());
        self.watching.begin().await?;
        self.is_loaded = true;
        self.begun = Some(Instant::now());
        let (before, links) = (self.listing(), self.links_are_as_before());
        let Options { command, timeout, .. } = self.options;
        say(&format!("runs {}", command.join(" ")));
        let (ended, signal) = self.run(command).await?;
        let noted = self.note_listing();
        self.command_changes_files = noted.is_err()
            || links != self.links_are_as_before()
            || before.zip(self.listing()).is_some_and(|(before, after)| !before.is_same(&after));
        match signal {
            Some(signal) => Err(Stop::interrupted(signal)),
            None if ended.is_well() => noted,
            None => {
                let mut reasons = vec![format!("{} {}", command.join(" "), ended.in_words(*timeout))];
                reasons.extend(self.nginx_says().await);
                Err(Stop(Verdict::Failed, reasons))
            }
        }
    }

    /// What is wrong with the files in nginx's own words; COMMAND's went to standard error.
    async fn nginx_says(&mut self) -> Vec<String> {
        let running = self.watching.running().unwrap_or_default();
        let mut said = Vec::new();
        for nginx in running.iter().filter_map(|running| Nginx::of(running).ok()) {
            said.extend(nginx.tested(SAYING).await);
        }
        said
    }

    /// What was counted is known a tick later.
    async fn count_all_of_the_baseline(&mut self) -> Result<(), Stop> {
        let end = Instant::now();
        while self.watching.ticked.is_none_or(|ticked| ticked < end) {
            tokio::select! {
                stepped = self.watching.step() => stepped?,
                signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
                () = sleep(Duration::from_secs(2)) => break,
            }
        }
        Ok(())
    }

    async fn apply(&mut self) -> Result<(), Stop> {
        let Some(line) = &self.options.apply else { return Ok(()) };
        say(&format!("applies: {line}"));
        let (ended, signal) = self.run(&command::words(line)).await?;
        let noted = self.note_listing();
        match signal {
            Some(signal) => Err(Stop::interrupted(signal)),
            None if ended.is_well() => noted,
            None => Err(Stop::failed(format!("--apply {line} {}", ended.in_words(self.options.timeout)))),
        }
    }

    /// Runs a program, and watches meanwhile; a signal ends it.
    async fn run(&mut self, words: &[String]) -> Result<(command::Ended, Option<&'static str>), Stop> {
        let mut signal = None;
        let Self { interrupts, watching, options, change, .. } = self;
        let cannot = |error| anyhow::Error::from(error).context("note that a program may change files");
        if let Some(change) = change {
            change.runs(None).map_err(cannot)?;
        }
        // Whoever takes the change back where we are killed ends it first.
        let started = |group: &Group| {
            if let Some(Err(error)) = change.as_mut().map(|change| change.runs(Some(group.clone()))) {
                tracing::warn!("{:#}", cannot(error));
            }
        };
        let interrupted = async { signal = Some(interrupts.next().await) };
        let ended = watching.during(command::run(words, options.timeout, interrupted, started)).await?;
        Ok((ended, signal))
    }

    fn links_are_as_before(&self) -> bool {
        self.change.iter().flat_map(|change| &change.journal.links.all).all(Link::is_as_it_was)
    }

    fn listing(&self) -> Option<Listing> {
        let change = self.change.as_ref()?;
        change.after().or(Some(change.before())).filter(|_| change.journal.directory.is_some()).cloned()
    }

    /// How the files are now is how the change left them.
    fn note_listing(&mut self) -> Result<(), Stop> {
        self.note_written();
        let Some(change) = &mut self.change else { return Ok(()) };
        let Some(directory) = change.journal.directory.clone() else { return Ok(()) };
        let noted = Listing::of(&directory, &self.written).and_then(|now| {
            // What is not on disk may be something else after a power cut, and then nobody knew that it was the change's.
            settle(&directory, &now, change.after().unwrap_or_else(|| change.before()))?;
            change.made(now)
        });
        // What cannot be told apart from what somebody else does cannot be taken back later.
        noted.map_err(|error| Stop::failed(format!("{} as the change left it: {error}", shown(&directory))))
    }
}
