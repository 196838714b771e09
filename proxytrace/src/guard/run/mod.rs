//! The steps of a guard, in their order: the files are changed, looked at, loaded and watched, and where that fails, put back.
//!
//! * `beginning`: how things are before, and the copy of that. `beforehand`: what is to be loaded is looked at.
//! * `loading`: the files are changed and loaded. `ending`: the change stays, or is taken back.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use tokio::time::Instant;

use super::{
    command,
    files::{Room, Written, shown},
    interrupts::Interrupts,
    judging::Judged,
    known::Configurations,
    observer::Means,
    options::Options,
    report::Report,
    scope::Scope,
    state::{Busy, Change, Store},
    verdict::Verdict,
    watching::Watching,
};
mod beforehand;
mod beginning;
mod ending;
mod loading;

/// What was given and is not there.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// It cannot be run.
    #[error("{0}: no such program")]
    Program(String),
    /// It cannot be put back.
    #[error("--rollback-files {0}: {1}")]
    Directory(String, io::Error),
}

/// A change that was not ended is in the way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfinished(String);

/// Guards a change, which is watched by these `means`.
///
/// # Errors
/// Nothing was changed: something that is needed is not there.
pub async fn guard(options: &Options, means: Means) -> anyhow::Result<Report> {
    for line in [
        Some(options.command.clone()),
        options.apply.as_deref().map(command::words),
        options.rollback.as_deref().map(command::words),
    ] {
        let program = line.as_ref().and_then(|line| line.first());
        if let Some(program) = program.filter(|program| command::found(program).is_none()) {
            return Err(Missing::Program(program.clone()).into());
        }
    }
    let directory = real_directory(options)?;
    let mut interrupts = Interrupts::new()?;
    let store = tokio::select! {
        store = Store::open(&options.state, directory.as_deref(), options.timeout) => store,
        signal = interrupts.next() => anyhow::bail!("interrupted by {signal}; nothing was changed"),
    };
    let store = match store {
        Ok(store) => store.given(options.files.clone()),
        Err(error) if error.is::<Busy>() => return Err(error),
        // Who may not trace either is told that.
        Err(error) => {
            means.open().await?;
            return Err(error);
        }
    };
    if let Some(change) = store.in_the_way()? {
        return Err(Unfinished(unfinished(&change)).into());
    }
    let mut guard = Guard::new(options, store, interrupts, watching(means).await?);
    guard.begin(directory.as_deref()).await?;
    let judged = guard.change().await;
    Ok(guard.end(judged).await)
}

/// Takes back the change that a guard did not end, if there is one; or leaves the files as they are, and forgets it.
///
/// # Errors
/// It cannot be read, there are several, or tracing cannot begin.
pub async fn recover(options: &Options, discard: bool, means: Means) -> anyhow::Result<Report> {
    let interrupts = Interrupts::new()?;
    // It may be gone itself.
    let directory = real_directory(options).unwrap_or_else(|_| options.files.clone());
    let (directory, given) = (directory.as_deref(), options.files.as_deref());
    let store = Store::of_unfinished(&options.state, directory, given, options.timeout).await?;
    let Some(store) = store else { return Ok(Report::default()) };
    let Some(change) = store.unfinished()? else { return Ok(Report::default()) };
    say(&unfinished(&change));
    if discard {
        let notes = vec![format!("{}: what was copied before is dropped", directory_of(&change))];
        change.end().context("drop the copy")?;
        return Ok(Report { notes, ..Report::default() });
    }
    let mut guard = Guard::new(options, store, interrupts, watching(means).await?);
    guard.watching_starts().await?;
    let directory = change.journal.directory.as_deref();
    guard.watching.limit(Scope::new(directory, &guard.watching.all_running()?));
    guard.end_what_was_started(&change).await?;
    // Whether anybody has loaded it since is not known.
    guard.is_loaded = true;
    guard.command_changes_files = true;
    guard.change = Some(change);
    guard.watching.seen.end_baseline(options.earlier.clone());
    let rollback = guard.take_back(&Configurations::new()).await;
    Ok(Report { rollback, ..guard.report })
}

impl Guard<'_> {
    /// Ends the program that a guard which was killed had started, if it goes on: it would change files that are put back.
    async fn end_what_was_started(&mut self, change: &Change) -> anyhow::Result<()> {
        let Some(group) = change.journal.program.as_ref().filter(|group| group.is_left()) else {
            return Ok(());
        };
        // A proxy that it has started in the foreground is none of that.
        let is_proxy = self.watching.all_running()?.iter().any(|running| group.has(running.master));
        if !change.is_of_earlier_start() && !is_proxy {
            say("ends what the guard had started, which still runs");
            self.watching.during(group.end()).await?;
        }
        Ok(())
    }
}

/// Begins to watch.
async fn watching(means: Means) -> anyhow::Result<Watching> {
    let observer = means.open().await?;
    if observer.is_borrowed() {
        say("watches by the agent, and loads no programs; --own loads its own");
    }
    Ok(Watching::new(observer))
}

/// The directory that is put back, whatever links lead there.
fn real_directory(options: &Options) -> Result<Option<PathBuf>, Missing> {
    let Some(path) = &options.files else { return Ok(None) };
    let missing = |error| Missing::Directory(shown(path), error);
    let real = path.canonicalize().map_err(missing)?;
    if !real.is_dir() {
        return Err(missing(io::ErrorKind::NotADirectory.into()));
    }
    Ok(Some(real))
}

fn directory_of(change: &Change) -> String {
    change.journal.directory.as_deref().map_or_else(|| "a change".to_owned(), shown)
}

fn unfinished(change: &Change) -> String {
    let journal = &change.journal;
    let by = match change.is_of_earlier_start() {
        true => "before this machine was started again".to_owned(),
        false => format!("process {}", journal.pid),
    };
    format!(
        "a guard of {} ({by}, begun at {:.0}) was ended before it was done; `proxytrace guard --recover` takes its change back, and \
         with --discard keeps it. The copy from before is in {}",
        directory_of(change),
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
    /// Where files can be written to put them back.
    room: Option<Room>,
    /// Files that the proxies write to.
    written: Written,
    /// How the proxies were configured, where that is known.
    before: Configurations,
    /// Since when COMMAND runs.
    begun: Option<Instant>,
    /// Whether a proxy may have taken the change.
    is_loaded: bool,
    command_changes_files: bool,
    /// Whether nginx ran when it began; where that is not known, it did.
    has_run: bool,
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
            room: None,
            written: Written::default(),
            before: Configurations::new(),
            begun: None,
            is_loaded: false,
            command_changes_files: false,
            has_run: true,
        }
    }
}
