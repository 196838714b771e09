//! Answers requests about one proxy.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use nginx_conf::{Config, Limits, load};
use nix::sched::{CloneFlags, setns};
use procfs::process::Process;

use super::{
    Addresses, Answer, Configuration, Lookup, Question, Request, changed,
    master::{self, Arguments, Role},
    names, pod, rejection,
    root::Root,
    serve,
};
use crate::{
    kernel::boot_ns,
    model::Clock,
    nginx::routes::{self, Routes},
};

/// A program larger than that is not looked through for what was compiled into it.
const MOST_PROGRAM: u64 = 64 << 20;

/// Why there is no answer.
enum Failure {
    /// What went wrong.
    Failed(String),
    /// The process has ended, or is no nginx.
    NoNginx,
}

/// Answers one request. Changes the network namespace of this process: for one that ends after it.
pub(super) fn answer(request: &Request) -> Answer {
    let answered = match &request.question {
        // Of the process itself: it need be no nginx.
        Question::Pod => Ok(Answer::Pod(request.pids.iter().find_map(|&pid| pod::of(pid)))),
        Question::Configuration => master_of(request).and_then(|master| master.configuration(request)),
        Question::Addresses(lookups) => {
            master_of(request).and_then(|master| master.look_up(lookups.clone()).map(Answer::Addresses))
        }
        Question::Rejection(asked_ns) => {
            let master = master_of(request).ok();
            let reason = master.and_then(|master| master.rejection(*asked_ns, request.config.as_deref()));
            Ok(Answer::Rejection { asked_ns: *asked_ns, reason })
        }
    };
    match answered {
        Ok(answer) => answer,
        Err(Failure::Failed(why)) => request.question.unanswered(why),
        Err(Failure::NoNginx) => Answer::NoNginx,
    }
}

/// A process whose configuration, root and network are those of the proxy.
struct Master {
    pid: u32,
    exe: PathBuf,
    arguments: Arguments,
}

/// The first of the processes that is a master, or whose parent is. Where a configuration is given any process will do.
fn master_of(request: &Request) -> Result<Master, Failure> {
    let mut failure = Failure::NoNginx;
    for &pid in &request.pids {
        match find(pid, request.config.is_some()) {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn find(pid: u32, takes_any: bool) -> Result<Option<Master>, Failure> {
    let exe = match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => exe,
        // ESRCH and ENOENT: it has ended.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Failure::Failed(format!(
                "process {pid}: {error}; to look at it takes CAP_SYS_PTRACE (`proxytrace doctor`)"
            )));
        }
        Err(_) => return Ok(None),
    };
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    match master::role(&cmdline, &exe) {
        Role::Master(arguments) => Ok(Some(Master { pid, exe, arguments })),
        Role::Worker => {
            let parent = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok();
            parent.map_or(Ok(None), |stat| find(stat.ppid.cast_unsigned(), takes_any))
        }
        Role::Other if takes_any => Ok(Some(Master { pid, exe, arguments: Arguments::default() })),
        Role::Other => Ok(None),
    }
}

impl Master {
    fn configuration(&self, request: &Request) -> Result<Answer, Failure> {
        let root = self.root()?;
        let (path, config) = self.load(&root, request.config.as_deref())?;
        if routes::entries(&config) > routes::MAX_ENTRIES {
            return Err(Failure::Failed(format!("{}: {}", path.display(), serve::TOO_LARGE)));
        }
        // Of one that the process does not name, nobody says that it runs.
        let is_its_own = request.config.is_none();
        let changed =
            is_its_own.then(|| changed::after_start(&root, &path, &config, &request.pids)).flatten();
        let (exe, routes) = (self.exe.clone(), Arc::new(Routes::of(&config)));
        let addresses = Addresses::default();
        Ok(Answer::Configuration(Box::new(Configuration { path, exe, routes, changed, addresses })))
    }

    fn load(&self, root: &Root, path: Option<&Path>) -> Result<(PathBuf, Config), Failure> {
        let path = path.map_or_else(|| self.config_path(), |path| Ok(path.to_owned()))?;
        let mut config = load(root, &path, self.arguments.globals.as_deref(), &Limits::default())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        // What the tree was made of is as large as the tree, and nobody reads it any more.
        config.files.iter_mut().for_each(|file| file.text = Vec::new());
        Ok((path, config))
    }

    /// Where nginx logs to a pipe, what is wrong with the files is all that can be had.
    fn rejection(&self, asked_ns: u64, config: Option<&Path>) -> Option<String> {
        let asked = Clock::new(boot_ns(), Timestamp::now()).at(asked_ns);
        rejection::logged(self.pid, asked).or_else(|| {
            match self.root().and_then(|root| self.load(&root, config)) {
                Err(Failure::Failed(why)) => Some(why),
                Ok(_) | Err(Failure::NoNginx) => None,
            }
        })
    }

    fn config_path(&self) -> Result<PathBuf, Failure> {
        let failed = |what: &str, error: io::Error| self.failed(what, &error);
        let mut program = Vec::new();
        File::open(format!("/proc/{}/exe", self.pid))
            .and_then(|file| file.take(MOST_PROGRAM).read_to_end(&mut program))
            .map_err(|error| failed("read its program", error))?;
        let directory = fs::read_link(format!("/proc/{}/cwd", self.pid))
            .map_err(|error| failed("find its working directory", error))?;
        Ok(master::config_path(&self.arguments, &master::compiled(&program), &directory))
    }

    fn root(&self) -> Result<Root, Failure> {
        Root::of(self.pid).map_err(|error| self.failed("look below its root directory", &error))
    }

    /// A master that goes into the background ends while it is looked at: another process then knows the same. What has
    /// ended and is waited for has no program any more.
    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        if fs::read_link(format!("/proc/{}/exe", self.pid)).is_err() {
            return Failure::NoNginx;
        }
        Failure::Failed(format!("process {}: {what}: {error}", self.pid))
    }

    fn look_up(&self, lookups: Vec<Lookup>) -> Result<Addresses, Failure> {
        let system = names::System::of(&self.root()?);
        if let Err(error) = self.enter_network() {
            let problem = format!(
                "names are not looked up: enter the network namespace of process {}: {error}; it takes CAP_SYS_ADMIN",
                self.pid
            );
            return Ok(Addresses { problems: vec![problem], ..Addresses::default() });
        }
        serve::note_files_read()
            .map_err(|error| Failure::Failed(format!("say that files were read: {error}")))?;
        names::look_up(system, lookups).map_err(|error| Failure::Failed(format!("look names up: {error}")))
    }

    /// Where it is another one: that takes more privileges than to stay.
    fn enter_network(&self) -> io::Result<()> {
        let path = format!("/proc/{}/ns/net", self.pid);
        if fs::read_link(&path)? != fs::read_link("/proc/self/ns/net")? {
            setns(File::open(&path)?, CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    }
}
