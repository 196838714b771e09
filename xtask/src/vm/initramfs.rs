//! The file system that a virtual machine boots into: programs of this machine with the libraries they need, at the
//! places that they have here.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::kernels::Kernel;
use super::modules;
use crate::shell;

const INIT: &str = include_str!("init.sh");

/// What the stories and /init call, from this machine's PATH.
const PROGRAMS: &[&str] = &["nginx", "ip", "nft", "setpriv", "unshare", "dash", "busybox"];
/// What is called by another name.
const LINKS: &[(&str, &str)] = &[("/usr/bin/sh", "dash")];
/// What busybox, which is one program for many, is called in /init and in the stories.
const APPLETS: &[&str] = &["cat", "chmod", "insmod", "mkdir", "mount", "poweroff", "sleep", "uname"];
/// Where distributions have merged them; the dynamic linker is looked for under the old name.
const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];
/// The users that nginx and the stories run as.
const FILES: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"),
];

/// What was built, and is put there under a name that /init knows; the client also where the stories look for it.
pub(super) struct Built {
    pub(super) proxytrace: PathBuf,
    pub(super) stories: PathBuf,
    pub(super) connector: PathBuf,
}

/// Writes the part that all kernels share.
pub(super) fn write_base(path: &Path, built: &Built) -> Result<()> {
    let mut archive = Archive::new(create(path)?);
    for name in MERGED {
        archive.directory(&format!("usr/{name}"))?;
        archive.link(name, &format!("usr/{name}"))?;
    }
    archive.program("/init", INIT.as_bytes())?;
    for (path, content) in FILES {
        archive.file(path, content.as_bytes())?;
    }
    for applet in APPLETS {
        archive.link(&format!("/usr/bin/{applet}"), "busybox")?;
    }
    for (path, target) in LINKS {
        archive.link(path, target)?;
    }
    for (name, program) in [("proxytrace", &built.proxytrace), ("stories", &built.stories)] {
        archive.program(&format!("/usr/bin/{name}"), &read(program)?)?;
    }

    let here = PROGRAMS.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
    let mut files: BTreeSet<PathBuf> = here.iter().map(|path| place(path)).collect::<Result<_>>()?;
    files.insert(place(&built.connector)?);
    for program in here.iter().chain([&built.proxytrace, &built.stories, &built.connector]) {
        for library in libraries(program)? {
            files.insert(place(&library)?);
        }
    }
    for file in &files {
        archive.program(&file.to_string_lossy(), &read(file)?)?;
    }
    archive.end().with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// Writes a whole one: the part that all share, the modules of this kernel, and what is to be done.
pub(super) fn write(path: &Path, base: &Path, kernel: &Kernel, plan: &str) -> Result<()> {
    fs::copy(base, path).with_context(|| format!("copy {} to {}", base.display(), path.display()))?;
    let file = File::options().append(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for (number, module) in modules::of(kernel)?.iter().enumerate() {
        archive.file(&format!("/vm/modules/{number:02}-{}.ko", module.name), &module.object)?;
    }
    archive.file("/vm/plan", plan.as_bytes())?;
    archive.end().with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// Where a program of this machine is. Users' PATH often lacks the directories of those that root runs.
fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    let mut places = directories.map(|directory| directory.join(program));
    places.find(|place| place.is_file()).with_context(|| format!("{program} is not installed"))
}

/// A file's path without links in its directories, which the machine would not have.
fn place(path: &Path) -> Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = directory.canonicalize().with_context(|| format!("find {}", directory.display()))?;
    Ok(directory.join(path.file_name().unwrap_or_default()))
}

/// The shared libraries of a program, its dynamic linker included; none of a static one, at which ldd fails.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let printed = shell::output(Command::new("ldd").arg(program)).unwrap_or_default();
    if let Some(missing) = printed.lines().find(|line| line.ends_with("not found")) {
        anyhow::bail!("{} cannot run here:{missing}", program.display());
    }
    Ok(paths(&printed).map(PathBuf::from).collect())
}

/// The absolute paths in what ldd prints: `libc.so.6 => /lib/libc.so.6 (0x7f)`, `/lib64/ld.so.2 (0x7f)`.
fn paths(printed: &str) -> impl Iterator<Item = &str> {
    printed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'))
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("create {}", path.display()))?))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_dynamic_linker_are_read_from_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let found: Vec<_> = paths(printed).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(paths("\tnot a dynamic executable\n").count(), 0);
    }
}
