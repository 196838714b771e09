//! A kernel that is a program of the host: it runs below the root that its packages were unpacked to, as its C library is
//! newer than the host's.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::root::MERGED;

/// Mounted upon, below that root, while it runs.
const DIRECTORIES: &[&str] = &["proc", "dev/shm"];
const INITRD: &str = "initrd";

/// Needs no privilege: it is root of a user namespace, and what is mounted there goes with it. A kernel of this kind keeps
/// its memory, and at home its files, in /dev/shm.
const START: &str = r#"
    mount --rbind /proc "$0/proc" && mount -t tmpfs none "$0/dev/shm" && mount --bind "$1" "$0/initrd" || exit
    shift && HOME=/dev/shm exec chroot "$0" "$@"
"#;

/// Its console is our ends of two pipes: input is none, but without one it has no output either.
const ARGUMENTS: &[&str] =
    &["initrd=/initrd", "mem=1024M", "con=null", "con0=fd:0,fd:1", "quiet", "panic=-1"];

/// Makes the root, of unpacked packages, one that can be changed to.
pub(crate) fn complete(root: &Path) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory)).with_context(|| made(root, directory))?;
    }
    for name in MERGED.iter().filter(|name| !root.join(name).exists()) {
        symlink(format!("usr/{name}"), root.join(name)).with_context(|| made(root, name))?;
    }
    File::create(root.join(INITRD)).with_context(|| made(root, INITRD))?;
    Ok(())
}

fn made(root: &Path, name: &str) -> String {
    format!("make {name} in {}", root.display())
}

/// What boots the program at `path` of that root into `initramfs`.
pub(crate) fn arguments(command: &mut Command, root: &Path, path: &str, initramfs: &Path) {
    command.args(["unshare", "--map-root-user", "--mount", "sh", "-c", START]);
    command.arg(root).arg(initramfs).arg(format!("/{path}")).args(ARGUMENTS);
}
