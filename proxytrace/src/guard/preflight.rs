//! What is looked at before anything is loaded: the configuration that is on disk, as `check` and as nginx itself see it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::command;
use crate::{
    check::{self, Finding, Subject, probe, resolve, source},
    declared::{Addresses, Routes},
    programs::{self, Arguments, Role},
    watch::Running,
};

/// The nginx of which a configuration is looked at.
#[derive(Debug)]
pub(super) struct Nginx {
    /// Its master.
    master: u32,
    arguments: Arguments,
    /// Its configuration.
    config: PathBuf,
    /// Whether names stand for the same there as here.
    pub(super) shares_network: bool,
}

/// A configuration as it is on disk.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub(super) routes: Routes,
    /// What its names stand for, as far as that is known.
    pub(super) addresses: Addresses,
    /// What is wrong with it: sentences.
    pub(super) errors: Vec<Fault>,
    /// The files that nginx reads.
    pub(super) files: Vec<PathBuf>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    id: &'static str,
    what: String,
    place: String,
}

impl Fault {
    fn of(finding: &Finding) -> Self {
        let place = format!("{}:{}", finding.file, finding.line);
        Self { id: finding.rule.id, what: finding.what.clone(), place }
    }

    /// Whether it is the same, wherever it is now.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.id, &self.what) == (other.id, &other.what)
    }

    /// The file that it is in.
    pub(super) fn file(&self) -> &Path {
        Path::new(self.place.rsplit_once(':').map_or(&*self.place, |(file, _)| file))
    }

    pub(super) fn in_words(&self) -> String {
        format!("check: {} ({}) [{}]", self.what, self.place, self.id)
    }
}

impl Nginx {
    /// The nginx that runs there, if it sees the files that we see.
    ///
    /// # Errors
    /// Why its configuration is not looked at.
    pub(super) fn of(running: &Running) -> Result<Self, String> {
        let not =
            |why: &str| format!("{}: the configuration is not looked at beforehand: {why}", running.of.proxy);
        let path = main_file(running).ok_or_else(|| not("it is not known"))?;
        let is_elsewhere = |what: &str| {
            let [own, other] =
                [PathBuf::from("/proc/self"), PathBuf::from(format!("/proc/{}", running.master))];
            let of = |of: PathBuf| fs::metadata(of.join(what)).map(|about| (about.dev(), about.ino()));
            of(own).ok().zip(of(other).ok()).is_none_or(|(own, other)| own != other)
        };
        // With a /tmp of its own (PrivateTmp=) it has the same files otherwise.
        let main = format!("root{}", path.display());
        let has_others = || is_elsewhere("root") || is_elsewhere("ns/mnt") && is_elsewhere(&main);
        if is_elsewhere("ns/user") || has_others() {
            return Err(not("the proxy runs in a container; check it there, as in --apply"));
        }
        // Whoever may start a process can call it nginx and choose its program and its configuration: neither is run or read with rights
        // that its user does not have.
        if !probe::runs_as_we_do(running.master) {
            return Err(not("its master runs as another user; guard it as that user"));
        }
        match role(running.master) {
            Role::Master(arguments) => Ok(Self {
                master: running.master,
                arguments,
                config: path,
                shares_network: !is_elsewhere("ns/net"),
            }),
            Role::Worker | Role::Other => Err(not("it is no nginx")),
        }
    }

    /// Whether nginx runs there, in a container or not.
    pub(super) fn runs(running: &Running) -> bool {
        matches!(role(running.master), Role::Master(_))
    }

    /// What is on disk; `None` with the fault that keeps it from being read.
    ///
    /// # Errors
    /// We may not read it.
    pub(super) async fn on_disk(&self, resolves: bool) -> anyhow::Result<Result<OnDisk, Fault>> {
        on_disk(&self.config, resolves).await
    }

    /// What keeps its configuration from being read, if anything does: then it runs another one.
    pub(super) fn unreadable(&self) -> Option<Fault> {
        match source::read(&self.config, &source::Paths::default()) {
            Ok(Err(finding)) => Some(Fault::of(&finding)),
            Ok(Ok(_)) | Err(_) => None,
        }
    }

    /// Whether another program is in its place by now, as after an update.
    pub(super) fn is_replaced(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.master))
            .is_ok_and(|exe| exe.as_os_str().as_bytes().ends_with(b" (deleted)"))
    }

    /// What nginx says to it `within` that time: nothing where all is well.
    pub(super) async fn tested(&self, within: Duration) -> Option<String> {
        let Arguments { config, prefix, globals, .. } = &self.arguments;
        // The one that runs, which would read it, also where another one is in its place by now; and from where that was started.
        let of_master = |what: &str| format!("/proc/{}/{what}", self.master);
        let mut words = vec![of_master("exe"), "-t".to_owned(), "-q".to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        option("-p", prefix.as_ref().map(|path| path.display().to_string()));
        option("-c", Some(config.as_ref().unwrap_or(&self.config).display().to_string()));
        option("-g", globals.clone());
        let output = match command::output(&words, Path::new(&of_master("cwd")), within).await {
            Ok(output) => output,
            Err(error) => return Some(format!("nginx -t: {error}")),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        // The last line only says that it failed. Where it has a log already, a time stands before the level.
        let reasons = said.lines().filter(|line| !line.ends_with(" test failed"));
        let said: Vec<_> = reasons.map(|line| line.find('[').map_or(line, |level| &line[level..])).collect();
        (!output.status.success()).then(|| match said.is_empty() {
            true => format!("nginx -t {}", output.status),
            false => format!("nginx -t: {}", said.join(" ")),
        })
    }
}

/// The main file, also of a configuration that could not be read.
fn main_file(running: &Running) -> Option<PathBuf> {
    let known = running.configuration.as_ref().map(|configuration| configuration.path.clone());
    known.or_else(|| probe::config_of(running.master))
}

/// A configuration in a file; its names are looked up where it `resolves`.
///
/// # Errors
/// We may not read it.
pub(super) async fn on_disk(path: &Path, resolves: bool) -> anyhow::Result<Result<OnDisk, Fault>> {
    let subject: Subject = match source::read(path, &source::Paths::default())? {
        Ok(source) => source.subject,
        Err(finding) => return Ok(Err(Fault::of(&finding))),
    };
    let addresses = if resolves {
        resolve::all(check::hosts(&subject).iter().map(String::as_str)).await
    } else {
        Addresses::new()
    };
    let host = check::Host {
        resolved: &addresses,
        has_socket: &is_socket,
        has_file: &Path::is_file,
        is_here: true,
        version: source::installed_version(),
    };
    let found = check::findings(&subject, &host, Vec::new()).findings;
    let errors: BTreeSet<_> = found.iter().filter(|finding| finding.is_error()).map(Fault::of).collect();
    let files = subject.files();
    Ok(Ok(OnDisk { routes: subject.routes, addresses, errors: errors.into_iter().collect(), files }))
}

fn role(pid: u32) -> Role {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    programs::role(&command_line, &exe)
}

fn is_socket(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_socket())
}
