//! Becomes the user of a process: what is read for a proxy is read with the rights of its master, and no others.
//!
//! Anybody can start a process that looks like an nginx and names any file as its configuration. Read with our own rights,
//! that file would be read aloud to whoever asks. So what takes our rights is done first and by descriptor (its root
//! directory, its program, its logs), and then they are gone, for good.
//!
//! What a security module (SELinux, AppArmor) would refuse the process is not known here.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid},
};
use procfs::{ProcError, process};
use rustix::fs::OFlags;

use super::{mounts::Mounts, root::Root};
use crate::privilege;

/// include/uapi/linux/auxvec.h.
const AT_SECURE: u64 = 23;

/// No more of a command line is looked at, in bytes.
const MAX_COMMAND_LINE: u64 = 128 << 10;

/// No more of an auxiliary vector, in bytes: the kernel keeps less than a page.
const MAX_AUXV: u64 = 16 << 10;

/// No more of a process's files are looked at; a log for each of some hundred servers is usual.
const MAX_FILES: usize = 1024;

/// How far up the tree of processes tables of mounts are taken from.
const MAX_ANCESTORS: usize = 8;

const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Why nothing is read for a process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It has ended.
    #[error("it has ended")]
    Gone,
    /// Looking at it failed.
    #[error("{what}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// As the system says it.
        source: io::Error,
    },
    /// Its program has rights that who started it has not.
    #[error(
        "it runs with other rights than whoever started it (a set-user-ID program, or one with file capabilities): nothing is \
         read for it; give a proxy its capabilities by AmbientCapabilities= instead"
    )]
    HasOtherRights,
    /// Its user is another one now.
    #[error("its user or its capabilities changed while it was looked at")]
    Changed,
    /// We may not become its user.
    #[error(
        "it runs as user {uid}, and its files are read as that user only: {source}; that takes CAP_SETUID and CAP_SETGID \
         (`proxytrace doctor`)"
    )]
    CannotSwitch {
        /// Its user.
        uid: u32,
        /// As the system says it.
        source: io::Error,
    },
    /// We could not give up what is not the user's.
    #[error("give up privileges: {0}")]
    Privileges(String),
}

/// Whose rights a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Credentials {
    /// Real, effective, saved.
    uids: [u32; 3],
    gids: [u32; 3],
    groups: Vec<u32>,
    permitted: u64,
}

/// A process, the same one whatever becomes of its id.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    entry: process::Process,
    credentials: Credentials,
}

/// What takes our rights, and is wanted besides the root directory and the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The files that it has open.
    pub(super) logs: bool,
    /// Its network.
    pub(super) network: bool,
    /// The files of the host itself.
    pub(super) host: bool,
}

/// What can be read once we are its user.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) root: Root,
    /// Its program, found and not yet opened.
    pub(super) program: OwnedFd,
    /// Its working directory.
    pub(super) directory: PathBuf,
    /// Found and not yet opened; empty unless they are wanted.
    pub(super) logs: Vec<OwnedFd>,
    /// Why its network could not be entered, if that is wanted.
    pub(super) network: io::Result<()>,
    /// The root of the host, if that is wanted and can be had.
    pub(super) host: Option<Root>,
}

