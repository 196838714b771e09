//! Whether a configuration was changed after a proxy took it: then it may not be what runs.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use procfs::{process::Process, ticks_per_second};

use super::root::Root;
use crate::{declared::Changed, kernel::own_boot_ns, model::Clock, programs};

/// What is changed so soon after the start is not reported: the two are known by clocks that differ by some milliseconds.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// The one of `files`, those of a configuration that people write, that was changed last, if that was after the workers among
/// `pids` had started. With each reload new ones start, so the oldest that takes requests is about as old as what it runs. Without
/// a worker that is not known.
pub(super) fn after_start<'a>(
    root: &Root,
    files: impl Iterator<Item = &'a Path>,
    pids: &[u32],
) -> Option<Changed> {
    let started = pids.iter().filter_map(|&pid| start_of_worker(pid)).min()?;
    let (at, path) = last_change(root, files)?;
    (at > started.saturating_add(SLACK).ok()?).then(|| Changed { path: path.to_owned(), at, started })
}

fn last_change<'a>(root: &Root, files: impl Iterator<Item = &'a Path>) -> Option<(Timestamp, &'a Path)> {
    files.filter_map(|path| Some((root.changed(path).ok()?, path))).max()
}

/// When a worker that takes requests has started.
fn start_of_worker(pid: u32) -> Option<Timestamp> {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if !programs::takes_requests(&cmdline) {
        return None;
    }
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
    let started_ns = stat.starttime.checked_mul(1_000_000_000)? / ticks_per_second();
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
