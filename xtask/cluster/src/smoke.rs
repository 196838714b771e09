//! The chart on a cluster: installed, looked at, upgraded and taken away.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::departed::Departed;
use crate::image::Image;
use crate::lab::Lab;
use crate::release::Release;
use crate::{operator, proxies, secured, wait};

const NAMESPACE: &str = "proxytrace";

/// Runs it all.
pub(crate) fn run(lab: &Lab<'_>, image: &Image) -> Result<()> {
    proxies::build_images(lab)?;
    let cluster = Cluster::start(lab)?;
    println!(
        "cluster: {}",
        cluster
            .kubectl(&["version", "--output=yaml"])?
            .lines()
            .filter(|line| line.contains("gitVersion"))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    );
    for image in [&image.name, "localhost/nginx:1", "localhost/pause:1"] {
        cluster.load(image)?;
    }
    let before = everything(&cluster)?;
    cluster.apply(include_str!("config/edge.yaml"))?;
    cluster.kubectl(&["rollout", "status", "deployment/edge", "--namespace=shop", "--timeout=120s"])?;
    let story = Story { release: Release::prepare(&cluster, NAMESPACE)? };
    let result = story.play();
    if result.is_err() {
        story.explain();
    }
    result?;
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "shop", "--wait=true", "--timeout=120s"])?;
    let after = wait::until("the cluster to be as it was", 60, || {
        let after = everything(&cluster)?;
        ensure!(after == before, "there is more than before:\n{after}");
        Ok(after)
    })?;
    println!("cluster: nothing is left: the same {} objects as before", after.lines().count());
    Ok(())
}

/// What the cluster's own controllers make in each namespace, some time after it.
const OF_CONTROLLERS: &[&str] = &["-token-", "serviceaccount/default", "configmap/kube-root-ca.crt"];

/// Every object that a chart could make, by name.
fn everything(cluster: &Cluster<'_>) -> Result<String> {
    let kinds = "daemonsets,pods,serviceaccounts,configmaps,secrets,networkpolicies,namespaces,clusterroles,clusterrolebindings,\
                 customresourcedefinitions";
    let all = cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=name"])?;
    let mut names: Vec<_> =
        all.lines().filter(|name| !OF_CONTROLLERS.iter().any(|own| name.contains(own))).collect();
    names.sort_unstable();
    Ok(names.join("\n"))
}

struct Story<'a> {
    release: Release<'a>,
}

impl Story<'_> {
    fn play(&self) -> Result<()> {
        let Self { release, .. } = self;
        let cluster = release.cluster;
        println!("{}", release.install(&[])?);
        println!("{}", release.kubectl(&["get", "daemonsets,pods", "--output=wide"])?);
        self.names_and_counts("installed")?;
        self.is_confined()?;
        self.fits_its_limits()?;

        let first = release.agent()?;
        let departed = Departed::one(cluster)?;
        secured::run(cluster)?;
        departed.is_forgotten(cluster, &first)?;

        operator::add(cluster)?;
        let said = release.upgrade(&["--set", "agent.config=max-addresses=500"])?;
        println!("{}", said.lines().take(7).collect::<Vec<_>>().join("\n"));
        let second = wait::until("the pod to be replaced", 60, || {
            let agent = release.agent()?;
            ensure!(agent.name != first.name, "{} is still there", agent.name);
            Ok(agent)
        })?;
        println!("cluster: the upgrade replaced {} by {}", first.name, second.name);
        self.names_and_counts("upgraded")?;
        operator::see(release)?;

        println!("{}", release.uninstall()?);
        operator::see_none(release)?;
        operator::remove(cluster)
    }

    /// Both pods with nginx are called by their names, and their failures are counted, as a Prometheus in the cluster sees it.
    fn names_and_counts(&self, when: &str) -> Result<()> {
        let Release { cluster, .. } = self.release;
        let agent = self.release.agent()?;
        let output = r#"--output=jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}"#;
        let pods = cluster.kubectl(&["get", "pods", "--namespace=shop", "--selector=app=edge", output])?;
        for pod in pods.lines() {
            let (name, address) = pod.split_once(' ').context("a pod has a name and an address")?;
            cluster.curl(&[&format!("http://{address}:8080/")])?;
            // Not where the machine is itself a guest that may not look at its first process: then the name is the pod's own word, which
            // comes with the container's id.
            let end = if fs::read_link("/proc/1/root").is_ok() { '"' } else { '@' };
            let proxy = format!(r#"proxy="shop/{name}/nginx{end}"#);
            let line = wait::until("a failure to be counted", 30, || {
                let metrics = agent.page(cluster, "/metrics")?;
                let own: Vec<_> = metrics.lines().filter(|line| line.contains(&proxy)).collect();
                let own = own.join("\n");
                let seen = || {
                    metrics
                        .lines()
                        .filter(|line| line.starts_with("proxytrace_proxy_info"))
                        .collect::<Vec<_>>()
                        .join("\n")
                };
                proxies::refused(&own)
                    .map(str::to_owned)
                    .with_context(|| format!("{proxy} is not among\n{}", seen()))
            })?;
            println!("cluster: {when}: {line}");
        }
        // With --fail, curl takes anything but 200 for an error.
        cluster.curl(&["--fail", &format!("http://{}:9947/readyz", agent.address)]).map(drop)
    }

    /// What the kernel says of the agent.
    fn is_confined(&self) -> Result<()> {
        let pid = self.release.cluster.lab.output("pgrep", &["--full", "--oldest", "^/proxytrace agent"])?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("look at the agent")?;
        let held: Vec<_> = status
            .lines()
            .filter(|line| {
                ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp:"].iter().any(|field| line.starts_with(field))
            })
            .collect();
        println!("cluster: {}", held.join(", ").replace('\t', " "));
        ensure!(
            held.contains(&"NoNewPrivs:\t1") && held.contains(&"Seccomp:\t2"),
            "the agent is not confined"
        );
        Ok(())
    }

    /// What the agent takes of its limit, tables in the kernel among it.
    fn fits_its_limits(&self) -> Result<()> {
        let agent = self.release.agent()?;
        let find = format!(
            "find /sys/fs/cgroup -path '*pod{}*' -name memory.usage_in_bytes -o -path '*pod{}*' -name memory.current",
            agent.uid, agent.uid
        );
        let files = self.release.cluster.lab.shell(&find)?;
        for file in files.lines() {
            let bytes: f64 =
                self.release.cluster.lab.output("cat", &[file])?.parse().context("memory is a number")?;
            println!("cluster: {:.1} MiB in {file}", bytes / f64::from(1 << 20));
        }
        Ok(())
    }

    /// What whoever reads of a failure wants to see.
    fn explain(&self) {
        for args in [
            &["get", "all", "--all-namespaces", "--output=wide"][..],
            &["get", "events", "--all-namespaces"],
            &["logs", "--namespace", NAMESPACE, "daemonset/proxytrace", "--tail=20"],
        ] {
            match self.release.cluster.kubectl(args) {
                Ok(text) => eprintln!("{text}"),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
}
