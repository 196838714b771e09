//! How things are before anything is changed, and the copy of that.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use super::{Guard, Unfinished, say};
use crate::{
    declared::Changed,
    guard::{
        files::{Listing, Room, Written, shown},
        known::Known,
        options::Options,
        preflight::{self, Fault, Nginx},
        scope::Scope,
        state::Good,
    },
    reader,
    watch::Running,
};

/// It is known by then what runs and how that is configured, or it will not be.
const STARTING: Duration = Duration::from_secs(10);
/// No more names and files are listed.
const LISTED: usize = 8;

impl Guard<'_> {
    pub(super) async fn watching_starts(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTING;
        while !self.watching.has_started() && Instant::now() < deadline {
            self.watching.step().await?;
        }
        Ok(())
    }

    /// Finds out how things are, and copies what is to be put back.
    pub(super) async fn begin(&mut self, directory: Option<&Path>) -> anyhow::Result<()> {
        self.watching_starts().await?;
        self.watching.limit(Scope::new(directory, &self.watching.all_running()?));
        let against = match &self.options.against {
            Some(path) => {
                let read = preflight::on_disk(path, true).await?;
                let disk = read.map_err(|fault| anyhow::anyhow!("--against: {}", fault.in_words()))?;
                Some(Known { routes: Arc::new(disk.routes), addresses: disk.addresses })
            }
            None => None,
        };
        let running = self.watching.running()?;
        self.has_run = running.iter().any(Nginx::runs);
        self.note_written();
        let good = directory.and_then(|_| self.good_since(&running));
        let is_good = match directory.zip(good.as_ref()) {
            Some((directory, good)) => Listing::of(directory, &self.written)?.is_same(&good.listing),
            None => false,
        };
        let Options { files, apply, command, rollback, .. } = self.options;
        let mut unknown = Vec::new();
        for running in &running {
            let known = against.clone().or_else(|| Known::of(running));
            let changed = changed(running).filter(|_| against.is_none() && !is_good);
            if let Some(changed) = changed {
                // What it runs is not what is on disk.
                let path = shown(&changed.path);
                unknown.push(match files.is_some() && apply.is_some() {
                    true => format!(
                        "{path} was changed after nginx's workers had started, so all routes count as changed; to take it back puts \
                         back what is there now, which nginx may not have loaded yet"
                    ),
                    false => format!(
                        "{path} was changed before the guard began, so all routes count as changed; --against FILE tells what was \
                         there, --apply CMD lets the guard change it"
                    ),
                });
            } else if let Some(known) = known {
                self.before.insert(Arc::clone(&running.of.proxy), known);
            }
        }
        if files.is_none() || apply.is_some() {
            self.report.notes.append(&mut unknown);
        }
        if files.is_none() && rollback.is_none() {
            return Ok(());
        }
        // What the guard changes itself is put back as it is now, whoever has changed what before.
        let is_made_before = directory.is_some() && apply.is_none() && !is_good;
        if is_made_before && good.is_none() {
            if let Some(changed) = running.iter().find_map(changed) {
                let path = shown(&changed.path);
                return Err(nothing_to_put_back(&format!(
                    "{path} was changed after nginx's workers had started"
                ))
                .into());
            }
            if let Some(fault) = running.iter().find_map(unreadable) {
                let fault = fault.in_words();
                return Err(nothing_to_put_back(&format!(
                    "nginx cannot have loaded what is there ({fault})"
                ))
                .into());
            }
        }
        if let Some(good) = good.as_ref().filter(|_| is_good || is_made_before) {
            // What is on disk may not be what runs.
            let all = good.configurations.iter().filter(|_| self.options.against.is_none());
            self.before.extend(all.map(|(proxy, known)| (Arc::clone(proxy), known.clone())));
        }
        let good = good.filter(|_| is_made_before);
        let begun = self.store.begin(good, command, rollback.as_deref(), &self.written);
        let change = begun.context("nothing was changed")?;
        if let Some(directory) = directory {
            match Room::for_all(directory, change.before()) {
                Ok(room) => self.room = Some(room),
                Err(error) => {
                    change.end().context("drop the copy")?;
                    let what = format!("reserve room to put {} back", shown(directory));
                    return Err(error).context(what).context("nothing was changed");
                }
            }
            self.note_what_taking_back_needs(directory, &running).await;
        }
        self.change = Some(change);
        Ok(())
    }

    /// Files that the proxies write to are none of their configuration.
    pub(super) fn note_written(&mut self) {
        let running = self.watching.running().unwrap_or_default();
        self.written = Written::of(running.iter().map(|running| running.master));
    }

    /// What worked last, where nothing else was loaded since.
    fn good_since(&self, running: &[Running]) -> Option<Good> {
        let good = self.store.good()?;
        // What is missing now, no time of a file tells.
        let of_running = |running: &Running| reader::start_of_workers(&running.workers);
        let since = match running.iter().find_map(changed) {
            Some(changed) => Some(changed.started),
            None => running.iter().filter_map(of_running).max(),
        };
        since.is_some_and(|since| good.at >= since).then_some(good)
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
        let (mut outside, mut is_inside) = (BTreeSet::new(), self.watching.reads_directory());
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
}

fn nothing_to_put_back(why: &str) -> Unfinished {
    Unfinished(format!(
        "{why}, and no copy from before is there to be put back: nothing was changed. \
         Let the guard change the files (--apply CMD); or put back what nginx runs and guard a reload of that once, which keeps a \
         copy, for changes that come before the guard"
    ))
}

/// The first of them.
fn some(all: Vec<String>) -> String {
    let more = all.len().saturating_sub(LISTED);
    let listed: Vec<_> = all.into_iter().take(LISTED).collect();
    listed.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// What of the proxy's configuration was changed after it had taken it.
pub(super) fn changed(running: &Running) -> Option<&Changed> {
    running.configuration.as_ref()?.changed.as_ref()
}

/// What keeps the proxy's configuration from being read.
fn unreadable(running: &Running) -> Option<Fault> {
    let nginx = Nginx::of(running).ok().filter(|_| running.configuration.is_none());
    nginx.and_then(|nginx| nginx.unreadable())
}

/// Where a file is, whatever links lead there.
fn real(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}
