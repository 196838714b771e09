//! Answers requests about one proxy.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    changed, hints, names,
    nginx::{self, Loaded},
    owner::{Opened, Process, Refusal, Wanted},
    pod,
    protocol::{Answer, Lookup, Question, Request, Resolved},
    said,
};
use crate::{
    declared::{Addresses, Configuration},
    kernel::boot_ns,
    model::{Address, BY_FILES, Clock},
    programs::{self, Arguments, Role},
};

/// No more names of one configuration are looked for in its log.
const MAX_NAMES: usize = 4096;

/// Why there is no answer.
enum Failure {
    /// What went wrong.
    Failed(String),
    /// The process has ended, or is of no program that is known.
    NoKnownProxy,
}

/// Answers one request, as the user of the process that it is about. For a process that ends after it. Gives the files as well that were
/// opened for whoever asks.
pub(super) fn answer(request: &Request) -> (Answer, Vec<File>) {
    let mut files = Vec::new();
    let wanted = |wanted| master_of(request).and_then(|master| master.become_owner(wanted));
    let answered = match &request.question {
        // Of the process itself: it need be no proxy that is known.
        Question::Pod => Ok(Answer::Pod(pod::of_any(&request.pids))),
        Question::Configuration => wanted(Wanted::default()).and_then(|owner| owner.configuration(request)),
        Question::Addresses(lookups) => wanted(Wanted { network: true, ..Wanted::default() })
            .and_then(|owner| owner.look_up(lookups.clone()).map(Answer::Addresses)),
        Question::Rejection { asked_ns, resolves } => {
            let owner = wanted(Wanted { logs: true, network: *resolves, ..Wanted::default() }).ok();
            let reason =
                owner.and_then(|owner| owner.rejection(*asked_ns, request.config.as_deref(), *resolves));
            Ok(Answer::Rejection { asked_ns: *asked_ns, reason })
        }
        Question::Hints(addresses) => {
            wanted(Wanted { host: true, ..Wanted::default() }).map(|owner| owner.hints(addresses))
        }
        Question::Log => wanted(Wanted { logs: true, ..Wanted::default() }).and_then(|owner| {
            let (answer, logs) = owner.logs(request.config.as_deref())?;
            files = logs;
            Ok(answer)
        }),
    };
    let answer = match answered {
        Ok(answer) => answer,
        Err(Failure::Failed(why)) => request.question.unanswered(why),
        Err(Failure::NoKnownProxy) => Answer::NoKnownProxy,
    };
    (answer, files)
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
        // It does what it was asked for and ends: no proxy.
        Role::Master(arguments) if arguments.is_errand => Ok(None),
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
        let changed =
            is_its_own.then(|| changed::since_taken(&self.opened.root, loaded.files(), request)).flatten();
        let (path, exe, resolved) = (loaded.path, self.master.exe, Addresses::new());
        Ok(Answer::Configuration(Box::new(Configuration { path, exe, routes, changed, resolved })))
    }

    fn load(&self, path: Option<&Path>) -> Result<Loaded, String> {
        nginx::load(&self.opened, self.master.process.pid(), &self.master.arguments, path)
    }

    /// Where the proxy logs to a pipe or to syslog, what is wrong with the files is all that can be had: it would stumble over the same.
    fn rejection(&self, asked_ns: u64, config: Option<&Path>, resolves: bool) -> Option<String> {
        let asked = Clock::new(boot_ns(), Timestamp::now()).at(asked_ns);
        let pid = self.master.process.pid_inside();
        let logged = pid.and_then(|pid| nginx::logged(&self.opened, pid, asked));
        logged.or_else(|| match self.load(config) {
            Err(why) => Some(format!("{BY_FILES}its configuration: {why}")),
            Ok(loaded) => {
                let first = loaded.fault(&self.opened.root).or_else(|| self.unresolved(&loaded, resolves));
                first.or_else(|| loaded.refusal(&self.opened.root))
            }
        })
    }

    /// A host name that does not resolve, in nginx's words.
    fn unresolved(&self, loaded: &Loaded, resolves: bool) -> Option<String> {
        if !resolves || self.opened.network.is_err() {
            return None;
        }
        let routes = loaded.routes().ok()?;
        let names: Vec<_> = routes.fixed_hosts().map(str::to_owned).collect();
        let missing = names::first_missing(names::System::of(&self.opened.root), &names).ok()??;
        loaded.host_not_found(&self.opened.root, &routes, &missing)
    }

    /// What else is known of why connects fail. What the host has is looked for with the proxy's rights too.
    fn hints(&self, addresses: &[Address]) -> Answer {
        let Opened { root, host, .. } = &self.opened;
        let pid = self.master.process.pid();
        let hint = |address: &Address| (address.clone(), hints::hint(pid, root, host.as_ref(), address));
        Answer::Hints(addresses.iter().map(hint).collect())
    }

    /// Its error logs, and the names that may stand in them.
    fn logs(&self, config: Option<&Path>) -> Result<(Answer, Vec<File>), Failure> {
        let loaded = self.load(config).map_err(Failure::Failed)?;
        let routes = loaded.routes().map_err(Failure::Failed)?;
        let followed = routes.followed().filter_map(|(endpoint, _)| endpoint.name());
        let names: BTreeSet<_> = routes.hosts().chain(followed).map(str::to_ascii_lowercase).collect();
        let names = names.into_iter().take(MAX_NAMES).collect();
        let answer = Answer::Log { master: self.master.process.pid(), names };
        Ok((answer, nginx::error_logs(&self.opened, &loaded)))
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
