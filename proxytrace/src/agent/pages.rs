//! What the agent's pages say. The trace hands over what it knows; the text is written here, while the trace goes on.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::{reload::Outcome, shown::Shown};
use crate::{
    declared::RoutesView,
    feed::Channel,
    findings::FindingView,
    history::{Extent, History, Sums},
    http::{Page, Source},
    kernel::{
        AttachedHook,
        hooks::{NO_WAY, Via},
    },
    metrics::{self, ConfigRead, Format, HistogramBy, HookLabels, Kept},
    model::{Counts, Finding},
    status::{self, Seen, Standing, Status},
    watch::{View, Watch},
};
use jiff::Timestamp;

/// What a page is made of.
#[derive(Debug)]
pub enum Material {
    /// Of the metrics.
    Metrics(Box<View>, Vec<HookLabels>, Kept, Format),
    /// Of the findings.
    Findings(Vec<Finding>),
    /// Of the routes.
    Routes(Vec<RoutesView>),
    /// Of the status.
    Status(Box<Seen>),
    /// Of the status, without addresses.
    Overview(Box<Seen>),
}

impl Material {
    /// What the trace knows now.
    ///
    /// # Errors
    /// The kernel's maps could not be read.
    pub fn of(page: Page, watch: &Watch, history: &History, channel: &Channel) -> anyhow::Result<Self> {
        Ok(match page {
            Page::Metrics(format) => {
                let hooks = watch.hooks().iter().map(hook_labels).collect();
                Self::Metrics(Box::new(watch.view()?), hooks, kept(history, channel), format)
            }
            Page::Findings => Self::Findings(watch.findings().cloned().collect()),
            Page::Routes => Self::Routes(watch.routes()?),
            Page::Status => Self::Status(Box::new(seen(status::Source::Agent, watch, history)?)),
            Page::Overview => Self::Overview(Box::new(seen(status::Source::Agent, watch, history)?)),
        })
    }

    fn render(self, histogram_by: HistogramBy, config: ConfigRead) -> anyhow::Result<String> {
        Ok(match self {
            Self::Metrics(view, hooks, kept, format) => {
                metrics::render(*view, hooks, histogram_by, config, kept, format)?
            }
            Self::Findings(findings) => {
                let views: Vec<_> = findings.iter().map(FindingView::new).collect();
                serde_json::to_string(&views)?
            }
            Self::Routes(routes) => serde_json::to_string(&routes)?,
            Self::Status(seen) => serde_json::to_string(&Status::of(*seen))?,
            Self::Overview(seen) => {
                let mut status = Status::of(*seen);
                status.upstreams.iter_mut().for_each(|upstream| upstream.addresses.clear());
                serde_json::to_string(&status)?
            }
        })
    }
}

/// A question to the thread that owns the trace.
#[derive(Debug)]
pub struct Ask {
    /// What for.
    pub page: Page,
    /// Where the answer goes.
    pub answer: oneshot::Sender<anyhow::Result<Material>>,
}

/// The pages of a running trace.
#[derive(Debug)]
pub struct Pages {
    /// Asks the thread that owns it.
    pub asks: mpsc::Sender<Ask>,
    /// What the metrics show.
    pub shown: watch::Receiver<Shown>,
    /// How reading the agent's configuration went.
    pub outcome: Arc<Outcome>,
}

impl Source for Pages {
    fn render(&mut self, page: Page) -> anyhow::Result<String> {
        const ENDS: &str = "the agent ends";
        let (answer, material) = oneshot::channel();
        self.asks.blocking_send(Ask { page, answer }).ok().context(ENDS)?;
        let material = material.blocking_recv().context(ENDS)??;
        material.render(self.shown.borrow().histogram_by, self.outcome.now())
    }
}

/// What was counted of each upstream so far.
pub(super) fn sums(watch: &Watch) -> anyhow::Result<Sums> {
    let clock = watch.clock();
    let sums = watch.sums()?.into_iter();
    Ok(sums.map(|(key, row)| (key, Counts::of(&row, &clock))).collect())
}

/// How things are. What still holds of what an agent before this one saw is part of it, and it is remembered for the next one.
pub fn seen(source: status::Source, watch: &Watch, history: &History) -> anyhow::Result<Seen> {
    let (time, view) = (Timestamp::now(), watch.view_with_sides()?);
    let sums: Sums = view.sums().into_iter().map(|(key, row)| (key, Counts::of(&row, &view.clock))).collect();
    history.sample(time, sums);
    history.note(time, watch.findings(), watch.late());
    let standing = |finding: &Finding| {
        let severe_since = history.severe_since(&finding.subject).filter(|since| *since > finding.since);
        Standing { severe_since, ..Standing::now(finding.clone()) }
    };
    let mut seen = Seen {
        source,
        time,
        started: watch.has_started(),
        since: history.began(),
        recent: history.recent(),
        findings: watch.findings().map(standing).collect(),
        wrongs: Default::default(),
        reloads: Default::default(),
        view,
    };
    if let Some(last) = history.inherited() {
        let (last, gone) = seen.inherit(last);
        history.inherit(Some(last));
        history.take(&gone);
    }
    let inherited = seen.findings.iter().filter(|standing| standing.seen.is_some());
    inherited.for_each(|standing| history.note_inherited(time, &standing.finding));
    seen.wrongs = history.wrongs();
    // Before that, some proxies have no name yet: what stands of them would seem to stand no more.
    if watch.has_started() {
        history.note_last(&seen.last(history.boot()));
    }
    Ok(seen)
}

/// What is remembered, and who reads.
fn kept(history: &History, channel: &Channel) -> Kept {
    let Extent { bytes, capacity, oldest, unwritten, readers, missed } = history.extent();
    Kept {
        bytes,
        capacity_bytes: capacity,
        oldest_seconds: oldest.map_or(0.0, |time| time.as_duration().as_secs_f64()),
        unwritten,
        readers: [("records", readers), ("changes", channel.subscribers() as u64)],
        missed,
    }
}

fn hook_labels(attached: &AttachedHook) -> HookLabels {
    (attached.hook.name, attached.via().map_or(NO_WAY, Via::name))
}
