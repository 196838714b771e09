//! The thread that reads the configuration of the agent again: at SIGHUP, and when a file has changed that clients are served by. What
//! cannot be used is logged, and the agent goes on with what it had.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgMatches, FromArgMatches as _};
use jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    time::interval,
};

use super::{notify::Notifier, shown::Shown};
use crate::{
    config_file::{Again, Values},
    http::{Files, Served, Serving, Settings},
    logging::{self, Log},
    metrics::ConfigRead,
    threads::{self, Crew},
};

/// What SIGHUP changes, by its key. The rest is said to need a restart: it was settled before privileges were given up, or counts
/// would be lost.
pub const CHANGEABLE: &[&str] = &[
    "verbose",
    "quiet",
    "web-config",
    "no-routes",
    "no-findings",
    "serve-records",
    "page",
    "page-host",
    "max-addresses",
    "histogram-by",
];

/// How often it is looked whether a file has changed.
const LOOK: Duration = Duration::from_secs(2);

/// How reading the configuration went.
#[derive(Debug)]
pub struct Outcome {
    is_used: AtomicBool,
    /// When it could last be used, in milliseconds since 1970.
    used_ms: AtomicU64,
}

impl Outcome {
    fn new() -> Self {
        let outcome = Self { is_used: AtomicBool::new(true), used_ms: AtomicU64::new(0) };
        outcome.note(true);
        outcome
    }

    fn note(&self, is_used: bool) {
        self.is_used.store(is_used, Relaxed);
        if is_used {
            self.used_ms.store(Timestamp::now().as_millisecond().try_into().unwrap_or_default(), Relaxed);
        }
    }

    /// As it is now.
    #[must_use]
    pub fn now(&self) -> ConfigRead {
        ConfigRead {
            is_used: self.is_used.load(Relaxed),
            used_seconds: self.used_ms.load(Relaxed) as f64 / 1e3,
        }
    }
}

/// Says what keeps strangers out; where nothing does, and there can be any, with a warning.
pub fn log_protection(served: &Served, listens: SocketAddr) {
    match served.protection() {
        Some(protection) => tracing::info!("protected by {protection}"),
        None if listens.ip().to_canonical().is_loopback() => {}
        None => tracing::warn!(
            "whoever reaches {listens} can read the metrics: give --web-config, or --listen 127.0.0.1:{}",
            listens.port()
        ),
    }
}

/// What the thread hands to the others.
#[derive(Debug)]
pub struct Started {
    /// What is served.
    pub settings: Settings,
    /// What the metrics show.
    pub shown: watch::Receiver<Shown>,
    /// How reading goes.
    pub outcome: Arc<Outcome>,
    /// To be told when hooks are attached, and where clients are listened for: before that, SIGHUP waits.
    pub attached: oneshot::Sender<SocketAddr>,
}

/// Starts the thread, which reads for the first time what clients are served by: without capabilities, as each time after that.
///
/// # Errors
/// Something cannot be read or used.
pub fn start(
    crew: &Crew,
    serving: Serving,
    shown: Shown,
    again: Option<Again>,
    notifier: &Arc<Notifier>,
) -> anyhow::Result<Started> {
    let (member, notifier) = (crew.member("reload"), Arc::clone(notifier));
    let (attached, is_attached) = oneshot::channel();
    let (sender, receiver) = mpsc::sync_channel(1);
    let (shown, shown_now) = watch::channel(shown);
    threads::start_without_capabilities("reload", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let hangup = {
            let _context = runtime.enter();
            signal(SignalKind::hangup()).context("handle signals")?
        };
        let running = again.as_ref().map(|again| anyhow::Ok(again.values(&again.read()?))).transpose()?;
        let (files, served) = serving.load();
        let (settings, outcome) = (Settings::new(served?), Arc::new(Outcome::new()));
        sender.send((settings.clone(), Arc::clone(&outcome)))?;
        let running = running.unwrap_or_default();
        let reload = Reload { serving, files, again, running, settings, shown, outcome };
        Ok(move || {
            let _member = member;
            runtime.block_on(async {
                if let Ok(listens) = is_attached.await {
                    reload.run(hangup, &notifier, listens).await;
                }
            });
        })
    })?;
    let (settings, outcome) = receiver.recv().context("the configuration was not read")?;
    Ok(Started { settings, shown: shown_now, outcome, attached })
}

struct Reload {
    serving: Serving,
    /// What was read for that.
    files: Files,
    again: Option<Again>,
    /// What is in use, by key.
    running: Values,
    settings: Settings,
    shown: watch::Sender<Shown>,
    outcome: Arc<Outcome>,
}

impl Reload {
    async fn run(mut self, mut hangup: Signal, notifier: &Notifier, listens: SocketAddr) {
        let mut look = interval(LOOK);
        loop {
            let before = self.settings.now();
            tokio::select! {
                Some(()) = hangup.recv() => {
                    notifier.reloading();
                    let read = self.read();
                    self.note(&read);
                    notifier.ready();
                }
                _ = look.tick() => if self.files.have_changed() {
                    let read = self.serve(self.serving.clone());
                    self.note(&read);
                }
            }
            let now = self.settings.now();
            if now.protection() != before.protection() {
                log_protection(&now, listens);
            }
        }
    }

    fn note(&self, read: &anyhow::Result<()>) {
        self.outcome.note(read.is_ok());
        match read {
            Ok(()) => tracing::info!("read the configuration again"),
            Err(error) => {
                tracing::error!("the configuration cannot be used, and the one before stays: {error:#}");
            }
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let Some(again) = self.again.clone() else { return self.serve(self.serving.clone()) };
        let matches = again.read()?;
        let values = again.values(&matches);
        let (_, of_agent) = matches.subcommand().context("the command line is no agent's")?;
        let (serving, shown, log) = options(of_agent)?;
        self.serve(serving)?;
        self.shown.send_if_modified(|now| std::mem::replace(now, shown) != shown);
        logging::change_level(&log);
        for key in differing(&self.running, &values) {
            if CHANGEABLE.contains(&key) {
                tracing::info!("{key} is changed");
            } else {
                tracing::warn!("{key} has changed in {}: restart the agent", again.path().display());
            }
        }
        // The rest still runs as it was.
        for key in CHANGEABLE {
            match values.get(*key) {
                Some(value) => self.running.insert((*key).to_owned(), value.clone()),
                None => self.running.remove(*key),
            };
        }
        Ok(())
    }

    /// Serves as the options say, if what they name can be used.
    fn serve(&mut self, serving: Serving) -> anyhow::Result<()> {
        let (files, served) = serving.load();
        // What cannot be used is tried again when it has changed.
        (self.files, self.serving) = (files, serving);
        self.settings.change(served?);
        Ok(())
    }
}

fn options(matches: &ArgMatches) -> Result<(Serving, Shown, Log), clap::Error> {
    Ok((
        Serving::from_arg_matches(matches)?,
        Shown::from_arg_matches(matches)?,
        Log::from_arg_matches(matches)?,
    ))
}

/// The keys of which the values are not the same.
fn differing<'a>(one: &'a Values, other: &'a Values) -> BTreeSet<&'a str> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(*key) != other.get(*key)).map(String::as_str).collect()
}
