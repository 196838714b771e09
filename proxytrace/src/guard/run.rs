//! The steps of a guard, in their order: the files are changed, looked at, loaded and watched, and where that fails, put back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    changes, command,
    files::{Listing, shown},
    interrupts::Interrupts,
    judging::{Judged, Question, judged},
    known::{Configurations, Known, differences},
    options::{Criteria, Options},
    preflight::{self, Fault, Nginx},
    probe,
    probed::Probed,
    report::{Generation, Report, Rollback, Times},
    state::{Busy, Change, Good, Store},
    undo::Undo,
    verdict::Verdict,
    watching::Watching,
};
use crate::{
    declared::Changed,
    session::{Pump, Session},
    watch::Running,
};

/// It is known by then what runs and how that is configured, or it will not be.
const STARTING: Duration = Duration::from_secs(10);
/// nginx reads its configuration within that, names among it.
const TESTING: Duration = Duration::from_secs(30);
/// nginx says what is wrong by then, or is not waited for: the change waits to be taken back.
const SAYING: Duration = Duration::from_secs(3);
/// No more names and files are listed.
const LISTED: usize = 8;

/// What cannot be run at all.
#[derive(Debug, thiserror::Error)]
#[error("{0}: no such program")]
pub struct NoSuchProgram(String);

/// A change that was not ended is in the way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfinished(String);

/// Begins to trace.
pub type Start = dyn FnOnce() -> anyhow::Result<(Session, Pump)>;

/// Guards a change. `start` begins to trace.
///
/// # Errors
/// Nothing was changed: something that is needed is not there.
pub async fn guard(options: &Options, start: Box<Start>) -> anyhow::Result<Report> {
    for line in [
        Some(options.command.clone()),
        options.apply.as_deref().map(command::words),
        options.rollback.as_deref().map(command::words),
    ] {
        let program = line.as_ref().and_then(|line| line.first());
        if let Some(program) = program.filter(|program| command::found(program).is_none()) {
            return Err(NoSuchProgram(program.clone()).into());
        }
    }
    let mut interrupts = Interrupts::new()?;
    let store = tokio::select! {
        store = Store::open(&options.state, options.timeout) => store,
        signal = interrupts.next() => anyhow::bail!("interrupted by {signal}; nothing was changed"),
    };
    let store = match store {
        Ok(store) => store,
        Err(error) if error.is::<Busy>() => return Err(error),
        // Who may not trace either is told that.
        Err(error) => {
            start()?;
            return Err(error);
        }
    };
    if let Some(change) = store.unfinished()? {
        return Err(Unfinished(unfinished(&change)).into());
    }
    let (session, pump) = start()?;
    let mut guard = Guard::new(options, store, interrupts, Watching::new(session, pump));
    guard.begin().await?;
    let judged = guard.change().await;
    Ok(guard.end(judged).await)
}

/// Takes back the change that a guard did not end, if there is one; or leaves the files as they are, and forgets it.
///
/// # Errors
/// It cannot be read, or tracing cannot begin.
pub async fn recover(options: &Options, discard: bool, start: Box<Start>) -> anyhow::Result<Report> {
    let interrupts = Interrupts::new()?;
    let store = Store::open(&options.state, options.timeout).await?;
    let Some(change) = store.unfinished()? else { return Ok(Report::default()) };
    say(&unfinished(&change));
    if discard {
        let notes = vec![format!("{}: what was copied before is dropped", directory(&change))];
        change.end().context("drop the copy")?;
        return Ok(Report { notes, ..Report::default() });
    }
    let (session, pump) = start()?;
    let mut guard = Guard::new(options, store, interrupts, Watching::new(session, pump));
    guard.watching_starts().await?;
    guard.is_loaded = change.journal.is_loaded;
    guard.command_changes_files = true;
    guard.change = Some(change);
    guard.watching.seen.end_baseline();
    let rollback = guard.take_back(&Configurations::new()).await;
    Ok(Report { rollback, ..guard.report })
}

fn directory(change: &Change) -> String {
    change.journal.directory.as_deref().map_or_else(|| "a change".to_owned(), shown)
}

