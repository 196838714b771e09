//! Answers requests about one proxy.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use nginx_conf::{Config, Limits, load};

use super::{
    Answer, Lookup, Question, Request, changed,
    master::{self, Arguments, Role},
    names,
    owner::{Opened, Process, Refusal, Wanted},
    pod, rejection, serve,
};
use crate::{
    declared::{Configuration, MAX_ENTRIES, Resolved},
    kernel::boot_ns,
    model::Clock,
    nginx::read,
};

/// A program larger than that is not looked through for what was compiled into it, in bytes.
const MAX_PROGRAM: u64 = 64 << 20;

/// Why there is no answer.
enum Failure {
    /// What went wrong.
    Failed(String),
    /// The process has ended, or is no nginx.
    NoNginx,
}

/// Answers one request, as the user of the process that it is about. For a process that ends after it.
pub(super) fn answer(request: &Request) -> Answer {
    let wanted = |wanted| master_of(request).and_then(|master| master.become_owner(wanted));
    let answered = match &request.question {
        // Of the process itself: it need be no nginx.
        Question::Pod => Ok(Answer::Pod(pod::of_any(&request.pids))),
        Question::Configuration => wanted(Wanted::default()).and_then(|owner| owner.configuration(request)),
        Question::Addresses(lookups) => wanted(Wanted { network: true, ..Wanted::default() })
            .and_then(|owner| owner.look_up(lookups.clone()).map(Answer::Addresses)),
        Question::Rejection(asked_ns) => {
            let owner = wanted(Wanted { logs: true, ..Wanted::default() }).ok();
            let reason = owner.and_then(|owner| owner.rejection(*asked_ns, request.config.as_deref()));
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
    process: Process,
    exe: PathBuf,
    arguments: Arguments,
}

/// This process, once it has become the user of a master.
struct Behalf {
    master: Master,
    opened: Opened,
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
    let looked_at = Process::open(pid).and_then(|process| process.exe().map(|exe| (process, exe)));
    let (process, exe) = match looked_at {
        Ok(found) => found,
        Err(Refusal::Gone) => return Ok(None),
        Err(why) => return Err(failure(pid, &why)),
    };
    match master::role(&process.command_line(), &exe) {
        Role::Master(arguments) => Ok(Some(Master { process, exe, arguments })),
        Role::Worker => process.parent().map_or(Ok(None), |parent| find(parent, takes_any)),
        Role::Other if takes_any => Ok(Some(Master { process, exe, arguments: Arguments::default() })),
        Role::Other => Ok(None),
    }
}

/// A master that goes into the background ends while it is looked at: another process then knows the same.
fn failure(pid: u32, why: &Refusal) -> Failure {
    match why {
        Refusal::Gone => Failure::NoNginx,
        why => Failure::Failed(format!("process {pid}: {why}")),
    }
}

impl Master {
    fn become_owner(self, wanted: Wanted) -> Result<Behalf, Failure> {
        match self.process.become_owner(wanted) {
            Ok(opened) => Ok(Behalf { master: self, opened }),
            Err(why) => Err(failure(self.process.pid(), &why)),
        }
    }
}

impl Behalf {
    fn configuration(self, request: &Request) -> Result<Answer, Failure> {
        let (path, config) = self.load(request.config.as_deref())?;
        if read::entries(&config) > MAX_ENTRIES {
            return Err(Failure::Failed(format!("{}: {}", path.display(), serve::TOO_LARGE)));
        }
        // Of one that the process does not name, nobody says that it runs.
        let is_its_own = request.config.is_none();
        let changed = is_its_own
            .then(|| changed::after_start(&self.opened.root, &path, &config, &request.pids))
            .flatten();
        let (exe, routes) = (self.master.exe, Arc::new(read::routes(&config)));
        let resolved = Resolved::default();
        Ok(Answer::Configuration(Box::new(Configuration { path, exe, routes, changed, resolved })))
    }

    fn load(&self, path: Option<&Path>) -> Result<(PathBuf, Config), Failure> {
        let path = path.map_or_else(|| self.config_path(), |path| Ok(path.to_owned()))?;
        let globals = self.master.arguments.globals.as_deref();
        let mut config = load(&self.opened.root, &path, globals, &Limits::default())
            .map_err(|error| Failure::Failed(error.without_words()))?;
        // What the tree was made of is as large as the tree, and nobody reads it any more.
        config.files.iter_mut().for_each(|file| file.text = Vec::new());
        Ok((path, config))
    }

    /// Where nginx logs to a pipe, what is wrong with the files is all that can be had.
    fn rejection(&self, asked_ns: u64, config: Option<&Path>) -> Option<String> {
        let asked = Clock::new(boot_ns(), Timestamp::now()).at(asked_ns);
        let logged = self
            .master
            .process
            .pid_inside()
            .and_then(|pid| rejection::logged(&self.opened.root, &self.opened.logs, pid, asked));
        logged.or_else(|| match self.load(config) {
            Err(Failure::Failed(why)) => Some(why),
            Ok(_) | Err(Failure::NoNginx) => None,
        })
    }

    fn config_path(&self) -> Result<PathBuf, Failure> {
        let Opened { root, program, directory, .. } = &self.opened;
        let mut bytes = Vec::new();
        root.open_found(program).and_then(|file| file.take(MAX_PROGRAM).read_to_end(&mut bytes)).map_err(
            |error| {
                let pid = self.master.process.pid();
                Failure::Failed(format!("process {pid}: read its program as its user: {error}"))
            },
        )?;
        Ok(master::config_path(&self.master.arguments, &master::compiled(&bytes), directory))
    }

    fn look_up(&self, lookups: Vec<Lookup>) -> Result<Resolved, Failure> {
        if let Err(error) = &self.opened.network {
            let problem = format!(
                "names are not looked up: enter the network namespace of process {}: {error}; it takes CAP_SYS_ADMIN",
                self.master.process.pid()
            );
            return Ok(Resolved { problems: vec![problem], ..Resolved::default() });
        }
        let system = names::System::of(&self.opened.root);
        serve::note_files_read()
            .map_err(|error| Failure::Failed(format!("say that files were read: {error}")))?;
        names::look_up(system, lookups).map_err(|error| Failure::Failed(format!("look names up: {error}")))
    }
}
