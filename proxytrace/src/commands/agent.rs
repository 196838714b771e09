//! `proxytrace agent`: runs as a service and serves metrics.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, ErrorKind, Write as _},
    net::SocketAddr,
    os::unix::{ffi::OsStrExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use super::{
    Call, Run, block_on,
    options::Tracing,
    shutdown::Shutdown,
    tracing::{self, Wanted, give_up_privileges, trees},
};
use crate::{
    agent::{
        health::{Health, Loop},
        notify::Notifier,
        pages::Pages,
        reload,
        shown::Shown,
        work::{Work, work},
    },
    config_file::Again,
    exit::Failure,
    feed::{Channel, Publisher},
    history::{self, History, Keeper},
    http::{
        self, Answers, Listen, Listener, Passwords, Renderer, Served, Serving, Settings,
        local::{self, Place},
    },
    logging::Way,
    model::Record,
    recording,
    session::Session,
    threads::{self, Crew},
};

/// Series of addresses that are neither declared nor used for so long go away.
const SERIES_KEPT: Duration = Duration::from_secs(3600);

/// What is kept of a proxy that has ended goes away after so long: a pod does not come back, and Prometheus has scraped its last counts
/// by then. A service that is restarted meanwhile goes on with its series.
const ENDED_KEPT: Duration = Duration::from_secs(300);

/// Options of `proxytrace agent`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read options from this file (TOML), by their long names: max-addresses = 500. The environment and the command line take
    /// precedence. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", env = "PROXYTRACE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Only check --config and --web-config, and exit with 0 if they can be used, otherwise with 2.
    #[arg(long)]
    check_config: bool,
    /// Only ask the agent that runs on this host with these options, and exit with 0 if it says that it is well: for probes that
    /// run a command.
    #[arg(long, value_name = "PAGE", value_enum, conflicts_with = "check_config")]
    probe: Option<Probe>,
    /// Where to serve /metrics, /findings, /routes, /healthz and /readyz: an address and port, or :9947 for all addresses of IPv4
    /// and IPv6.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9947", env = "PROXYTRACE_LISTEN")]
    listen: Listen,
    #[command(flatten)]
    serving: Serving,
    /// Where the commands of this host ask, such as `proxytrace status`: a unix socket, for root and the group proxytrace; or none
    /// [default: /run/proxytrace/agent.sock].
    #[arg(long, value_name = "PATH", env = "PROXYTRACE_SOCKET")]
    socket: Option<Place>,
    /// How much memory to take for what was: failures, findings, reloads, and what was counted in each minute; 0 for nothing.
    #[arg(long, value_name = "SIZE", default_value = "16M", env = "PROXYTRACE_HISTORY", value_parser = history::size)]
    history: u64,
    /// Where it is kept across a restart: a directory, of which each of two files takes no more room than in memory; or none [default:
    /// what systemd gives as the unit's StateDirectory=, or /var/lib/proxytrace].
    #[arg(long, value_name = "DIR", env = "PROXYTRACE_STATE")]
    state: Option<Place>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    tracing: Tracing,
    /// How the command line is read again, where it names a file.
    #[arg(skip)]
    pub again: Option<Box<Again>>,
}

/// What is asked of a running agent.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Probe {
    /// Whether it is alive.
    Healthz,
    /// Whether it is ready.
    Readyz,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
        }
    }
}

/// How often the main loop comes round where nothing happens.
const ROUND: Duration = Duration::from_secs(1);

