//! Which proxies a change is about. Anybody may start an nginx on this host and reload it, at any time: what that one does is no reason to
//! take back the change of another, or to wait.
//!
//! Those are meant whose configuration lies in the directory that is put back, where any has it there, and of these the ones that run as
//! we do, where any does. Whoever else is among them takes part in nothing but the report.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use super::preflight::Nginx;
use crate::{
    check::probe::{config_of, runs_as_we_do},
    declared::Configuration,
    model::Generation,
    watch::Running,
};

/// Of so many generations it is remembered.
const MAX_KNOWN: usize = 4096;

/// Which proxies are meant.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The device and inode of the directory that their configurations are in.
    directory: Option<(u64, u64)>,
    /// Whether they run as we do.
    is_own: bool,
    /// Those that are known to be meant, by name: nobody else gets that.
    names: BTreeSet<Arc<str>>,
    /// What was found out of generations, and whether their configuration was known by then.
    known: BTreeMap<(Arc<str>, u32, u32), (bool, bool)>,
}

impl Scope {
    /// That of a change of `directory`, while these run.
    pub(super) fn new(directory: Option<&Path>, running: &[Running]) -> Self {
        let identity = directory.and_then(|path| fs::metadata(path).ok());
        let directory = identity.map(|about| (about.dev(), about.ino()));
        let lies_in = |running: &Running| directory.is_some_and(|directory| lies_in(running, directory));
        let (inside, others): (Vec<_>, Vec<_>) = running.iter().partition(|running| lies_in(running));
        let (directory, all) = if inside.is_empty() { (None, others) } else { (directory, inside) };
        let own: Vec<_> = all.iter().filter(|running| runs_as_we_do(running.master)).copied().collect();
        let is_own = !own.is_empty();
        let meant = if is_own { own } else { all };
        let names = meant.into_iter().map(|running| Arc::clone(&running.of.proxy)).collect();
        Self { directory, is_own, names, known: BTreeMap::new() }
    }

    /// Whether any has its configuration in the directory, or a part of it.
    pub(super) const fn is_in_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Whether the change is about this one.
    pub(super) fn has(&mut self, running: &Running) -> bool {
        if self.names.contains(&running.of.proxy) {
            return true;
        }
        let Generation { proxy, pid, number } = &running.of;
        let (key, is_known) = ((Arc::clone(proxy), *pid, *number), running.configuration.is_some());
        if let Some((has, _)) = self.known.get(&key).filter(|(_, was_known)| *was_known == is_known) {
            return *has;
        }
        let has = (!self.is_own || runs_as_we_do(running.master))
            && self.directory.is_none_or(|directory| lies_in(running, directory));
        // Whoever starts one after the other makes this no larger.
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(key, (has, is_known));
        if has {
            self.names.insert(Arc::clone(proxy));
        }
        has
    }

    /// Whether a proxy of that name is known to be meant.
    pub(super) fn has_name(&self, proxy: &Arc<str>) -> bool {
        self.names.contains(proxy)
    }
}

/// Whether the proxy reads something of its routes from there, as it sees the files: in a container the same directory has another path.
fn lies_in(running: &Running, directory: (u64, u64)) -> bool {
    // What nginx refuses cannot be read, and is in that directory all the same.
    let files = match &running.configuration {
        Some(configuration) => files(configuration),
        None => unread(running),
    };
    if files.is_empty() {
        return false;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = openat(CWD, format!("/proc/{}/root", running.master), flags, Mode::empty()) else {
        return false;
    };
    let places: BTreeSet<_> = files.iter().flat_map(|file| parents(file)).collect();
    places.iter().any(|place| identity(&root, place) == Some(directory))
}

fn parents(file: &Path) -> impl Iterator<Item = PathBuf> {
    file.ancestors().skip(1).filter(|path| path.is_absolute()).map(Path::to_owned)
}

/// The files that the routes stand in, and the main one.
fn files(configuration: &Configuration) -> BTreeSet<PathBuf> {
    let routes = &configuration.routes;
    let upstreams = routes.upstreams.iter().flat_map(|upstream| {
        [&upstream.place].into_iter().chain(upstream.peers.iter().map(|peer| &peer.place))
    });
    let places = upstreams.chain(routes.routes.iter().map(|route| &route.place));
    let file = |place: &String| place.rsplit_once(':').map(|(path, _)| PathBuf::from(path));
    places.filter_map(file).chain([configuration.path.clone()]).collect()
}

/// The main file of a configuration that could not be read, and where reading it ends.
fn unread(running: &Running) -> BTreeSet<PathBuf> {
    let broken = Nginx::of(running).ok().and_then(|nginx| nginx.unreadable());
    config_of(running.master).into_iter().chain(broken.map(|fault| fault.file().to_owned())).collect()
}

/// The device and inode of a directory below a root. No link leads out of that.
#[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
fn identity(root: &OwnedFd, path: &Path) -> Option<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let about = fstat(found).ok()?;
    Some((about.st_dev as u64, about.st_ino as u64))
}
