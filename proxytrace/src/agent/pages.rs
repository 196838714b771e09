//! What the agent's pages say. The trace hands over what it knows; the text is written here, while the trace goes on.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::reload::Outcome;
use crate::{
    declared::RoutesView,
    findings::FindingView,
    http::{Page, Source},
    kernel::{
        AttachedHook,
        hooks::{NO_WAY, Via},
    },
    metrics::{self, ConfigRead, Format, HistogramBy, HookLabels},
    model::Finding,
    watch::{View, Watch},
};

/// What a page is made of.
#[derive(Debug)]
pub enum Material {
    /// Of the metrics.
    Metrics(Box<View>, Vec<HookLabels>, Format),
    /// Of the findings.
    Findings(Vec<Finding>),
    /// Of the routes.
    Routes(Vec<RoutesView>),
}

impl Material {
    /// What the trace knows now.
    ///
    /// # Errors
    /// The kernel's maps could not be read.
    pub fn of(page: Page, watch: &Watch) -> anyhow::Result<Self> {
        Ok(match page {
            Page::Metrics(format) => {
                let hooks = watch.hooks().iter().map(hook_labels).collect();
                Self::Metrics(Box::new(watch.view()?), hooks, format)
            }
            Page::Findings => Self::Findings(watch.findings().cloned().collect()),
            Page::Routes => Self::Routes(watch.routes()?),
        })
    }

    fn render(self, histogram_by: HistogramBy, config: ConfigRead) -> anyhow::Result<String> {
        Ok(match self {
            Self::Metrics(view, hooks, format) => {
                metrics::render(*view, hooks, histogram_by, config, format)?
            }
            Self::Findings(findings) => {
                let views: Vec<_> = findings.iter().map(FindingView::new).collect();
                serde_json::to_string(&views)?
            }
            Self::Routes(routes) => serde_json::to_string(&routes)?,
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
    /// Of what connect times are histograms.
    pub histogram_by: HistogramBy,
    /// How reading the agent's configuration went.
    pub outcome: Arc<Outcome>,
}

impl Source for Pages {
    fn render(&mut self, page: Page) -> anyhow::Result<String> {
        const ENDS: &str = "the agent ends";
        let (answer, material) = oneshot::channel();
        self.asks.blocking_send(Ask { page, answer }).ok().context(ENDS)?;
        material.blocking_recv().context(ENDS)??.render(self.histogram_by, self.outcome.now())
    }
}

fn hook_labels(attached: &AttachedHook) -> HookLabels {
    (attached.hook.name, attached.via().map_or(NO_WAY, Via::name))
}
