//! Where the programs and libraries of a machine come from: this machine, or Debian's packages of its architecture,
//! unpacked into a cache and never installed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xtask_tools::cargo::Target;
use xtask_tools::private_apt::{PrivateApt, Source};

use crate::arch::Arch;
use crate::elf::Wanted;

/// What has the programs that machines need; and libgcc, which what is built here needs, and nothing else may depend on.
const PACKAGES: &[&str] = &[
    "nginx",
    "libnginx-mod-http-lua",
    "libnginx-mod-stream",
    "openssl",
    "iproute2",
    "nftables",
    "util-linux",
    "dash",
    "busybox-static",
    "libgcc-s1",
];
/// Where they are from. What is built against a newer C library than it has may not run there.
const SUITE: &str = "bookworm";

/// Which packages are in a file system that was unpacked: others may be wanted later.
const CONTENT: &str = "packages";

/// Where programs are, in a file system that was unpacked.
const PROGRAMS: &[&str] = &["usr/sbin", "usr/bin", "sbin", "bin"];
/// Where libraries are, besides what the dynamic linker reads in files of [`LINKER`].
const LIBRARIES: &[&str] = &["/lib", "/usr/lib", "/lib64", "/usr/lib64"];
const LINKER: &str = "etc/ld.so.conf.d";

/// Where distributions have merged them below usr; the dynamic linker is searched under the old name.
pub(crate) const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];

/// The top of a file system.
pub(crate) struct Root {
    top: PathBuf,
    programs: Vec<PathBuf>,
    libraries: Vec<PathBuf>,
}

impl Root {
    /// Of an architecture: our own file system, or one that is downloaded once.
    pub(crate) fn of(arch: &Arch, work: &Path) -> Result<Self> {
        if arch.target() == Target::Own {
            // Users' PATH often lacks the directories of those that root runs.
            let path = env::var_os("PATH").unwrap_or_default();
            let programs = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into)).collect();
            return Ok(Self::at(Path::new("/"), programs));
        }
        let top = work.join(format!("root-{}", arch.name));
        if !fs::read_to_string(top.join(CONTENT)).is_ok_and(|content| content == PACKAGES.join(" ")) {
            if top.is_dir() {
                fs::remove_dir_all(&top).with_context(|| format!("remove {}", top.display()))?;
            }
            download(arch, work, &top)?;
        }
        Ok(Self::at(&top, PROGRAMS.iter().map(|directory| top.join(directory)).collect()))
    }

    fn at(top: &Path, programs: Vec<PathBuf>) -> Self {
        let files = fs::read_dir(top.join(LINKER)).into_iter().flatten().flatten();
        let configured =
            files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect::<Vec<_>>().join("\n");
        let configured = configured.lines().filter(|line| line.starts_with('/'));
        let libraries = configured.chain(LIBRARIES.iter().copied()).map(|path| below(top, Path::new(path)));
        Self { top: top.to_path_buf(), programs, libraries: libraries.collect() }
    }

    /// Where a program is.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let top = self.top.display();
        self.first(&self.programs, name).with_context(|| format!("{name} is not installed in {top}"))
    }

    /// Where a file of it is here.
    pub(crate) fn path(&self, place: &str) -> PathBuf {
        self.top.join(place)
    }

    /// All files below a directory: where they belong, and where they are here.
    pub(crate) fn tree(&self, directory: &str) -> Result<BTreeMap<String, PathBuf>> {
        let (mut waiting, mut files) = (vec![self.path(directory)], BTreeMap::new());
        while let Some(path) = waiting.pop() {
            for entry in fs::read_dir(&path).with_context(|| format!("read {}", path.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    files.insert(self.place(&path)?, path);
                }
            }
        }
        Ok(files)
    }

    /// Everything that these programs need to run, themselves included: where it belongs, and where it is here. Those
    /// that are not of this file system belong where they are.
    pub(crate) fn closure(&self, programs: Vec<PathBuf>) -> Result<BTreeMap<String, PathBuf>> {
        let (mut waiting, mut seen, mut files) = (programs, BTreeSet::new(), BTreeMap::new());
        while let Some(path) = waiting.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let file = self.behind(&path);
            let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            let wanted = Wanted::by(&path, &content)?;
            waiting.extend(wanted.interpreter.map(|linker| below(&self.top, Path::new(&linker))));
            for name in wanted.libraries {
                let library = self.first(&self.libraries, &name);
                waiting.push(
                    library.with_context(|| format!("{} needs {name}, which is nowhere", path.display()))?,
                );
            }
            files.insert(self.place(&path)?, file);
        }
        Ok(files)
    }

    /// The first of that name.
    fn first(&self, directories: &[PathBuf], name: &str) -> Option<PathBuf> {
        let mut paths = directories.iter().map(|directory| directory.join(name));
        paths.find(|path| self.behind(path).is_file())
    }

    /// What is behind a link, which in a package may be an absolute one.
    fn behind(&self, path: &Path) -> PathBuf {
        let target = path.read_link().ok().filter(|target| target.is_absolute());
        target.map_or_else(|| path.to_path_buf(), |target| below(&self.top, &target))
    }

    /// A file's path in the machine: without links in its directories, which the machine would not have.
    fn place(&self, path: &Path) -> Result<String> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let directory = directory.canonicalize().with_context(|| format!("find {}", directory.display()))?;
        let top = self.top.canonicalize().with_context(|| format!("find {}", self.top.display()))?;
        let place = directory.join(path.file_name().unwrap_or_default());
        let place = place.strip_prefix(top).unwrap_or(&place).to_string_lossy().into_owned();
        Ok(merged(place.trim_start_matches('/')))
    }
}

