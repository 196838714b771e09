//! Where commands see how things are: the agent of this host, or a trace of their own where there is none.

use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::{
    options::{AskAgent, Tracing},
    tracing::{self, Wanted, give_up_privileges},
};
use crate::{
    agent::pages,
    client::Agent,
    declared::RoutesView,
    history::{Follows, History, Line},
    model::{Minute, Remembered},
    recording,
    session::{Pump, Session},
    status::{Source, Status},
};

/// Without an agent it traces for so long before it says anything.
pub(super) const TRACED: Duration = Duration::from_secs(3);

/// So many addresses of one owner are told apart.
const MAX_ADDRESSES: usize = 10_000;

/// A trace of our own remembers that much, in bytes.
const HISTORY: u64 = 4 << 20;

/// Of what is remembered, so much is taken at once, in bytes.
const PAGE: usize = 64 << 10;

/// Where a status comes from.
pub(super) enum Observer {
    Agent(Agent),
    Own(Box<Own>),
}

impl Observer {
    /// The agent's, if there is one; else our own.
    pub(super) async fn open(agent: &AskAgent, tracing: &Tracing) -> anyhow::Result<Self> {
        if let Some(path) = agent.path() {
            match Agent::find(path).await {
                Ok(agent) => return Ok(Self::Agent(agent)),
                Err(error) if error.is_absent() => {}
                Err(error) => ::tracing::warn!("{error}; tracing by itself instead"),
            }
        }
        let mut own = Own::begin(tracing)?;
        own.wait(TRACED).await?;
        Ok(Self::Own(Box::new(own)))
    }

    pub(super) const fn is_agent(&self) -> bool {
        matches!(self, Self::Agent(_))
    }

    /// How things are.
    pub(super) async fn look(&self) -> anyhow::Result<Status> {
        match self {
            Self::Agent(agent) => Ok(agent.status().await?),
            Self::Own(own) => {
                let seen = pages::seen(Source::Trace, own.session.watch(), &own.history)?;
                Ok(Status::of(seen))
            }
        }
    }

    /// Where configurations send requests.
    pub(super) async fn routes(&self) -> anyhow::Result<Vec<RoutesView>> {
        match self {
            Self::Agent(agent) => Ok(agent.json("/routes").await?),
            Self::Own(own) => Ok(own.session.watch().routes()?),
        }
    }

    /// What was counted in each minute since then.
    pub(super) async fn minutes(&self, since: Timestamp) -> anyhow::Result<Vec<Minute>> {
        match self {
            Self::Agent(agent) => Ok(agent.minutes(Some(since), None).await?),
            Self::Own(own) => read(&own.history.between(Some(since), None)),
        }
    }

    /// What happened in the last so long.
    pub(super) async fn records(&self, last: SignedDuration) -> anyhow::Result<Vec<Remembered>> {
        let since = Some(Timestamp::now() - last);
        let mut records = Vec::new();
        match self {
            Self::Agent(agent) => {
                let mut lines = agent.records(since, None, Follows::Nothing).await?;
                while let Some(record) = lines.next_record().await? {
                    records.push(record);
                }
            }
            Self::Own(own) => {
                let mut past = own.history.read(since, None, Follows::Nothing).past;
                loop {
                    let page = past.page(PAGE);
                    if page.is_empty() {
                        break;
                    }
                    records.extend(read::<Remembered>(&page)?);
                }
            }
        }
        Ok(records)
    }

    /// Lets time pass; our own trace follows what happens meanwhile. Safe to cancel.
    pub(super) async fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        match self {
            Self::Agent(_) => sleep(time).await,
            Self::Own(own) => own.wait(time).await?,
        }
        Ok(())
    }
}

/// What lines of the history say.
fn read<T: DeserializeOwned>(lines: &[Line]) -> anyhow::Result<Vec<T>> {
    lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A trace of our own.
pub(super) struct Own {
    session: Session,
    pump: Pump,
    history: History,
}

impl Own {
    fn begin(options: &Tracing) -> anyhow::Result<Self> {
        let wanted = Wanted {
            records: true,
            soon: true,
            established: false,
            max_addresses: MAX_ADDRESSES,
            series_kept: Duration::MAX,
            ended_kept: Duration::MAX,
        };
        let (session, pump) = tracing::start(options, wanted)?;
        let session = give_up_privileges(options, session, Ok)?;
        let header = recording::header(false).context("ask for the host's name")?;
        Ok(Self { session, pump, history: History::new(HISTORY, &header, "")? })
    }

    /// Follows what happens for so long.
    async fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                stepped = self.pump.step() => stepped?,
                update = self.session.next() => if let Some(update) = update {
                    self.history.take(&update?.records);
                },
            }
        }
    }
}