impl Run for Args {
    const LOG_LEVEL: &str = "info";
    // Whoever reads standard error may be slow.
    const LOG_WAY: Way = Way::Queued;

    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// The address is taken, the host does not let us trace, or a part of the agent has ended.
    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        if self.check_config {
            threads::without_capabilities(|| {
                // A file of --config that cannot be used has ended it before, but not one that the agent may not read.
                self.again.as_ref().map(|again| again.read()).transpose()?;
                self.serving.load().1?;
                Ok(())
            })?;
            writeln!(io::stdout(), "the configuration can be used")?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(probe) = self.probe {
            let (is_well, text) =
                http::probe(self.listen.on_this_host(), self.serving.has_tls()?, probe.path())?;
            write!(io::stdout(), "{text}")?;
            return Ok(if is_well { ExitCode::SUCCESS } else { Failure::Failed.into() });
        }
        block_on(run(self)).map(|()| ExitCode::SUCCESS)
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let Args { listen, shown, tracing, serving, again, socket, history: bytes, state, .. } = args;
    let mut crew = Crew::new();
    let shutdown = Shutdown::start()?;
    let notifier = Arc::new(Notifier::from_environment()?);
    let reload = reload::start(&crew, serving.clone(), *shown, again.as_deref().cloned(), &notifier)?;
    // Before anything is attached: a second agent on the same port leaves at once.
    let listener = listen.bind().map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "is another agent there? choose another port with --listen",
            ErrorKind::PermissionDenied => {
                "this user may not have a port below 1024; choose another with --listen, or grant CAP_NET_BIND_SERVICE"
            }
            _ => "give an address of this host and a free port with --listen",
        };
        anyhow::Error::from(error).context(format!("listen on {listen}; {hint}"))
    })?;
    let socket = socket.as_ref().map_or_else(|| Ok(default_socket()), bind_socket)?;
    let header = recording::header(false).context("ask for the host's name")?;
    let history = remember(*bytes, &header)?;
    let keeper = if *bytes > 0 { keeper(&history, state.as_ref())? } else { None };
    let wanted = Wanted {
        records: true,
        soon: true,
        established: false,
        max_addresses: shown.max_addresses as usize,
        series_kept: SERIES_KEPT,
        ended_kept: ENDED_KEPT,
    };
    let (session, mut pump) = tracing::start(tracing, wanted)?;
    let listens = listener.local_addr()?;
    log_start(&session, listens, &reload.settings.now())?;

    let health = Arc::new(Health::new());
    let (ask, asked) = mpsc::channel(1);
    let channel = Channel::default();
    let (confine, confined) = watch::channel(false);
    give_up_privileges(tracing, session, |session| {
        if let Some(keeper) = keeper {
            start_keeping(&crew, keeper)?;
        }
        let parts = Work {
            session,
            asked,
            shown: reload.shown.clone(),
            history: history.clone(),
            publisher: Publisher::new(channel.clone()),
            health: Arc::clone(&health),
            notifier: Arc::clone(&notifier),
        };
        start_work(&crew, parts)?;
        let pages = Pages { asks: ask, shown: reload.shown.clone(), outcome: reload.outcome };
        let answers = start_rendering(&crew, &health, pages, reload.settings, history.clone(), channel)?;
        if let Some(socket) = socket {
            let answers = answers.with_settings(Settings::new(Served::local()));
            start_serving(&crew, "local", || Listener::local(socket), answers, confined.clone())?;
        }
        start_serving(&crew, "http", || Listener::tcp(listener), answers, confined)
    })?;
    // Whoever has asked meanwhile waits in the listener's backlog.
    let _ = confine.send(true);
    notifier.ready();
    let _ = reload.attached.send(listens);
    let mut round = tokio::time::interval(ROUND);
    let mut watchdog = tokio::time::interval(notifier.watchdog().unwrap_or(Duration::MAX / 4));
    // Nothing here takes long: the ring buffer is emptied, and a signal ends the agent, whatever the rest does.
    loop {
        health.note_round(Loop::Events);
        tokio::select! {
            () = shutdown.requested() => break,
            name = crew.lost() => anyhow::bail!("thread {name} has ended; please report this"),
            stepped = pump.step() => stepped?,
            _ = round.tick() => {}
            // One that is stuck says nothing, and neither does one of which another loop is.
            _ = watchdog.tick(), if notifier.watchdog().is_some() => if health.is_alive() {
                notifier.alive();
            },
        }
    }
    notifier.stopping();
    history.end();
    ::tracing::info!("ended");
    Ok(())
}

/// The thread that owns the trace.
fn start_work(crew: &Crew, parts: Work) -> anyhow::Result<()> {
    let member = crew.member("work");
    threads::start("work", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(move || {
            let _member = member;
            runtime.block_on(work(parts));
        })
    })
}

/// The threads that answers come from: those that render pages, and check passwords.
fn start_rendering(
    crew: &Crew,
    health: &Arc<Health>,
    pages: Pages,
    settings: Settings,
    history: History,
    channel: Channel,
) -> anyhow::Result<Answers<Health>> {
    let (renderer, wanted) = Renderer::new();
    let member = crew.member("pages");
    threads::start_without_capabilities("pages", move || {
        Ok(move || {
            let _member = member;
            http::render(wanted, pages);
        })
    })?;
    let (passwords, checks) = Passwords::new();
    let member = crew.member("passwords");
    threads::start_without_capabilities("passwords", move || {
        Ok(move || {
            let _member = member;
            http::check_passwords(checks);
        })
    })?;
    Ok(Answers::new(Arc::clone(health), renderer, settings, passwords, history, channel))
}

