//! A pod that is gone: its series go away.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::release::Agent;
use crate::wait;

/// Its series are there for one more scrape: docs/metrics.md says that they go five to seven minutes later.
const KEPT: std::ops::RangeInclusive<u64> = 240..=440;

/// One that was taken away.
pub(crate) struct Departed {
    name: String,
    since: Instant,
}

impl Departed {
    /// Takes one of the two pods with nginx away.
    pub(crate) fn one(cluster: &Cluster<'_>) -> Result<Self> {
        let pods = || {
            let pods = ["get", "pods", "--namespace=shop", "--output=jsonpath={.items[*].metadata.name}"];
            anyhow::Ok(cluster.kubectl(&pods)?.split(' ').map(str::to_owned).collect::<Vec<_>>())
        };
        let before = pods()?;
        cluster.kubectl(&["scale", "deployment/edge", "--namespace=shop", "--replicas=1"])?;
        let name = wait::until("a pod to be gone", 60, || {
            let after = pods()?;
            let mut gone = before.iter().filter(|name| !after.contains(name));
            gone.next().cloned().with_context(|| format!("{} are there", after.join(" ")))
        })?;
        Ok(Self { name, since: Instant::now() })
    }

    /// Waits until nothing is said of it any more.
    pub(crate) fn is_forgotten(&self, cluster: &Cluster<'_>, agent: &Agent) -> Result<()> {
        let proxy = format!(r#"proxy="shop/{}/"#, self.name);
        let seconds = || self.since.elapsed().as_secs();
        println!("cluster: waiting for the series of shop/{} to go away: some minutes", self.name);
        wait::until("the series of a pod that is gone to go away", KEPT.end() - seconds(), || {
            let metrics = agent.page(cluster, "/metrics")?;
            let left = metrics.lines().find(|line| line.contains(&proxy));
            if let Some(line) = left {
                bail!("there is {line}")
            }
            ensure!(metrics.contains(r#"proxy="shop/"#), "nothing is said of the pod that is there");
            Ok(())
        })?;
        println!("cluster: the series of shop/{} went away {} s after it", self.name, seconds());
        ensure!(seconds() > *KEPT.start(), "they were to be there for another scrape");
        Ok(())
    }
}
