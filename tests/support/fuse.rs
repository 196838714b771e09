//! A file system that is a program of whoever mounted it (FUSE, include/uapi/linux/fuse.h), and that may never answer.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use crate::child::Guarded;

/// What a name leads to.
pub const LOOKUP: u32 = 1;
/// What was looked up is not needed any more.
pub const FORGET: u32 = 2;
/// Which version of the protocol is spoken.
pub const INIT: u32 = 26;
/// Whoever asked was interrupted.
pub const INTERRUPT: u32 = 36;
/// As [`FORGET`], of several.
pub const BATCH_FORGET: u32 = 42;

/// What it does when it is asked for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It says that there is a regular file of that name that everybody may read, and refuses all else.
    Finds,
    /// It takes the question and never answers: whoever asks hangs in the kernel, also when it is killed.
    Hangs,
}

/// A mount in a mount namespace of its own. When this is dropped the kernel answers for it, with errors.
#[derive(Debug)]
pub struct Fuse {
    namespace: File,
    asked: Arc<Mutex<Vec<u32>>>,
    is_over: Arc<AtomicBool>,
    daemon: Option<JoinHandle<()>>,
}

impl Fuse {
    /// Mounts it at the directory `at`, as `user` does it.
    #[must_use]
    #[track_caller]
    pub fn mount(at: &Path, user: u32, manner: Manner) -> Self {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/fuse")
            .expect("open /dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id={user},group_id={user}", device.as_raw_fd());
        let mounted = move |at: &Path| {
            unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("keep mounts to itself");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("proxytrace-test"), at, Some("fuse"), flags, Some(&*options)).expect("mount it");
            File::open("/proc/thread-self/ns/mnt").expect("open a mount namespace")
        };
        let namespace = in_thread(|| mounted(at));
        let (asked, is_over) = (Arc::default(), Arc::default());
        let daemon = {
            let (asked, is_over) = (Arc::clone(&asked), Arc::clone(&is_over));
            thread::spawn(move || serve(device, manner, &asked, &is_over))
        };
        Self { namespace, asked, is_over, daemon: Some(daemon) }
    }

    /// Starts a process that sees the mount.
    #[track_caller]
    pub fn spawn(&self, command: &mut Command) -> Guarded {
        in_thread(|| {
            unshare(CloneFlags::CLONE_FS).expect("have a root directory to itself");
            setns(&self.namespace, CloneFlags::CLONE_NEWNS).expect("enter a mount namespace");
            Guarded::spawn(command)
        })
    }

    /// What the kernel has asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<u32> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.join();
        }
    }
}

/// A thread that has moved is of no use to anybody else.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn serve(mut device: File, manner: Manner, asked: &Mutex<Vec<u32>>, is_over: &AtomicBool) {
    /// The least that the kernel takes.
    const REQUEST: usize = 128 << 10;
    let mut request = vec![0; REQUEST];
    while !is_over.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut waiting, PollTimeout::from(20_u8));
        // Nothing there; or it was interrupted before it was read.
        let Ok(length) = device.read(&mut request) else { continue };
        let Some((kind, id)) = header(&request[..length]) else { continue };
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
        let answer = match (kind, manner) {
            (FORGET | BATCH_FORGET | INTERRUPT, _) | (LOOKUP, Manner::Hangs) => continue,
            (INIT, _) => Ok(ready()),
            (LOOKUP, Manner::Finds) => Ok(entry()),
            _ => Err(libc::EIO),
        };
        // Whoever asked may be gone.
        let _ = device.write_all(&reply(id, answer));
    }
}

/// What is asked, and the number to answer it under (`fuse_in_header`).
fn header(request: &[u8]) -> Option<(u32, u64)> {
    let kind = u32::from_ne_bytes(request.get(4..8)?.try_into().ok()?);
    let id = u64::from_ne_bytes(request.get(8..16)?.try_into().ok()?);
    Some((kind, id))
}

/// `fuse_out_header` and what follows it.
fn reply(id: u64, answer: Result<Vec<u8>, i32>) -> Vec<u8> {
    let (error, body) = answer.map_or_else(|errno| (-errno, Vec::new()), |body| (0, body));
    let length = u32::try_from(16 + body.len()).expect("a short answer");
    [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &id.to_ne_bytes(), &body].concat()
}

/// `fuse_init_out` of protocol 7.31.
fn ready() -> Vec<u8> {
    const MOST_IN_BACKGROUND: u16 = 16;
    const CONGESTED: u16 = 12;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let background = [MOST_IN_BACKGROUND.to_ne_bytes(), CONGESTED.to_ne_bytes()].concat();
    // Version, readahead, flags; then the largest write, the grain of times, and what is not used.
    [words(&[7, 31, 4096, 0]), background, words(&[4096, 1, 0, 0]), vec![0; 28]].concat()
}

/// `fuse_entry_out` of an empty regular file with mode 0644, to be asked for each time.
fn entry() -> Vec<u8> {
    const NODE: u64 = 2;
    const MODE: u32 = 0o100_644;
    let numbers = [NODE, 0, 0, 0, 0, NODE, 0, 0, 0, 0, 0].iter().flat_map(|number| number.to_ne_bytes());
    // Nanoseconds; mode, links; owner, group, device, block size, flags.
    let words = [0, 0, 0, MODE, 1, 0, 0, 0, 4096, 0_u32].iter().flat_map(|word| word.to_ne_bytes());
    numbers.chain(words).collect()
}
