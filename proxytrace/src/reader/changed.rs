//! Whether a configuration was changed after nginx took it: then it may not be what runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use nginx_conf::{Config, Directive};
use procfs::{process::Process, ticks_per_second};

use super::{Changed, master, root::Root};
use crate::{kernel::boot_ns, model::Clock};

/// What is changed so soon after the start is not told of: the two are known by clocks that differ by some milliseconds.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// The file of `config`, whose main file is `main`, that was changed last, if that was after the workers among `pids` had
/// started. With each reload new ones start, so the oldest that takes requests is about as old as what it runs. Without a
/// worker that is not known.
pub(super) fn after_start(root: &Root, main: &Path, config: &Config, pids: &[u32]) -> Option<Changed> {
    let started = pids.iter().filter_map(|&pid| start_of_worker(pid)).min()?;
    let kept = kept_by_nginx(main, config);
    let files = config.files.iter().map(|file| &file.path).filter(|path| !kept.contains(path));
    let (at, path) = files.filter_map(|path| Some((root.changed(path).ok()?, path))).max()?;
    (at > started.saturating_add(SLACK).ok()?).then(|| Changed { path: path.clone(), at, started })
}

/// The files that nginx itself writes: where upstreams keep servers that were set while it runs.
fn kept_by_nginx(main: &Path, config: &Config) -> Vec<PathBuf> {
    let prefix = main.parent().unwrap_or(Path::new(""));
    let upstreams = config.directives.iter().flat_map(Directive::children).filter(is_called("upstream"));
    let states = upstreams.flat_map(Directive::children).filter(is_called("state"));
    states.filter_map(|state| Some(prefix.join(state.arg(0)?))).collect()
}

fn is_called(name: &str) -> impl Fn(&&Directive) -> bool {
    move |directive| directive.name.text == name
}

/// When a worker that takes requests has started.
fn start_of_worker(pid: u32) -> Option<Timestamp> {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if !master::takes_requests(&cmdline) {
        return None;
    }
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
    let started_ns = stat.starttime.checked_mul(1_000_000_000)? / ticks_per_second();
    Some(Clock::new(boot_ns(), Timestamp::now()).at(started_ns))
}
