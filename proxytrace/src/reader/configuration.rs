//! Answers requests about one proxy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    changed, names,
    nginx::{self, Loaded},
    owner::{Opened, Process, Refusal, Wanted},
    pod,
    protocol::{Answer, Lookup, Question, Request},
    said,
};
use crate::{
    declared::{Configuration, Resolved},
    kernel::boot_ns,
    model::Clock,
    programs::{self, Arguments, Role},
};

/// Why there is no answer.
enum Failure {
    /// What went wrong.
    Failed(String),
    /// The process has ended, or is of no program that is known.
    NoKnownProxy,
}

/// Answers one request, as the user of the process that it is about. For a process that ends after it.
pub(super) fn answer(request: &Request) -> Answer {
    let wanted = |wanted| master_of(request).and_then(|master| master.become_owner(wanted));
    let answered = match &request.question {
        // Of the process itself: it need be no proxy that is known.
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
        Err(Failure::NoKnownProxy) => Answer::NoKnownProxy,
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
    let mut failure = Failure::NoKnownProxy;
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
    match programs::role(&process.command_line(), &exe) {
        Role::Master(arguments) => Ok(Some(Master { process, exe, arguments })),
        Role::Worker => process.parent().map_or(Ok(None), |parent| find(parent, takes_any)),
        Role::Other if takes_any => Ok(Some(Master { process, exe, arguments: Arguments::default() })),
        Role::Other => Ok(None),
    }
}

/// A master that goes into the background ends while it is looked at: another process then knows the same.
fn failure(pid: u32, why: &Refusal) -> Failure {
    match why {
        Refusal::Gone => Failure::NoKnownProxy,
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
        let loaded = self.load(request.config.as_deref()).map_err(Failure::Failed)?;
        let routes = Arc::new(loaded.routes().map_err(Failure::Failed)?);
        // Of one that the process does not name, nobody says that it runs.
        let is_its_own = request.config.is_none();
        let changed = is_its_own
            .then(|| changed::after_start(&self.opened.root, loaded.files(), &request.pids))
            .flatten();
        let (path, exe, resolved) = (loaded.path, self.master.exe, Resolved::default());
        Ok(Answer::Configuration(Box::new(Configuration { path, exe, routes, changed, resolved })))
    }

    fn load(&self, path: Option<&Path>) -> Result<Loaded, String> {
        nginx::load(&self.opened, self.master.process.pid(), &self.master.arguments, path)
    }

    /// Where the proxy logs to a pipe, what is wrong with the files is all that can be had.
    fn rejection(&self, asked_ns: u64, config: Option<&Path>) -> Option<String> {
        let asked = Clock::new(boot_ns(), Timestamp::now()).at(asked_ns);
        let pid = self.master.process.pid_inside();
        let logged = pid.and_then(|pid| nginx::logged(&self.opened, pid, asked));
        logged.or_else(|| self.load(config).err())
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
        said::note_files_read()
            .map_err(|error| Failure::Failed(format!("say that files were read: {error}")))?;
        names::look_up(system, lookups).map_err(|error| Failure::Failed(format!("look names up: {error}")))
    }
}
