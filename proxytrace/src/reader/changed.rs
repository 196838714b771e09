//! Whether a configuration was changed after nginx took it: then it may not be what runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use nginx_conf::{Config, Directive};
use procfs::{process::Process, ticks_per_second};

use super::{master, root::Root};
use crate::{declared::Changed, kernel::own_boot_ns, model::Clock};

/// What is changed so soon after the start is not told of: the two are known by clocks that differ by some milliseconds.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// The file of `config`, whose main file is `main`, that was changed last, if that was after the workers among `pids` had
/// started. With each reload new ones start, so the oldest that takes requests is about as old as what it runs. Without a
/// worker that is not known.
pub(super) fn after_start(root: &Root, main: &Path, config: &Config, pids: &[u32]) -> Option<Changed> {
    let started = pids.iter().filter_map(|&pid| start_of_worker(pid)).min()?;
    let (at, path) = last_change(root, main, config)?;
    (at > started.saturating_add(SLACK).ok()?).then(|| Changed { path: path.clone(), at, started })
}

/// The file that was changed last, of those that are people's.
fn last_change<'a>(root: &Root, main: &Path, config: &'a Config) -> Option<(Timestamp, &'a PathBuf)> {
    let kept = kept_by_nginx(main, config);
    let files = config.files.iter().map(|file| &file.path).filter(|path| !kept.contains(path));
    files.filter_map(|path| Some((root.changed(path).ok()?, path))).max()
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
    Some(Clock::new(own_boot_ns(), Timestamp::now()).at(started_ns))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread, time::Duration};

    use nginx_conf::{Limits, load};

    use super::{Root, last_change};

    #[test]
    fn what_nginx_writes_itself_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        // Times of files are no finer than the kernel's tick.
        let write = |name: &str, text: &str| {
            thread::sleep(Duration::from_millis(20));
            fs::write(directory.path().join(name), text).unwrap();
        };
        let main = Path::new("/nginx.conf");
        write("nginx.conf", "http { upstream api { state api.state; } include more.conf; }");
        write("more.conf", "");
        write("api.state", "server 10.0.0.5:8080;");
        let root = Root::at(directory.path()).unwrap();
        let config = load(&root, main, Some("daemon off;"), &Limits::default()).unwrap();
        assert_eq!(config.files.len(), 4, "with what -g says");
        let last = || last_change(&root, main, &config).unwrap().1.as_path();
        assert_eq!(last(), Path::new("/more.conf"));
        write("nginx.conf", "http {}");
        assert_eq!(last(), main);
    }
}
