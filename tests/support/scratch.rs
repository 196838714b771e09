//! Names and places that belong to this process alone, and the removal of what a crashed one left behind.

use std::fs::{self, Permissions};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use tempfile::TempDir;

/// Every name of ours starts like this, then comes the pid of the process that made it.
pub(crate) const PREFIX: &str = "pt";

/// A name that nobody else uses: `<kind>-<pid>-<n>`. Kept to 15 characters, so that it is also a whole `comm`.
#[must_use]
pub fn unique_name(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{kind}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    assert!(name.len() <= 15, "{name} does not fit into comm, choose a shorter kind");
    name
}

/// A directory that everybody may read, so that daemons which drop root find their way; gone with its owner.
#[must_use]
pub fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}-{}-", process::id()))
        .tempdir()
        .expect("make a temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))
        .expect("open the temporary directory");
    directory
}

/// A link to `program` under another name: the kernel calls the process (`comm`) after the path that was executed.
pub fn alias(program: &Path, directory: &Path, name: &str) -> PathBuf {
    let link = directory.join(name);
    std::os::unix::fs::symlink(program, &link).expect("link a program under a name of its own");
    link
}

/// A loopback port of the host that is free, and that no other run of these tests is given as long as this process
/// lives: each port has a name (an abstract unix socket), which only one can hold. Below the ephemeral range, so that
/// no outgoing connection takes it.
#[must_use]
pub fn free_port() -> u16 {
    let is_ours = |port: &u16| {
        let name =
            SocketAddr::from_abstract_name(format!("proxytrace-tests-{port}")).expect("an abstract name");
        let Ok(held) = UnixListener::bind_addr(&name) else { return false };
        let is_free = can_be_bound(*port);
        if is_free {
            std::mem::forget(held);
        }
        is_free
    };
    (12_000..32_000).find(is_ours).expect("a free port on loopback")
}

/// Whether nobody listens there. Nor do we, not for a moment: a child that another thread forks has our descriptors until
/// it executes, and whoever waits for the port to be served would be connected to that child.
fn can_be_bound(port: u16) -> bool {
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("make a socket");
    setsockopt(&socket, sockopt::ReuseAddr, &true).expect("leave the port to others");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).is_ok()
}

/// Removes the directories of processes that are gone.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if is_stale(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the name is one of ours, and its maker is gone.
pub(crate) fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-');
    let ours = parts.next() == Some(PREFIX);
    let maker = parts.next().and_then(|pid| pid.parse::<u32>().ok());
    ours && maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
