//! `proxytrace agent`: runs as a service and serves metrics.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{Pace, Shutdown, block_on, give_up_privileges, trees};
use crate::{
    cli::Tracing,
    findings::{Change, FindingView, State},
    http::{self, Pages},
    kernel::{
        AttachedHook, Error,
        hooks::{NO_WAY, Via},
    },
    metrics::{self, Format, HookLabels},
    model::Body,
    watch::Watch,
};

/// Series of addresses that are neither declared nor used for so long go away.
const SERIES_KEPT: Duration = Duration::from_secs(3600);

/// Options of `proxytrace agent`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to serve /metrics, /findings, /routes, /healthz and /readyz.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9947", env = "PROXYTRACE_LISTEN", value_parser = listen)]
    listen: SocketAddr,
    /// How many addresses have series of their own; the rest is summed under `~other`.
    #[arg(long, value_name = "N", default_value_t = 1000, env = "PROXYTRACE_MAX_ADDRESSES", value_parser = max_addresses)]
    max_addresses: u32,
    #[command(flatten)]
    tracing: Tracing,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The address is taken, or the host does not let us trace.
pub fn run(args: &Args) -> anyhow::Result<()> {
    block_on(async {
        let Args { listen, max_addresses, tracing } = args;
        let mut shutdown = Shutdown::new().context("handle signals")?;
        // Before anything is attached: a second agent on the same port leaves at once.
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::AddrInUse => "is another agent there? choose another port with --listen",
                _ => "give an address of this host and a free port with --listen",
            };
            anyhow::Error::from(error).context(format!("listen on {listen}; {hint}"))
        })?;
        let config = tracing.nginx_config.clone();
        let (watch, mut events, mut replies) =
            Watch::start(&tracing.options(false), config, *max_addresses as usize, SERIES_KEPT)?;
        log_start(&watch, &listener)?;
        give_up_privileges(tracing, &watch)?;

        let watch = Arc::new(Mutex::new(watch));
        let serving = tokio::spawn(http::serve(listener, Arc::new(Live(Arc::clone(&watch)))));
        let mut pace = Pace::new();
        let mut batch = Vec::new();
        loop {
            let noted = tokio::select! {
                () = shutdown.requested() => break,
                // For names, and to look soon; what is counted is read from the kernel's tables.
                () = events.next_batch(|event| batch.push(event)) => {
                    pace.note_news();
                    let mut watch = lock(&watch);
                    batch.drain(..).try_for_each(|event| watch.note(&event).map(drop))
                }
                reply = replies.next() => {
                    pace.note_news();
                    lock(&watch).answer(reply)
                }
                () = pace.due() => {
                    pace.note_look();
                    let mut watch = lock(&watch);
                    let looked = log_findings(&mut watch);
                    if watch.is_reload_open() {
                        // That it is rejected shows in no event.
                        pace.note_news();
                    }
                    looked
                }
            };
            if let Err(error) = noted {
                tracing::error!("{error}");
            }
        }
        serving.abort();
        tracing::info!("ended");
        Ok(())
    })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "this is no address and port; write 127.0.0.1:9947, 0.0.0.0:9947 or [::]:9947".to_owned()
    })
}

fn max_addresses(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("with 0 no address would have a series; give 1 or more".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(_) => Err("this is no number of addresses; write 1000".to_owned()),
    }
}

struct Live(Arc<Mutex<Watch>>);

impl Pages for Live {
    fn metrics(&self, format: Format) -> anyhow::Result<String> {
        let mut watch = lock(&self.0);
        let hooks = watch.hooks().iter().map(hook_labels).collect();
        Ok(metrics::render(watch.view()?, hooks, format)?)
    }

    fn findings(&self) -> anyhow::Result<String> {
        let watch = lock(&self.0);
        let views: Vec<_> = watch.findings().map(FindingView::new).collect();
        Ok(serde_json::to_string(&views)?)
    }

    fn routes(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&lock(&self.0).routes()?)?)
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut watch = lock(&self.0);
        watch.events_lost()?;
        anyhow::ensure!(
            watch.has_started(),
            "the proxies' configurations are being read: ask again in a moment"
        );
        Ok(())
    }
}

/// Looks, and logs each finding once when it comes, and once when it goes.
fn log_findings(watch: &mut Watch) -> Result<(), Error> {
    watch.follow_names()?;
    // Those found here are in the counts of the next look.
    watch.note_rejected_reloads();
    for record in watch.look()?.changes {
        if let Body::Finding(Change { state, finding }) = record.body {
            match state {
                State::Raised => tracing::warn!("finding: {finding}"),
                State::Cleared => tracing::info!("cleared: {finding}"),
            }
        }
    }
    Ok(())
}

fn hook_labels(attached: &AttachedHook) -> HookLabels {
    (attached.hook.name, attached.via().map_or(NO_WAY, Via::name))
}

/// A panic while it was held has ended one scrape; what it guards is read anew by the next.
fn lock(watch: &Mutex<Watch>) -> std::sync::MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log_start(watch: &Watch, listener: &TcpListener) -> anyhow::Result<()> {
    let listen = listener.local_addr()?;
    match watch.roots()?.as_slice() {
        [] => tracing::info!("serving http://{listen}/metrics; no process to trace runs yet"),
        pids => tracing::info!("serving http://{listen}/metrics; tracing {}", trees(pids)),
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
