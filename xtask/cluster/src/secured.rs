//! The chart with TLS and certificates of clients: a kubelet has none, so probes run a command in the container. Certificates that are
//! renewed in the Secret come into use while the agent runs.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::release::Release;
use crate::wait;

const NAMESPACE: &str = "proxytrace-tls";
const VALUES: &str = "/repo/deploy/kubernetes/tests/tls.values.yaml";
const MAKE: &str = include_str!("config/certificates.sh");

/// How long a kubelet may take to bring a changed Secret into a pod: it looks once a minute, and may have it from a cache.
const KUBELET_LOOKS: u64 = 180;

/// Installs it beside the other one, and takes it away again.
pub(crate) fn run(cluster: &Cluster<'_>) -> Result<()> {
    let release = Release::prepare(cluster, NAMESPACE)?;
    keep(&release, "first")?;
    release.install(&["--values", VALUES])?;
    let agent = release.agent()?;
    let probe = release.kubectl(&[
        "get",
        "daemonset",
        "proxytrace",
        "--output=jsonpath={..readinessProbe.exec.command}",
    ])?;
    println!("cluster: {} is ready, as {probe} says", agent.name);

    let get = |directory: &str, certificate: &str| {
        let file = |name: &str| format!("/var/lib/cluster/{directory}/{name}");
        let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
        let to = format!("proxytrace:9947:{}", agent.address);
        let mut args = vec!["--resolve", &*to, "--cacert", &*ca, "https://proxytrace:9947/metrics"];
        if certificate == "its certificate" {
            args.extend(["--cert", &*cert, "--key", &*key]);
        }
        cluster.curl(&args)
    };
    let metrics = get("first", "its certificate").context("scrape with a certificate")?;
    ensure!(metrics.contains("\nproxytrace_build_info{"), "no metrics, but {metrics}");
    let refused = get("first", "none").err().context("who has no certificate reads the metrics")?;
    println!("cluster: scraped with a certificate; without one: {}", refused.to_string().trim_end());

    keep(&release, "second")?;
    wait::until("the new certificates to be in use", KUBELET_LOOKS, || get("second", "its certificate"))?;
    ensure!(get("first", "its certificate").is_err(), "the certificates before are still good");
    ensure!(release.agent()?.uid == agent.uid, "the pod was replaced");
    let restarts = release.kubectl(&["get", "pods", "--output=jsonpath={..restartCount}"])?;
    ensure!(restarts == "0", "restarted {restarts} times");
    println!("cluster: renewed certificates are in use, and nothing was restarted");
    release.uninstall()?;
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=true", "--timeout=120s"]).map(drop)
}

/// Makes certificates, and puts what the agent needs of them into the Secret.
fn keep(release: &Release<'_>, directory: &str) -> Result<()> {
    let lab = release.cluster.lab;
    lab.run("bash", &["-c", MAKE, "certificates", &format!("/var/lib/cluster/{directory}")])?;
    let files = ["web.yml", "ca.crt", "server.crt", "server.key"]
        .map(|name| format!("--from-file=/var/lib/cluster/{directory}/{name}"));
    let mut create =
        vec!["create", "secret", "generic", "proxytrace-web", "--dry-run=client", "--output=yaml"];
    create.extend(files.iter().map(String::as_str));
    let secret = release.kubectl(&create)?;
    release.cluster.apply(&secret)
}
