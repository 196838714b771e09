//! Whether a configuration was changed after a proxy took it: then it may not be what runs.

use std::{fs, path::Path};

use jiff::Timestamp;
use procfs::{process::Process, ticks_per_second};

use super::{protocol::Request, root::Root};
use crate::{
    declared::Changed,
    kernel::{boot_ns, own_boot_ns},
    model::Clock,
    programs,
};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// The one of `files`, those of a configuration that people write, that was changed last, if that was after a proxy had taken them. Where
/// that was not seen, it had when its workers started: with each reload new ones do, so the oldest that takes requests is about as old
/// as what it runs. Without a worker that is not known.
pub(super) fn since_taken<'a>(
    root: &Root,
    files: impl Iterator<Item = &'a Path>,
    request: &Request,
) -> Option<Changed> {
    let seen = request.taken_ns.map(|taken_ns| Clock::new(boot_ns(), Timestamp::now()).at(taken_ns));
    let started = seen.or_else(|| start_of_workers(&request.pids))?;
    let (at, path) = last_change(root, files)?;
    (at > started).then(|| Changed { path: path.to_owned(), at, started })
}

/// When the oldest worker among `pids` that takes requests had started: up to a tick of the kernel's clock for processes (10 ms) later
/// than it did. What was written before that may be what the workers run; what was written after it is not.
#[must_use]
pub fn start_of_workers(pids: &[u32]) -> Option<Timestamp> {
    pids.iter().filter_map(|&pid| start_of_worker(pid)).min()
}

fn last_change<'a>(root: &Root, files: impl Iterator<Item = &'a Path>) -> Option<(Timestamp, &'a Path)> {
    files.filter_map(|path| Some((root.changed(path).ok()?, path))).max()
}

/// When a worker that takes requests had started. The kernel leaves the rest of the tick out, and nginx has read its files before it forks.
/// Times of files are by a clock that is behind by up to a tick of its own, never ahead.
fn start_of_worker(pid: u32) -> Option<Timestamp> {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if !programs::takes_requests(&cmdline) {
        return None;
    }
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
    let tick_ns = NS_PER_SECOND / ticks_per_second();
    let started_ns = stat.starttime.checked_add(1)?.checked_mul(tick_ns)?;
    Some(Clock::new(own_boot_ns(), Timestamp::now()).at(started_ns))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread, time::Duration};

    use super::{Root, last_change};

    #[test]
    fn the_last_change_is_that_of_any_file_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        // Times of files are no finer than the kernel's tick.
        let write = |name: &str| {
            thread::sleep(Duration::from_millis(20));
            fs::write(directory.path().join(name), "").unwrap();
        };
        write("nginx.conf");
        write("more.conf");
        let root = Root::at(directory.path()).unwrap();
        let files = ["command line", "/nginx.conf", "/more.conf"].map(Path::new);
        let last = || last_change(&root, files.into_iter()).unwrap().1;
        assert_eq!(last(), Path::new("/more.conf"));
        write("nginx.conf");
        assert_eq!(last(), Path::new("/nginx.conf"));
    }
}
