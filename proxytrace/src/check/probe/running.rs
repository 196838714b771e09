//! The nginx that runs with a configuration, if one does.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::{
    check::{source, user::User},
    nginx::config_path::{self, Compiled},
    programs::{self, Arguments, Role},
};

/// A running nginx.
#[derive(Debug)]
pub struct Running {
    /// Its master.
    pub master: u32,
    /// Whether its network and its files are those of this process.
    pub is_here: bool,
    /// The user of its workers where its configuration names none.
    pub user: Option<User>,
}

impl Running {
    /// The master that reads this file, best of all one that sees what we see. Only one of our own user is taken: whoever may start a process
    /// can call it nginx, and choose what is at its paths.
    #[must_use]
    pub fn with(config: &Path) -> Option<Self> {
        let meant = identity(config)?;
        let masters = processes().filter_map(Master::of).filter(|master| runs_as_we_do(master.pid));
        let reading =
            masters.filter(|master| master.config().is_some_and(|path| identity(&path) == Some(meant)));
        let all = reading.map(|master| {
            let is_here = ["ns/net", "ns/mnt", "root"].iter().all(|what| {
                let own = identity(&Path::new("/proc/self").join(what));
                own.is_some() && own == identity(&master.directory.join(what))
            });
            Self { master: master.pid, is_here, user: master.user() }
        });
        all.min_by_key(|running| (!running.is_here, running.master))
    }

    /// The user of workers where nothing says it: that of the nginx that is installed here.
    #[must_use]
    pub fn user_of_installed() -> Option<User> {
        let program = source::installed_program()?;
        Some(user_of(&config_path::compiled(&fs::read(program).ok()?)))
    }
}

/// Whether each user id of a process is ours.
#[must_use]
pub fn runs_as_we_do(pid: u32) -> bool {
    let status = procfs::process::Process::new(pid.cast_signed()).and_then(|process| process.status());
    let own = geteuid().as_raw();
    status.is_ok_and(|of| [of.ruid, of.euid, of.suid, of.fuid].into_iter().all(|uid| uid == own))
}

/// The main file of the configuration that a master reads, a path below its root. Where its command line does not say it, its program is
/// read, if it runs as we do.
#[must_use]
pub fn config_of(pid: u32) -> Option<PathBuf> {
    let master = Master::of(pid)?;
    if runs_as_we_do(pid) { master.path() } else { master.arguments.absolute_config() }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process that is a master.
struct Master {
    pid: u32,
    /// In /proc.
    directory: PathBuf,
    arguments: Arguments,
}

impl Master {
    fn of(pid: u32) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let command_line = fs::read(directory.join("cmdline")).ok()?;
        let exe = fs::read_link(directory.join("exe")).ok()?;
        match programs::role(&command_line, &exe) {
            Role::Master(arguments) if !arguments.is_errand => Some(Self { pid, directory, arguments }),
            _ => None,
        }
    }

    fn compiled(&self) -> Option<Compiled> {
        Some(config_path::compiled(&fs::read(self.directory.join("exe")).ok()?))
    }

    /// The file that it reads, below its root.
    fn path(&self) -> Option<PathBuf> {
        // What was compiled in is looked for only where the command line does not say it.
        self.arguments.absolute_config().or_else(|| {
            let cwd = fs::read_link(self.directory.join("cwd")).ok()?;
            Some(config_path::config_path(&self.arguments, &self.compiled()?, &cwd))
        })
    }

    /// The same as we can open it.
    fn config(&self) -> Option<PathBuf> {
        let path = self.path()?;
        Some(self.directory.join("root").join(path.strip_prefix("/").unwrap_or(&path)))
    }

    /// The user of its workers where its configuration names none.
    fn user(&self) -> Option<User> {
        let globals = self.arguments.globals.as_deref();
        globals.and_then(User::in_globals).or_else(|| Some(user_of(&self.compiled()?)))
    }
}

/// What nginx's `configure` takes where it is given none is nobody.
fn user_of(compiled: &Compiled) -> User {
    let Compiled { user, group, .. } = compiled;
    User { name: user.clone().unwrap_or_else(|| "nobody".to_owned()), group: group.clone() }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}