/// A thread that serves. Nothing is read from a client before the agent is `confined`.
fn start_serving(
    crew: &Crew,
    name: &'static str,
    listener: impl FnOnce() -> io::Result<Listener> + Send + 'static,
    answers: Answers<Health>,
    mut confined: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let member = crew.member(name);
    threads::start_without_capabilities(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            listener()?
        };
        Ok(move || {
            let _member = member;
            runtime.block_on(async {
                if confined.wait_for(|is_confined| *is_confined).await.is_ok() {
                    http::serve(listener, answers).await;
                }
            });
        })
    })
}

/// An empty memory.
fn remember(bytes: u64, header: &Record) -> anyhow::Result<History> {
    // Where it cannot be read, earlier pids may belong to other processes by now, and nothing is taken over.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(History::new(bytes, header, boot.trim())?)
}

/// What systemd gives a unit with `StateDirectory=`.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Where the history is kept where nothing else is said.
const DEFAULT_STATE: &str = "/var/lib/proxytrace";

/// The first of the directories that systemd gives, of which a drop-in can add more; with colons between them (systemd.exec(5)).
fn usual_state(given: Option<OsString>) -> PathBuf {
    let given = given.unwrap_or_default();
    match given.as_bytes().split(|byte| *byte == b':').next() {
        None | Some([]) => DEFAULT_STATE.into(),
        Some(first) => OsStr::from_bytes(first).into(),
    }
}

/// The files of the history. Where none were asked for, an agent that cannot have them goes on without.
fn keeper(history: &History, state: Option<&Place>) -> anyhow::Result<Option<Keeper>> {
    let usual = || usual_state(env::var_os(STATE_DIRECTORY));
    let (directory, is_asked_for) = match state {
        Some(Place::Off) => return Ok(None),
        Some(Place::At(directory)) => (directory.clone(), true),
        None => (usual(), false),
    };
    let hint = "choose another directory with --state, or none";
    match history.keep_in(&directory) {
        Ok(keeper) => Ok(Some(keeper)),
        // Another agent has them, which is no reason to see less.
        Err(error) if !is_asked_for || error.kind() == ErrorKind::WouldBlock => {
            let directory = directory.display();
            ::tracing::warn!("keep the history in {directory}: {error}; it ends with this agent: {hint}");
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("keep the history in {}; {hint}", directory.display()))
        }
    }
}

/// The thread that writes the history. What earlier agents left is read when this returns.
fn start_keeping(crew: &Crew, mut keeper: Keeper) -> anyhow::Result<()> {
    let member = crew.member("history");
    threads::start_without_capabilities("history", move || {
        match keeper.restore() {
            Ok(0) => {}
            Ok(damaged) => ::tracing::warn!("{damaged} lines of the history are damaged, and left out"),
            Err(error) => ::tracing::warn!("read the history: {error}; it begins anew"),
        }
        Ok(move || {
            let _member = member;
            keeper.run();
        })
    })
}

/// The agent's socket where none was asked for: an agent that cannot have it goes on without.
fn default_socket() -> Option<UnixListener> {
    local::bind(Path::new(local::DEFAULT_SOCKET))
        .inspect_err(|error| {
            ::tracing::warn!(
                "listen on {}: {error}; commands such as `proxytrace status` do not find this agent: choose another \
                 place with --socket, or none",
                local::DEFAULT_SOCKET
            );
        })
        .ok()
}

/// The agent's socket where it was asked for.
fn bind_socket(socket: &Place) -> anyhow::Result<Option<UnixListener>> {
    match socket {
        Place::Off => Ok(None),
        Place::At(path) => {
            let hint = "choose another place with --socket, or none";
            local::bind(path).map(Some).with_context(|| format!("listen on {}; {hint}", path.display()))
        }
    }
}

fn log_start(session: &Session, listen: SocketAddr, served: &Served) -> anyhow::Result<()> {
    let scheme = served.scheme();
    match session.watch().roots()?.as_slice() {
        [] => ::tracing::info!("serving {scheme}://{listen}/metrics; no process to trace runs yet"),
        pids => ::tracing::info!("serving {scheme}://{listen}/metrics; tracing {}", trees(pids)),
    }
    if served.has_page() {
        ::tracing::info!("the page for people is at {scheme}://{listen}/");
    }
    reload::log_protection(served, listen);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::usual_state;

    #[test]
    fn of_several_directories_the_units_own_is_taken() {
        for (given, expected) in [
            (None, "/var/lib/proxytrace"),
            (Some(""), "/var/lib/proxytrace"),
            (Some("/var/lib/edge"), "/var/lib/edge"),
            (Some("/var/lib/proxytrace:/var/lib/other"), "/var/lib/proxytrace"),
        ] {
            assert_eq!(usual_state(given.map(Into::into)), Path::new(expected), "{given:?}");
        }
    }
}
