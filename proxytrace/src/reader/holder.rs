//! Whose a process is: whom its questions, and what is kept of their answers, are counted for.

use std::{fs, os::unix::fs::MetadataExt as _};

use procfs::process::Process;
use proxytrace_ebpf::abi;
use serde::{Deserialize, Serialize};

/// Whose a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The real user, as the host numbers it.
    pub uid: u32,
    /// For user 0 the inode number of the pid namespace, as the root of containers and the host's are the same user; else 0.
    pub pid_namespace: u64,
}

impl Owner {
    /// The root of the host itself.
    pub const HOST_ROOT: Self = Self { uid: 0, pid_namespace: abi::Owner::HOST_ROOT.pid_namespace as u64 };

    /// Stands for those whose processes have ended before they could be looked at: they share what one user has.
    pub const UNKNOWN: Self = Self { uid: u32::MAX, pid_namespace: 0 };

    /// The owner of the first of the processes that is still there.
    pub(super) fn of_any(pids: &[u32]) -> Self {
        pids.iter().find_map(|&pid| Self::of(pid)).unwrap_or(Self::UNKNOWN)
    }

    fn of(pid: u32) -> Option<Self> {
        let uid = Process::new(pid.cast_signed()).ok()?.status().ok()?.ruid;
        let pid_namespace = match uid {
            0 => fs::metadata(format!("/proc/{pid}/ns/pid")).map_or(0, |metadata| metadata.ino()),
            _ => 0,
        };
        Some(Self { uid, pid_namespace })
    }
}

#[cfg(test)]
mod tests {
    use super::Owner;

    #[test]
    fn the_owner_is_that_of_the_first_process_that_is_still_there() {
        let own = Owner::of_any(&[std::process::id()]);
        assert_eq!(own.uid, nix::unistd::getuid().as_raw());
        assert_eq!(own.pid_namespace != 0, own.uid == 0);
        assert_eq!(Owner::of_any(&[u32::MAX >> 1, std::process::id()]), own);
        assert_eq!(Owner::of_any(&[]), Owner::UNKNOWN);
    }
}