/// Downloads the packages with all that they depend on; they appear whole or not at all.
fn download(arch: &Arch, work: &Path, top: &Path) -> Result<()> {
    let own = work.join("apt").join(format!("root-{}", arch.name));
    let partial = own.join("unpacked");
    let apt = PrivateApt::new(own, &[Source::debian(SUITE)?], arch.name)?;
    eprintln!("vm: downloading {} for {} with what they depend on", PACKAGES.join(" "), arch.name);
    apt.update()?;
    apt.unpack_with_dependencies(PACKAGES, &partial)?;
    let content = partial.join(CONTENT);
    fs::write(&content, PACKAGES.join(" ")).with_context(|| format!("write {}", content.display()))?;
    fs::rename(&partial, top).with_context(|| format!("move {} to {}", partial.display(), top.display()))?;
    apt.end()
}

/// An absolute path, taken below `top`.
fn below(top: &Path, path: &Path) -> PathBuf {
    top.join(path.strip_prefix("/").unwrap_or(path))
}

/// Where a path without its leading slash is on a file system with [`MERGED`] directories.
fn merged(path: &str) -> String {
    let is_merged = path.split('/').next().is_some_and(|first| MERGED.contains(&first));
    if is_merged { format!("usr/{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{AMD64, ARM64};

    #[test]
    fn the_programs_of_this_machine_come_with_their_libraries() {
        let own = [&AMD64, &ARM64].into_iter().find(|arch| arch.target() == Target::Own).unwrap();
        let root = Root::of(own, Path::new("/nowhere")).unwrap();
        let files = root.closure(vec![root.program("sh").unwrap()]).unwrap();
        let places: Vec<_> = files.keys().map(String::as_str).collect();
        for wanted in ["usr/bin/sh", "/libc.so.", "/ld-linux"] {
            assert!(places.iter().any(|place| place.contains(wanted)), "{wanted} is not in {places:?}");
        }
        assert!(root.program("no-such-program").is_err());
    }

    #[test]
    fn an_absolute_link_in_a_package_leads_to_what_is_in_packages() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("bin")).unwrap();
        fs::write(top.path().join("bin/somewhere-else"), "").unwrap();
        std::os::unix::fs::symlink("/bin/somewhere-else", top.path().join("bin/ip")).unwrap();
        let root = Root::at(top.path(), vec![top.path().join("bin")]);
        let program = root.program("ip").unwrap();
        assert_eq!(program, top.path().join("bin/ip"));
        assert_eq!(root.behind(&program), top.path().join("bin/somewhere-else"));
    }

    #[test]
    fn what_is_not_merged_in_a_package_is_so_in_the_machine() {
        assert_eq!(merged("bin/busybox"), "usr/bin/busybox");
        assert_eq!(merged("usr/bin/dash"), "usr/bin/dash");
        assert_eq!(merged("binary/dash"), "binary/dash");
    }
}
