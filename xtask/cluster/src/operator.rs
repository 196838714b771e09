//! What the chart makes where the cluster knows the kinds of the Prometheus Operator: the kinds alone, without anybody who acts on them.

use std::fs;

use anyhow::{Context, Result, ensure};
use xtask_tools::cargo;

use crate::cluster::Cluster;
use crate::release::Release;

/// The kinds, as kubectl calls their definitions.
const DEFINITIONS: [&str; 2] =
    ["crd/podmonitors.monitoring.coreos.com", "crd/prometheusrules.monitoring.coreos.com"];

/// Has the cluster know them.
pub(crate) fn add(cluster: &Cluster<'_>) -> Result<()> {
    for name in ["podmonitors", "prometheusrules"] {
        let path = cargo::root().join(format!("deploy/kubernetes/tests/crds/{name}.yaml"));
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // Kubernetes 1.20 takes an empty default for null, which is no string.
        let lines = text.lines().filter(|line| line.trim() != r#"default: """#);
        cluster.apply(&lines.collect::<Vec<_>>().join("\n"))?;
    }
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    cluster.kubectl(&[&wait[..], &DEFINITIONS].concat()).map(drop)
}

/// Has it forget them.
pub(crate) fn remove(cluster: &Cluster<'_>) -> Result<()> {
    cluster.kubectl(&[&["delete", "--wait=true"][..], &DEFINITIONS].concat()).map(drop)
}

/// Sees that the cluster has taken what the chart made of these kinds.
pub(crate) fn see(release: &Release<'_>) -> Result<()> {
    let made = [
        (
            "podmonitor",
            "{.spec.jobLabel} {.spec.podMetricsEndpoints[*].port}",
            "app.kubernetes.io/name metrics",
        ),
        ("prometheusrule", "{.spec.groups[*].name}", "proxytrace"),
    ];
    for (kind, template, expected) in made {
        let stored =
            release.kubectl(&["get", kind, "proxytrace", &format!("--output=jsonpath={template}")])?;
        println!("cluster: {kind}/proxytrace: {stored}");
        ensure!(stored.contains(expected), "{kind} has {stored} instead of {expected}");
    }
    Ok(())
}

/// Sees that nothing of these kinds is left.
pub(crate) fn see_none(release: &Release<'_>) -> Result<()> {
    let left = release.kubectl(&["get", "podmonitors,prometheusrules", "--output=name"])?;
    ensure!(left.is_empty(), "uninstalled, and these are left: {left}");
    Ok(())
}
