//! `proxytrace agent`: runs as a service and serves metrics.

use std::{
    io::{self, ErrorKind, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{
    mpsc::{self, Receiver},
    oneshot,
};

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
        pages::{Ask, Pages},
        reload,
        work::work,
    },
    config_file::Again,
    exit::Failure,
    http::{self, Answers, Listen, Passwords, Renderer, Served, Serving, Settings},
    logging::Way,
    metrics::HistogramBy,
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
    /// How many addresses of one owner's proxies have series of their own, and twice as many in all; the rest is summed
    /// under `~other`.
    #[arg(long, value_name = "N", default_value_t = 1000, env = "PROXYTRACE_MAX_ADDRESSES", value_parser = max_addresses)]
    max_addresses: u32,
    /// Of what connect times are histograms: of each upstream, or of each address, with twice as many series.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, env = "PROXYTRACE_HISTOGRAM_BY")]
    histogram_by: HistogramBy,
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
            // A file of --config that cannot be used has ended it before.
            self.serving.load().1?;
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
    let Args { listen, max_addresses, histogram_by, tracing, serving, again, .. } = args;
    let mut crew = Crew::new();
    let shutdown = Shutdown::start()?;
    let notifier = Arc::new(Notifier::from_environment()?);
    let reload = reload::start(&crew, serving.clone(), again.as_deref().cloned(), &notifier)?;
    // Before anything is attached: a second agent on the same port leaves at once.
    let listener = listen.bind().map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "is another agent there? choose another port with --listen",
            _ => "give an address of this host and a free port with --listen",
        };
        anyhow::Error::from(error).context(format!("listen on {listen}; {hint}"))
    })?;
    let wanted = Wanted {
        records: false,
        established: false,
        max_addresses: *max_addresses as usize,
        series_kept: SERIES_KEPT,
        ended_kept: ENDED_KEPT,
    };
    let (session, mut pump) = tracing::start(tracing, wanted)?;
    log_start(&session, &listener, &reload.settings.now())?;

    let health = Arc::new(Health::new());
    let (ask, asked) = mpsc::channel(1);
    let (confine, confined) = oneshot::channel();
    give_up_privileges(tracing, session, |session| {
        start_work(&crew, session, asked, &health, &notifier)?;
        let pages = Pages { asks: ask, histogram_by: *histogram_by, outcome: reload.outcome };
        start_serving(&crew, listener, &health, pages, reload.settings, confined)
    })?;
    // Whoever has asked meanwhile waits in the listener's backlog.
    let _ = confine.send(());
    notifier.ready();
    let _ = reload.attached.send(());
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
    ::tracing::info!("ended");
    Ok(())
}

/// The thread that owns the trace.
fn start_work(
    crew: &Crew,
    session: Session,
    asked: Receiver<Ask>,
    health: &Arc<Health>,
    notifier: &Arc<Notifier>,
) -> anyhow::Result<()> {
    let (member, health, notifier) = (crew.member("work"), Arc::clone(health), Arc::clone(notifier));
    threads::start("work", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(move || {
            let _member = member;
            runtime.block_on(work(session, asked, &health, &notifier));
        })
    })
}

/// The threads that serve pages, and render them. Nothing is read from a client before the agent is `confined`.
fn start_serving(
    crew: &Crew,
    listener: TcpListener,
    health: &Arc<Health>,
    pages: Pages,
    settings: Settings,
    confined: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
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
    let answers = Answers { readiness: Arc::clone(health), renderer, settings, passwords };
    let member = crew.member("http");
    threads::start_without_capabilities("http", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            http::listener(listener)?
        };
        Ok(move || {
            let _member = member;
            runtime.block_on(async {
                if confined.await.is_ok() {
                    http::serve(listener, answers).await;
                }
            });
        })
    })
}

fn max_addresses(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("with 0 no address would have a series; give 1 or more".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(_) => Err("not a number of addresses; write for example 1000".to_owned()),
    }
}

fn log_start(session: &Session, listener: &TcpListener, served: &Served) -> anyhow::Result<()> {
    let (listen, scheme) = (listener.local_addr()?, served.scheme());
    match session.watch().roots()?.as_slice() {
        [] => ::tracing::info!("serving {scheme}://{listen}/metrics; no process to trace runs yet"),
        pids => ::tracing::info!("serving {scheme}://{listen}/metrics; tracing {}", trees(pids)),
    }
    match served.protection() {
        Some(protection) => ::tracing::info!("protected by {protection}"),
        None if listen.ip().to_canonical().is_loopback() => {}
        None => ::tracing::warn!(
            "whoever reaches {listen} can read the metrics: give --web-config, or --listen 127.0.0.1:{}",
            listen.port()
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::max_addresses;

    #[test]
    fn an_agent_without_series_is_refused() {
        assert_eq!(max_addresses("1"), Ok(1));
        assert!(max_addresses("0").unwrap_err().contains("give 1 or more"));
        assert!(max_addresses("-1").is_err());
    }
}