impl Process {
    /// Begins to look at the process `pid`.
    ///
    /// # Errors
    /// It is gone, or hidden from us.
    pub(super) fn open(pid: u32) -> Result<Self, Refusal> {
        let entry = process::Process::new(pid.cast_signed()).map_err(failed("find it"))?;
        let credentials = Credentials::of(&entry)?;
        Ok(Self { pid, entry, credentials })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The path of its program.
    ///
    /// # Errors
    /// It has ended, or is not ours to look at.
    pub(super) fn exe(&self) -> Result<PathBuf, Refusal> {
        self.entry
            .exe()
            .map_err(failed("look at its program; that takes CAP_SYS_PTRACE, and no profile of AppArmor that denies it (`proxytrace doctor`)"))
    }

    /// Its arguments, or the title that it gave itself.
    pub(super) fn command_line(&self) -> Vec<u8> {
        self.content("cmdline", MAX_COMMAND_LINE).unwrap_or_default()
    }

    /// Its parent's id.
    pub(super) fn parent(&self) -> Option<u32> {
        self.entry.stat().ok().map(|stat| stat.ppid.cast_unsigned())
    }

    /// Its own id in its own pid namespace.
    pub(super) fn pid_inside(&self) -> Option<i32> {
        let status = self.entry.status().ok()?;
        Some(status.nspid.and_then(|pids| pids.last().copied()).unwrap_or(status.pid))
    }

    /// Opens what is wanted of it, then takes its place: its user, its groups, its user namespace, its network where that is
    /// wanted, and none of our capabilities but what stands for one of its own. For a process that ends after it.
    ///
    /// # Errors
    /// It has ended, is not one to read for, or we may not become its user. What was given up until then stays given up.
    pub(super) fn become_owner(&self, wanted: Wanted) -> Result<Opened, Refusal> {
        let find =
            |name: &str, flags: OFlags| self.entry.open_relative_flags(name, FIND | flags).map(OwnedFd::from);
        let root = find("root", OFlags::DIRECTORY).map_err(failed("look below its root directory"))?;
        let program = find("exe", OFlags::empty()).map_err(failed("look at its program"))?;
        let directory = self.entry.cwd().map_err(failed("find its working directory"))?;
        let logs = if wanted.logs { self.files() } else { Vec::new() };
        let mounts = Mounts::new(self.tables_of_mounts());
        let host = if wanted.host { root_of_host() } else { None };
        let user = self.entry.open_relative("ns/user").map_err(failed("look at its user namespace"))?;
        let network = if wanted.network { self.enter_network() } else { Ok(()) };
        let auxv = self.content("auxv", MAX_AUXV).map_err(failed(
            "look at how it was started; of a process of another user that takes CAP_DAC_READ_SEARCH (`proxytrace doctor`)",
        ))?;

        // Last, for what was looked at before to be this user's: to get other rights takes a program that AT_SECURE shows.
        if is_secure(&auxv).ok_or(Refusal::Gone)? || !self.credentials.is_of_one_user() {
            return Err(Refusal::HasOtherRights);
        }
        if Credentials::of(&self.entry)? != self.credentials {
            return Err(Refusal::Changed);
        }
        self.credentials.take(&user)?;
        Ok(Opened { root: Root::new(root, mounts), program, directory, logs, network, host })
    }

    fn content(&self, name: &str, max: u64) -> Result<Vec<u8>, ProcError> {
        let mut content = Vec::new();
        self.entry.open_relative(name)?.take(max).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The files that it has open, each once; they may be anything.
    fn files(&self) -> Vec<OwnedFd> {
        let Ok(numbers) = self.entry.fd() else { return Vec::new() };
        let mut seen = std::collections::HashSet::new();
        let found = numbers.flatten().take(MAX_FILES).filter_map(|number| {
            let found = self.entry.open_relative_flags(format!("fd/{}", number.fd), FIND).ok()?;
            let about = found.metadata().ok().filter(fs::Metadata::is_file)?;
            seen.insert((about.dev(), about.ino())).then(|| found.into())
        });
        found.collect()
    }

    fn tables_of_mounts(&self) -> Vec<File> {
        let mut tables: Vec<_> = self.entry.open_relative("mountinfo").into_iter().collect();
        tables.extend(File::open("/proc/self/mountinfo"));
        let mut parent = self.parent();
        for _ in 0..MAX_ANCESTORS {
            let above = parent.and_then(|pid| process::Process::new(pid.cast_signed()).ok());
            let Some(above) = above else { break };
            tables.extend(above.open_relative("mountinfo"));
            parent = above.stat().ok().map(|stat| stat.ppid.cast_unsigned());
        }
        tables
    }

    /// Where it is another one: that takes more privileges than to stay.
    fn enter_network(&self) -> io::Result<()> {
        let network =
            self.entry.open_relative("ns/net").map_err(|error| io::Error::other(error.to_string()))?;
        if is_ours(&network, "net")? { Ok(()) } else { Ok(setns(network, CloneFlags::CLONE_NEWNET)?) }
    }
}

/// Where the first process looks for files: what it has is the host's. Where nobody may look there, where this one does.
fn root_of_host() -> Option<Root> {
    let of = |process: process::Process| {
        let root = process.open_relative_flags("root", FIND | OFlags::DIRECTORY).ok()?;
        let mounts = process.open_relative("mountinfo").ok()?;
        Some(Root::new(root.into(), Mounts::new(vec![mounts])))
    };
    let first = process::Process::new(1).ok().and_then(of);
    first.or_else(|| process::Process::myself().ok().and_then(of))
}

impl Credentials {
    fn of(process: &process::Process) -> Result<Self, Refusal> {
        let status = process.status().map_err(failed("see whose it is"))?;
        Ok(Self {
            uids: [status.ruid, status.euid, status.suid],
            gids: [status.rgid, status.egid, status.sgid],
            groups: status.groups,
            permitted: status.capprm,
        })
    }

    fn is_of_one_user(&self) -> bool {
        let is_one = |ids: [u32; 3]| ids[0] == ids[1] && ids[1] == ids[2];
        is_one(self.uids) && is_one(self.gids)
    }

    /// Makes them ours; `user` is the user namespace that they count in.
    fn take(&self, user: &File) -> Result<(), Refusal> {
        let (uid, gid) = (Uid::from_raw(self.uids[0]), Gid::from_raw(self.gids[0]));
        let switch = || -> nix::Result<()> {
            let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
            if getgroups()? != groups {
                setgroups(&groups)?;
            }
            let (own_uids, own_gids) = (getresuid()?, getresgid()?);
            if [own_gids.real, own_gids.effective, own_gids.saved] != [gid; 3] {
                setresgid(gid, gid, gid)?;
            }
            if [own_uids.real, own_uids.effective, own_uids.saved] != [uid; 3] {
                setresuid(uid, uid, uid)?;
            }
            Ok(())
        };
        let failed = |error: anyhow::Error| Refusal::Privileges(format!("{error:#}"));
        privilege::keep_across_users().map_err(failed)?;
        switch().map_err(|error| Refusal::CannotSwitch { uid: self.uids[0], source: error.into() })?;
        privilege::only_to_enter_a_user_namespace().map_err(failed)?;
        // Who may not join it reads as that user, and without what capabilities allow there.
        let is_inside = is_ours(user, "user").is_ok_and(|ours| ours)
            || setns(user.as_fd(), CloneFlags::CLONE_NEWUSER).is_ok();
        let reads_everything = is_inside && self.reads_everything();
        privilege::lower_to_owned(reads_everything).map_err(failed)
    }

    /// Whether the process itself may read what its user may not.
    fn reads_everything(&self) -> bool {
        /// CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (include/uapi/linux/capability.h).
        const ANY: u64 = 1 << 1 | 1 << 2;
        self.permitted & ANY != 0
    }
}

fn is_ours(namespace: &File, kind: &str) -> io::Result<bool> {
    let (own, other) = (fs::metadata(format!("/proc/self/ns/{kind}"))?, namespace.metadata()?);
    Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
}

/// Whether an auxiliary vector says that the program has rights that who started it has not; `None` where there is no
/// vector, as of a process that has ended. One that does not say is taken for a yes.
fn is_secure(auxv: &[u8]) -> Option<bool> {
    /// Keys are small numbers. Those of a 32-bit program, read as if they were of a 64-bit one, hold values as well.
    const MAX_KEY: u64 = 1 << 10;
    let pairs = |size: usize| {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let pairs = auxv.chunks_exact(2 * size);
        pairs.map(|pair| (word(&pair[..size]), word(&pair[size..]))).collect::<Vec<_>>()
    };
    let mut vector = pairs(8);
    if vector.iter().any(|&(key, _)| key > MAX_KEY) {
        vector = pairs(4);
    }
    let is_set = vector.iter().find(|(key, _)| *key == AT_SECURE).map(|(_, value)| *value != 0);
    (!auxv.is_empty()).then(|| is_set.unwrap_or(true))
}

/// Says what was tried; that the process has ended is no failure.
fn failed(what: &'static str) -> impl Fn(ProcError) -> Refusal {
    move |error| {
        let source = match error {
            ProcError::NotFound(_) => return Refusal::Gone,
            ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
            ProcError::Io(error, _) => error,
            error => io::Error::other(error.to_string()),
        };
        match source.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT) => Refusal::Gone,
            _ => Refusal::Failed { what, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Process, is_secure};

    fn vector(size: usize, pairs: &[(u64, u64)]) -> Vec<u8> {
        let words = pairs.iter().flat_map(|&(key, value)| [key, value]);
        words.flat_map(|word| word.to_le_bytes()[..size].to_vec()).collect()
    }

    #[test]
    fn a_program_with_rights_of_its_own_is_known_by_its_auxiliary_vector() {
        for size in [8, 4] {
            let check = |pairs: &[(u64, u64)], expected: bool| {
                assert_eq!(is_secure(&vector(size, pairs)), Some(expected), "{size}: {pairs:?}");
            };
            check(&[(33, 0x7fff_1000), (16, 5), (23, 0), (0, 0)], false);
            check(&[(33, 0x7fff_1000), (16, 5), (23, 1), (0, 0)], true);
            check(&[(33, 0x7fff_1000), (16, 5), (0, 0)], true);
        }
        assert_eq!(is_secure(&[]), None);
        let own = Process::open(std::process::id()).unwrap();
        assert_eq!(is_secure(&own.content("auxv", super::MAX_AUXV).unwrap()), Some(false));
    }

    #[test]
    fn only_a_process_whose_ids_are_all_the_same_is_of_one_user() {
        let of = |uids, gids| Credentials { uids, gids, groups: Vec::new(), permitted: 0 }.is_of_one_user();
        assert!(of([5, 5, 5], [6, 6, 6]));
        assert!(!of([65534, 0, 0], [0, 0, 0]));
        assert!(!of([0, 0, 5], [0, 0, 0]));
        assert!(!of([5, 5, 5], [6, 7, 7]));
    }
}
