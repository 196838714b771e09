//! The chart as Helm installs it, in a namespace of its own, and the agent that comes of it.

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::wait;

/// What the release is called.
const NAME: &str = "proxytrace";
const CHART: &str = "/repo/deploy/kubernetes/chart";

/// What finds its objects.
const SELECTOR: &str = "--selector=app.kubernetes.io/name=proxytrace";

pub(crate) struct Release<'a> {
    pub(crate) cluster: &'a Cluster<'a>,
    pub(crate) namespace: &'static str,
}

impl<'a> Release<'a> {
    /// Makes the namespace, as docs/install/kubernetes.md says.
    pub(crate) fn prepare(cluster: &'a Cluster<'a>, namespace: &'static str) -> Result<Self> {
        cluster.kubectl(&["create", "namespace", namespace])?;
        let label = "pod-security.kubernetes.io/enforce=privileged";
        cluster.kubectl(&["label", "namespace", namespace, label])?;
        Ok(Self { cluster, namespace })
    }

    /// Installs it with these options, and gives what Helm says.
    pub(crate) fn install(&self, more: &[&str]) -> Result<String> {
        self.helm(&[&["install", NAME, CHART], more].concat())
    }

    /// The same over one that is installed.
    pub(crate) fn upgrade(&self, more: &[&str]) -> Result<String> {
        self.helm(&[&["upgrade", NAME, CHART], more].concat())
    }

    /// Takes it away, and waits until nothing of it is left.
    pub(crate) fn uninstall(&self) -> Result<String> {
        let said = self.helm(&["uninstall", NAME])?;
        let kinds = "all,configmaps,networkpolicies,serviceaccounts";
        wait::until("everything to be gone", 60, || {
            let left = self.kubectl(&["get", kinds, SELECTOR, "--output=name"])?;
            ensure!(left.is_empty(), "uninstalled, and these are left: {left}");
            Ok(())
        })?;
        Ok(said)
    }

    fn helm(&self, args: &[&str]) -> Result<String> {
        println!("$ helm {} --namespace {} --wait", args.join(" "), self.namespace);
        let rest = ["--namespace", self.namespace, "--wait", "--timeout=120s"];
        self.cluster.helm(&[args, &rest].concat())
    }

    /// Runs kubectl in its namespace.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[args, &["--namespace", self.namespace]].concat())
    }

    /// The agent's pod: the cluster has one node.
    pub(crate) fn agent(&self) -> Result<Agent> {
        let template = r#"{range .items[?(@.status.phase=="Running")]}{.metadata.name} {.status.podIP} {.metadata.uid}{"\n"}{end}"#;
        let pods = self.kubectl(&["get", "pods", SELECTOR, &format!("--output=jsonpath={template}")])?;
        let pods: Vec<_> = pods.lines().filter(|line| !line.is_empty()).collect();
        let [pod] = pods[..] else { bail!("not one pod runs, but {}", pods.len()) };
        let mut words = pod.split(' ').map(str::to_owned);
        let mut next = || words.next().context("a pod has a name, an address and an id");
        Ok(Agent { name: next()?, address: next()?, uid: next()? })
    }
}

/// A pod of the DaemonSet.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) uid: String,
}

impl Agent {
    /// A page of it, as whoever is in the cluster gets it.
    pub(crate) fn page(&self, cluster: &Cluster<'_>, path: &str) -> Result<String> {
        cluster.curl(&[&format!("http://{}:9947{path}", self.address)])
    }
}
