//! `proxytrace agent`: runs as a service and serves metrics.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{
    mpsc::{self, Receiver},
    oneshot,
};

use super::{
    Run, block_on,
    options::Tracing,
    shutdown::Shutdown,
    tracing::{self, Wanted, give_up_privileges, trees},
};
use crate::{
    agent::{
        health::{Health, Loop},
        pages::{Ask, Pages},
        work::work,
    },
    http::{self, Renderer},
    logging::Way,
    metrics::HistogramBy,
    session::Session,
    threads::{self, Crew},
};

/// Series of addresses that are neither declared nor used for so long go away.
const SERIES_KEPT: Duration = Duration::from_secs(3600);

/// Options of `proxytrace agent`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to serve /metrics, /findings, /routes, /healthz and /readyz.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9947", env = "PROXYTRACE_LISTEN", value_parser = listen)]
    listen: SocketAddr,
    /// How many addresses of one owner's proxies have series of their own, and twice as many in all; the rest is summed
    /// under `~other`.
    #[arg(long, value_name = "N", default_value_t = 1000, env = "PROXYTRACE_MAX_ADDRESSES", value_parser = max_addresses)]
    max_addresses: u32,
    /// Of what connect times are histograms: of each upstream, or of each address, with twice as many series.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, env = "PROXYTRACE_HISTOGRAM_BY")]
    histogram_by: HistogramBy,
    #[command(flatten)]
    tracing: Tracing,
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
    fn run(&self, _: bool) -> anyhow::Result<ExitCode> {
        block_on(run(self)).map(|()| ExitCode::SUCCESS)
    }
}

async fn run(Args { listen, max_addresses, histogram_by, tracing }: &Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::start()?;
    // Before anything is attached: a second agent on the same port leaves at once.
    let listener = TcpListener::bind(listen).map_err(|error| {
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
    };
    let (session, mut pump) = tracing::start(tracing, wanted)?;
    log_start(&session, &listener)?;

    let mut crew = Crew::new();
    let health = Arc::new(Health::new());
    let (ask, asked) = mpsc::channel(1);
    let (confine, confined) = oneshot::channel();
    give_up_privileges(tracing, session, |session| {
        start_work(&crew, session, asked, &health)?;
        let pages = Pages { asks: ask, histogram_by: *histogram_by };
        start_serving(&crew, listener, &health, pages, confined)
    })?;
    // Whoever has asked meanwhile waits in the listener's backlog.
    let _ = confine.send(());
    let mut round = tokio::time::interval(ROUND);
    // Nothing here takes long: the ring buffer is emptied, and a signal ends the agent, whatever the rest does.
    loop {
        health.note_round(Loop::Events);
        tokio::select! {
            () = shutdown.requested() => break,
            name = crew.lost() => anyhow::bail!("thread {name} has ended; please report this"),
            stepped = pump.step() => stepped?,
            _ = round.tick() => {}
        }
    }
    ::tracing::info!("ended");
    Ok(())
}

/// The thread that owns the trace.
fn start_work(
    crew: &Crew,
    session: Session,
    asked: Receiver<Ask>,
    health: &Arc<Health>,
) -> anyhow::Result<()> {
    let (member, health) = (crew.member("work"), Arc::clone(health));
    threads::start("work", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(move || {
            let _member = member;
            runtime.block_on(work(session, asked, &health));
        })
    })
}

/// The threads that serve pages, and render them. Nothing is read from a client before the agent is `confined`.
fn start_serving(
    crew: &Crew,
    listener: TcpListener,
    health: &Arc<Health>,
    pages: Pages,
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
    let (member, health) = (crew.member("http"), Arc::clone(health));
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
                    http::serve(listener, health, renderer).await;
                }
            });
        })
    })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "not an address and port; write 127.0.0.1:9947, 0.0.0.0:9947 or [::]:9947".to_owned())
}

fn max_addresses(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("with 0 no address would have a series; give 1 or more".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(_) => Err("not a number of addresses; write for example 1000".to_owned()),
    }
}

fn log_start(session: &Session, listener: &TcpListener) -> anyhow::Result<()> {
    let listen = listener.local_addr()?;
    match session.watch().roots()?.as_slice() {
        [] => ::tracing::info!("serving http://{listen}/metrics; no process to trace runs yet"),
        pids => ::tracing::info!("serving http://{listen}/metrics; tracing {}", trees(pids)),
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
