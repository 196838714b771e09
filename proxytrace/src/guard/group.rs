//! The processes that a program was started as, with all that they have started and not sent away: a process group.

use std::time::Duration;

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::{Pid, getpgid},
};
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// Whoever is asked to end is given so long.
const TO_END: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// A process group, by its first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pid: u32,
    /// When that was started, in ticks since the machine was: its id may be somebody else's later.
    started: Option<u64>,
}

impl Group {
    /// That of a process which was started as the first of one.
    pub(super) fn of(pid: u32) -> Self {
        Self { pid, started: started(pid) }
    }

    /// Whether any of it is left, as far as can be told once its first process has ended.
    pub(super) fn is_left(&self) -> bool {
        let is_ours = started(self.pid).is_none_or(|started| Some(started) == self.started);
        is_ours && killpg(self.id(), None) != Err(Errno::ESRCH)
    }

    /// Whether that process is in it.
    pub(super) fn has(&self, pid: u32) -> bool {
        getpgid(Some(Pid::from_raw(pid.cast_signed()))) == Ok(self.id())
    }

    /// Ends all of it: whoever does not do so when asked is killed, also where the first one has ended.
    pub(super) async fn end(&self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if !self.is_left() || killpg(self.id(), signal).is_err() {
                return;
            }
            let deadline = Instant::now() + TO_END;
            while self.is_left() && Instant::now() < deadline {
                sleep(LOOK).await;
            }
        }
    }

    const fn id(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }
}

fn started(pid: u32) -> Option<u64> {
    Some(Process::new(pid.cast_signed()).ok()?.stat().ok()?.starttime)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::process::CommandExt as _,
        process::{Command, Stdio},
    };

    use super::Group;

    #[test]
    fn who_ignores_a_request_is_killed_also_without_the_first_one() {
        // The shell ends by SIGTERM, and what it has started does not.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sh -c 'trap \"\" TERM; echo begun; while :; do sleep 1; done' & wait"]);
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "begun");
        let group = Group::of(child.id());
        assert!(group.is_left() && group.has(child.id()) && !group.has(std::process::id()));
        let of_another = Group { started: Some(0), ..group.clone() };
        assert!(!of_another.is_left(), "the id is somebody else's");
        let waiting = std::thread::spawn(move || child.wait());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(group.end());
        waiting.join().unwrap().unwrap();
        // Nobody holds the pipe any more.
        assert!(lines.next().is_none());
        assert!(!group.is_left());
    }
}
