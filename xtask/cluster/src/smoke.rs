//! The chart on a cluster: installed, looked at, upgraded and taken away.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::image::Image;
use crate::lab::Lab;
use crate::{proxies, wait};

const NAMESPACE: &str = "proxytrace";
const CHART: &str = "/repo/deploy/kubernetes/chart";

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
    let story = Story { cluster: &cluster };
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
    let kinds = "daemonsets,pods,serviceaccounts,configmaps,secrets,networkpolicies,namespaces,clusterroles,clusterrolebindings";
    let all = cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=name"])?;
    let mut names: Vec<_> =
        all.lines().filter(|name| !OF_CONTROLLERS.iter().any(|own| name.contains(own))).collect();
    names.sort_unstable();
    Ok(names.join("\n"))
}

struct Story<'a> {
    cluster: &'a Cluster<'a>,
}

impl Story<'_> {
    fn play(&self) -> Result<()> {
        let cluster = self.cluster;
        cluster.apply(include_str!("config/edge.yaml"))?;
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
        cluster.kubectl(&[
            "label",
            "namespace",
            NAMESPACE,
            "pod-security.kubernetes.io/enforce=privileged",
        ])?;
        cluster.kubectl(&["rollout", "status", "deployment/edge", "--namespace=shop", "--timeout=120s"])?;

        println!("$ helm install proxytrace {CHART} --namespace {NAMESPACE} --wait");
        println!(
            "{}",
            cluster.helm(&[
                "install",
                "proxytrace",
                CHART,
                "--namespace",
                NAMESPACE,
                "--wait",
                "--timeout=120s"
            ])?
        );
        println!(
            "{}",
            cluster.kubectl(&["get", "daemonsets,pods", "--namespace", NAMESPACE, "--output=wide"])?
        );
        self.names_and_counts("installed")?;
        self.is_confined()?;
        self.fits_its_limits()?;

        let first = self.agent()?;
        println!(
            "$ helm upgrade proxytrace {CHART} --namespace {NAMESPACE} --wait --set agent.config=max-addresses=500"
        );
        let upgrade = [
            "upgrade",
            "proxytrace",
            CHART,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout=120s",
            "--set",
            "agent.config=max-addresses=500",
        ];
        println!("{}", cluster.helm(&upgrade)?.lines().take(7).collect::<Vec<_>>().join("\n"));
        let second = wait::until("the pod to be replaced", 60, || {
            let agent = self.agent()?;
            ensure!(agent.name != first.name, "{} is still there", agent.name);
            Ok(agent)
        })?;
        println!("cluster: the upgrade replaced {} by {}", first.name, second.name);
        self.names_and_counts("upgraded")?;

        println!("$ helm uninstall proxytrace --namespace {NAMESPACE} --wait");
        println!(
            "{}",
            cluster.helm(&[
                "uninstall",
                "proxytrace",
                "--namespace",
                NAMESPACE,
                "--wait",
                "--timeout=120s"
            ])?
        );
        let left = [
            "get",
            "all,configmaps,networkpolicies,serviceaccounts",
            "--namespace",
            NAMESPACE,
            "--selector=app.kubernetes.io/name=proxytrace",
            "--output=name",
        ];
        wait::until("everything to be gone", 60, || {
            let left = cluster.kubectl(&left)?;
            ensure!(left.is_empty(), "uninstalled, and these are left: {left}");
            Ok(())
        })
    }

    /// The agent's pod: the cluster has one node.
    fn agent(&self) -> Result<Agent> {
        let template = r#"{range .items[?(@.status.phase=="Running")]}{.metadata.name} {.status.podIP} {.metadata.uid}{"\n"}{end}"#;
        let output = format!("--output=jsonpath={template}");
        let pods = self.cluster.kubectl(&[
            "get",
            "pods",
            "--namespace",
            NAMESPACE,
            "--selector=app.kubernetes.io/name=proxytrace",
            &output,
        ])?;
        let pods: Vec<_> = pods.lines().filter(|line| !line.is_empty()).collect();
        let [pod] = pods[..] else { bail!("not one pod runs, but {}", pods.len()) };
        let mut words = pod.split(' ').map(str::to_owned);
        let mut next = || words.next().context("a pod has a name, an address and an id");
        Ok(Agent { name: next()?, address: next()?, uid: next()? })
    }

    /// Both pods with nginx are called by their names, and their failures are counted, as a Prometheus in the cluster sees it.
    fn names_and_counts(&self, when: &str) -> Result<()> {
        let agent = self.agent()?;
        let curl = |url: &str| {
            self.cluster.lab.output("curl", &["--silent", "--show-error", "--max-time", "5", url])
        };
        let output = r#"--output=jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}"#;
        let pods =
            self.cluster.kubectl(&["get", "pods", "--namespace=shop", "--selector=app=edge", output])?;
        for pod in pods.lines() {
            let (name, address) = pod.split_once(' ').context("a pod has a name and an address")?;
            curl(&format!("http://{address}:8080/"))?;
            // Not where the machine is itself a guest that may not look at its first process: then the name is the pod's own word, which
            // comes with the container's id.
            let end = if fs::read_link("/proc/1/root").is_ok() { '"' } else { '@' };
            let proxy = format!(r#"proxy="shop/{name}/nginx{end}"#);
            let line = wait::until("a failure to be counted", 30, || {
                let metrics = curl(&format!("http://{}:9947/metrics", agent.address))?;
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
        let ready = self.cluster.lab.output(
            "curl",
            &[
                "--silent",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                &format!("http://{}:9947/readyz", agent.address),
            ],
        )?;
        ensure!(ready == "200", "/readyz answers {ready}");
        Ok(())
    }

    /// What the kernel says of the agent.
    fn is_confined(&self) -> Result<()> {
        let pid = self.cluster.lab.output("pgrep", &["--full", "--oldest", "^/proxytrace agent"])?;
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
        let agent = self.agent()?;
        let find = format!(
            "find /sys/fs/cgroup -path '*pod{}*' -name memory.usage_in_bytes -o -path '*pod{}*' -name memory.current",
            agent.uid, agent.uid
        );
        let files = self.cluster.lab.shell(&find)?;
        for file in files.lines() {
            let bytes: f64 =
                self.cluster.lab.output("cat", &[file])?.parse().context("memory is a number")?;
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
            match self.cluster.kubectl(args) {
                Ok(text) => eprintln!("{text}"),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
}

/// A pod of the DaemonSet.
struct Agent {
    name: String,
    address: String,
    uid: String,
}