fn unfinished(change: &Change) -> String {
    let journal = &change.journal;
    format!(
        "a guard of {} (process {}, begun at {:.0}) was ended before it was done; `proxytrace guard --recover` takes its change \
         back, and with --discard keeps it. The copy from before is in {}",
        directory(change),
        journal.pid,
        journal.began,
        change.path().display()
    )
}

/// Tells people how far it is. Whether anybody reads that does not matter.
fn say(text: &str) {
    let text = crate::escape::printable_lines(text);
    let _ = writeln!(io::stderr(), "guard: {text}");
}

struct Guard<'a> {
    options: &'a Options,
    store: Store,
    interrupts: Interrupts,
    watching: Watching,
    report: Report,
    /// What is to be put back, where that is asked for.
    change: Option<Change>,
    /// How the proxies were configured, where that is known.
    before: Configurations,
    /// Since when COMMAND runs.
    begun: Option<Instant>,
    /// Whether a proxy may have taken the change.
    is_loaded: bool,
    command_changes_files: bool,
}

/// Why it does not go on.
struct Stop(Verdict, Vec<String>);

impl Stop {
    fn failed(reason: String) -> Self {
        Self(Verdict::Failed, vec![reason])
    }

    fn interrupted(signal: &str) -> Self {
        Self::failed(format!("interrupted by {signal}"))
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

impl From<Stop> for Judged {
    fn from(Stop(verdict, reasons): Stop) -> Self {
        let mut judged = Self::default();
        (judged.judgement.verdict, judged.judgement.reasons) = (Some(verdict), reasons);
        judged
    }
}

impl<'a> Guard<'a> {
    fn new(options: &'a Options, store: Store, interrupts: Interrupts, watching: Watching) -> Self {
        Self {
            options,
            store,
            interrupts,
            watching,
            report: Report::default(),
            change: None,
            before: Configurations::new(),
            begun: None,
            is_loaded: false,
            command_changes_files: false,
        }
    }

    async fn watching_starts(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTING;
        while !self.watching.has_started() && Instant::now() < deadline {
            self.watching.step().await?;
        }
        Ok(())
    }

    /// Finds out how things are, and copies what is to be put back.
    async fn begin(&mut self) -> anyhow::Result<()> {
        self.watching_starts().await?;
        let against = match &self.options.against {
            Some(path) => {
                let read = preflight::on_disk(path, true).await?;
                let disk = read.map_err(|fault| anyhow::anyhow!("--against: {}", fault.in_words()))?;
                Some(Known { routes: Arc::new(disk.routes), addresses: disk.addresses })
            }
            None => None,
        };
        let running = self.watching.running()?;
        let mut unknown = Vec::new();
        for running in &running {
            let known = against.clone().or_else(|| Known::of(running));
            let changed = changed(running).filter(|_| against.is_none());
            if let Some(changed) = changed {
                // What it runs is not what is on disk.
                unknown.push(format!(
                    "{} was changed before the guard began, so all routes count as changed; --against FILE tells what was \
                     there, --apply CMD lets the guard change it",
                    shown(&changed.path)
                ));
            } else if let Some(known) = known {
                self.before.insert(Arc::clone(&running.of.proxy), known);
            }
        }
        let Options { files, command, rollback, .. } = self.options;
        if files.is_none() {
            self.report.notes.append(&mut unknown);
        }
        if files.is_none() && rollback.is_none() {
            return Ok(());
        }
        let directory = files
            .as_deref()
            .map(|path| path.canonicalize().with_context(|| format!("--rollback-files {}", path.display())));
        let directory = directory.transpose()?;
        let good = match &directory {
            Some(directory) => self.good_if_needed(directory, &running)?,
            None => None,
        };
        if let Some(good) = &good {
            for (proxy, known) in &good.configurations {
                self.before.entry(Arc::clone(proxy)).or_insert_with(|| known.clone());
            }
        }
        let change = self.store.begin(directory.as_deref(), good, command, rollback.as_deref());
        self.change = Some(change.context("nothing was changed")?);
        if let Some(directory) = directory {
            self.note_what_taking_back_needs(&directory, &running).await;
        }
        Ok(())
    }

    /// What is to be put back where the files are not those any more that the proxy runs.
    fn good_if_needed(&self, directory: &Path, running: &[Running]) -> Result<Option<Good>, Unfinished> {
        let Some(changed) = running.iter().find_map(changed) else { return Ok(None) };
        let good = self.store.good(directory).filter(|good| good.at >= changed.started);
        good.map(Some).ok_or_else(|| {
            Unfinished(format!(
                "{} was changed after nginx's workers had started, and no copy from before is there to be put back: nothing was \
                 changed. Let the guard change the files (--apply CMD); or put back what nginx runs and guard a reload of that \
                 once, which keeps a copy, for changes that come before the guard",
                shown(&changed.path)
            ))
        })
    }

    /// What a reload needs that is not in the directory.
    async fn note_what_taking_back_needs(&mut self, directory: &Path, running: &[Running]) {
        let mut names = BTreeSet::new();
        for known in self.before.values() {
            let followed: BTreeSet<_> =
                known.routes.followed().filter_map(|(endpoint, _)| endpoint.name()).collect();
            names.extend(known.routes.hosts().filter(|host| !followed.contains(host)).map(str::to_owned));
        }
        if !names.is_empty() {
            let names = some(names.into_iter().collect());
            self.report.notes.push(format!("to take it back, nginx must resolve: {names}"));
        }
        let (mut outside, mut is_inside) = (BTreeSet::new(), false);
        for nginx in running.iter().filter_map(|running| Nginx::of(running).ok()) {
            let Ok(Ok(disk)) = nginx.on_disk(false).await else { continue };
            let (own, others): (Vec<_>, Vec<_>) =
                disk.files.into_iter().partition(|file| real(file).starts_with(directory));
            // Of another nginx beside it nothing is put back at all.
            if !own.is_empty() {
                is_inside = true;
                outside.extend(others.iter().map(|file| shown(file)));
            }
        }
        if !is_inside && running.iter().any(Nginx::runs) {
            let directory = shown(directory);
            self.report.notes.push(format!("nothing that nginx is known to read is in {directory}"));
        }
        if !outside.is_empty() {
            let (outside, directory) = (some(outside.into_iter().collect()), shown(directory));
            let note =
                format!("nginx also reads files outside of {directory}, which are not put back: {outside}");
            say(&note);
            self.report.notes.push(note);
        }
    }

    /// All steps, up to the verdict.
    async fn change(&mut self) -> Judged {
        match self.load().await {
            Ok(()) => {}
            Err(stop) => {
                let seen = self.watching.seen.upstreams();
                let mut judged = Judged::from(stop);
                judged.upstreams = super::report::rows(&seen);
                judged.findings = self.watching.findings();
                return judged;
            }
        }
        let question = Question {
            criteria: &self.options.criteria,
            before: &self.before,
            window: self.options.window,
            timeout: self.options.timeout,
            probes: self.options.probes,
        };
        judged(&mut self.watching, Some(&mut self.interrupts), &question).await
    }

    async fn load(&mut self) -> Result<(), Stop> {
        let baseline = Instant::now() + self.options.baseline;
        let earlier = if self.options.apply.is_some() { self.faults().await } else { BTreeMap::new() };
        self.apply().await?;
        if self.options.checks {
            self.look_at_what_is_to_be_loaded(&earlier).await?;
        }
        if !self.options.baseline.is_zero() {
            tokio::select! {
                watched = self.watching.during(sleep_until(baseline)) => watched?,
                signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
            }
            self.count_all_of_the_baseline().await?;
        }
        self.watching.seen.end_baseline();
        self.watching.begin().map_err(anyhow::Error::from)?;
        if let Some(change) = &mut self.change {
            change.loads().context("note that the change is loaded")?;
        }
        self.is_loaded = true;
        self.begun = Some(Instant::now());
        let before = self.listing();
        let Options { command, timeout, .. } = self.options;
        say(&format!("runs {}", command.join(" ")));
        let (ended, signal) = self.run(command).await?;
        self.note_listing();
        self.command_changes_files = before.is_some() && before != self.listing();
        match signal {
            Some(signal) => Err(Stop::interrupted(signal)),
            None if ended.is_well() => Ok(()),
            None => {
                let mut reasons = vec![format!("{} {}", command.join(" "), ended.in_words(*timeout))];
                reasons.extend(self.nginx_says().await);
                Err(Stop(Verdict::Failed, reasons))
            }
        }
    }

    /// What is wrong with the files in nginx's own words; COMMAND's went to standard error.
    async fn nginx_says(&self) -> Vec<String> {
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

    /// What was wrong with the configurations before, so that it is not blamed on the change.
    async fn faults(&self) -> BTreeMap<Arc<str>, Vec<Fault>> {
        let mut faults = BTreeMap::new();
        for running in self.watching.running().unwrap_or_default() {
            if let Ok(nginx) = Nginx::of(&running)
                && let Ok(Ok(disk)) = nginx.on_disk(nginx.shares_network).await
            {
                faults.insert(Arc::clone(&running.of.proxy), disk.errors);
            }
        }
        faults
    }

    async fn apply(&mut self) -> Result<(), Stop> {
        let Some(line) = &self.options.apply else { return Ok(()) };
        say(&format!("applies: {line}"));
        let (ended, signal) = self.run(&command::words(line)).await?;
        self.note_listing();
        match signal {
            Some(signal) => Err(Stop::interrupted(signal)),
            None if ended.is_well() => Ok(()),
            None => Err(Stop::failed(format!("--apply {line} {}", ended.in_words(self.options.timeout)))),
        }
    }

    /// Runs a program, and watches meanwhile; a signal ends it.
    async fn run(&mut self, words: &[String]) -> Result<(command::Ended, Option<&'static str>), Stop> {
        let mut signal = None;
        let Self { interrupts, watching, options, .. } = self;
        let interrupted = async { signal = Some(interrupts.next().await) };
        let ended = watching.during(command::run(words, options.timeout, interrupted)).await?;
        Ok((ended, signal))
    }

    async fn look_at_what_is_to_be_loaded(
        &mut self,
        earlier: &BTreeMap<Arc<str>, Vec<Fault>>,
    ) -> Result<(), Stop> {
        let all = self.watching.running().map_err(anyhow::Error::from)?;
        // Of several, those of which nothing was changed are none of our business.
        let is_meant =
            |running: &&Running| all.len() == 1 || self.options.apply.is_some() || changed(running).is_some();
        for running in all.iter().filter(is_meant) {
            let nginx = match Nginx::of(running) {
                Ok(nginx) => nginx,
                Err(why) => {
                    self.report.notes.push(why);
                    continue;
                }
            };
            let looked = async {
                let (disk, tested) = (nginx.on_disk(nginx.shares_network).await, nginx.tested(TESTING).await);
                (disk, tested)
            };
            let (disk, tested) = tokio::select! {
                looked = self.watching.during(looked) => looked?,
                signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
            };
            let known = earlier.get(&running.of.proxy).map(Vec::as_slice).unwrap_or_default();
            let is_new = |fault: &&Fault| !known.iter().any(|known| known.is_same(fault));
            let mut reasons: Vec<_> = tested.into_iter().collect();
            match &disk {
                Ok(Ok(disk)) => reasons.extend(disk.errors.iter().filter(is_new).map(Fault::in_words)),
                // In nginx's own words it is said already.
                Ok(Err(fault)) if reasons.is_empty() => reasons.push(fault.in_words()),
                Ok(Err(_)) => {}
                Err(error) => self.report.notes.push(format!("not checked: {error:#}")),
            }
            if !reasons.is_empty() {
                return Err(Stop(Verdict::Failed, reasons));
            }
            if let Ok(Ok(disk)) = disk {
                let known = Known { routes: Arc::new(disk.routes), addresses: disk.addresses };
                self.probe_beforehand(running, &known).await?;
            }
        }
        Ok(())
    }

    /// An upstream of which no address accepts a connect will not do so for requests.
    async fn probe_beforehand(&mut self, running: &Running, known: &Known) -> Result<(), Stop> {
        let proxy = &running.of.proxy;
        let before = self.before.get(proxy);
        let changed = known.changed(before);
        if !self.options.probes || changed.is_empty() {
            return Ok(());
        }
        if let Some(before) = before {
            let of = |known: &Known| Configurations::from([(Arc::clone(proxy), known.clone())]);
            self.report.changes = differences(&of(before), &of(known));
        }
        let pid = running.workers.first().copied().unwrap_or(running.master);
        let probing = probe::all(proxy, pid, changes::only(&known.routes, &changed), None);
        let probed = tokio::select! {
            probed = self.watching.during(probing) => probed?,
            signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
        };
        let probes = match probed {
            Ok(probes) => probes,
            Err(error) => {
                self.report.notes.push(format!("not probed: {error:#}"));
                return Ok(());
            }
        };
        let is_dead = |name: &&String| {
            let mut of = probes.iter().filter(|probe| probe.is_of(proxy, name)).peekable();
            of.peek().is_some() && of.all(|probe| !probe.is_well())
        };
        let dead: BTreeSet<_> = changed.iter().filter(is_dead).collect();
        let of_dead = |probe: &&Probed| dead.iter().any(|name| probe.is_of(proxy, name));
        let reasons: Vec<_> = probes.iter().filter(of_dead).map(Probed::to_string).collect();
        self.report.probes = probes;
        if reasons.is_empty() { Ok(()) } else { Err(Stop(Verdict::Failed, reasons)) }
    }

    fn listing(&self) -> Option<Listing> {
        let change = self.change.as_ref()?;
        change.after().or(Some(change.before())).filter(|_| change.journal.directory.is_some()).cloned()
    }

    /// How the files are now is how the change left them.
    fn note_listing(&mut self) {
        let Some(change) = &mut self.change else { return };
        let Some(directory) = change.journal.directory.clone() else { return };
        let noted = Listing::of(&directory).and_then(|listing| change.made(listing));
        if let Err(error) = noted {
            tracing::warn!("note how the change left {}: {error}", shown(&directory));
        }
    }

    /// Ends it: the change stays, or is taken back.
    async fn end(mut self, judged: Judged) -> Report {
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
        let generation = |of: crate::model::Generation| Generation { proxy: of.proxy, generation: of.number };
        self.report.generations = generations.into_iter().map(generation).collect();
        (self.report.upstreams, self.report.findings) = (upstreams, findings);
        if !probes.is_empty() {
            self.report.probes = probes;
        }
        if self.report.verdict == Some(Verdict::Passed) {
            let change = self.change.take();
            if let Some((change, after)) = change.as_ref().and_then(|change| Some((change, change.after()?)))
            {
                self.keep_good(change, after, &configurations);
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

    /// What was there works: a later change that comes before its guard is taken back to that.
    fn keep_good(&self, change: &Change, what: &Listing, configurations: &Configurations) {
        let Some(directory) = &change.journal.directory else { return };
        if let Err(error) = self.store.keep_good(directory, what, configurations) {
            tracing::warn!("keep a copy of what works in {}: {error}", shown(directory));
        }
    }

    async fn take_back(&mut self, configurations: &Configurations) -> Option<Rollback> {
        let change = self.change.take()?;
        let running = self.watching.running().unwrap_or_default();
        let is_seen = !self.watching.generations.is_empty();
        let is_meant =
            |running: &&Running| !is_seen || self.watching.generations.contains_key(&running.of.proxy);
        let masters = running.iter().filter(is_meant).filter(|running| Nginx::runs(running));
        let masters = masters.map(|running| running.master).collect();
        let Options { window, timeout, probes, .. } = *self.options;
        let undo = Undo {
            store: &self.store,
            change: &change,
            configurations,
            masters,
            is_seen,
            is_as_before: !self.is_loaded || self.watching.rejection().is_some(),
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
            self.keep_good(&change, change.before(), known);
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

/// The first of them.
fn some(all: Vec<String>) -> String {
    let more = all.len().saturating_sub(LISTED);
    let listed: Vec<_> = all.into_iter().take(LISTED).collect();
    listed.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// What of the proxy's configuration was changed after it had taken it.
fn changed(running: &Running) -> Option<&Changed> {
    running.configuration.as_ref()?.changed.as_ref()
}

/// Where a file is, whatever links lead there.
fn real(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}
