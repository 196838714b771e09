//! A real cluster of one node: etcd, Kubernetes' own programs and containerd, each a line in a table.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtask_tools::{cargo, shell};

use crate::kubernetes::PROGRAMS;
use crate::lab::Lab;
use crate::tools::Tools;
use crate::wait;

/// How clients reach the API.
const KUBECONFIG: &str = "/repo/xtask/cluster/src/config/kubeconfig.yaml";

/// Where a manifest is written to, in the root.
const MANIFEST: &str = "/var/lib/cluster/manifest.yaml";

/// Where Helm and kubectl are, in the root.
const TOOLS: &str = "/tools";

/// A program of the cluster.
struct Part {
    name: &'static str,
    args: &'static [&'static str],
}

/// What answers requests and keeps what was asked for.
const API: &[Part] = &[
    Part {
        name: "etcd",
        args: &[
            "--data-dir=/var/lib/cluster/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
    },
    Part { name: "containerd", args: &["--config=/repo/xtask/cluster/src/config/containerd.toml"] },
    Part {
        name: "kube-apiserver",
        args: &[
            "--etcd-servers=http://127.0.0.1:2379",
            "--cert-dir=/var/lib/cluster/certificates",
            "--bind-address=127.0.0.1",
            "--advertise-address=10.9.9.1",
            "--secure-port=6443",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--token-auth-file=/var/lib/cluster/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://cluster",
            "--service-account-signing-key-file=/var/lib/cluster/accounts.key",
            "--service-account-key-file=/var/lib/cluster/accounts.key",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        ],
    },
];

/// What does it.
const NODE: &[Part] = &[
    Part {
        name: "kube-controller-manager",
        args: &[
            "--kubeconfig=/repo/xtask/cluster/src/config/kubeconfig.yaml",
            "--service-account-private-key-file=/var/lib/cluster/accounts.key",
            "--root-ca-file=/var/lib/cluster/certificates/apiserver.crt",
            "--use-service-account-credentials=false",
            "--leader-elect=false",
        ],
    },
    Part {
        name: "kube-scheduler",
        args: &["--kubeconfig=/repo/xtask/cluster/src/config/kubeconfig.yaml", "--leader-elect=false"],
    },
    Part {
        name: "kubelet",
        args: &[
            "--config=/repo/xtask/cluster/src/config/kubelet.yaml",
            "--kubeconfig=/repo/xtask/cluster/src/config/kubeconfig.yaml",
            "--container-runtime=remote",
            "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
            "--hostname-override=node1",
            "--node-ip=10.9.9.1",
        ],
    },
];

/// The cluster while it runs.
pub(crate) struct Cluster<'a> {
    pub(crate) lab: &'a Lab<'a>,
    parts: Vec<(&'static str, Child)>,
}

impl<'a> Cluster<'a> {
    /// Starts it, and waits until its node is ready.
    pub(crate) fn start(lab: &'a Lab<'a>) -> Result<Self> {
        let start = Instant::now();
        lab.run("bash", &["-c", include_str!("config/prepare.sh"), "prepare"])?;
        let tools = Tools::below(&cargo::target_dir()?).helm_and_kubectl();
        for tool in ["helm", "kubectl"] {
            std::fs::create_dir_all(lab.root.path(TOOLS))?;
            std::fs::copy(tools.join(tool), lab.root.path(TOOLS).join(tool))
                .with_context(|| format!("copy {tool}"))?;
        }
        let mut cluster = Self { lab, parts: Vec::new() };
        cluster.start_parts(API)?;
        cluster.until_alive("the API to be ready", 120, |cluster| {
            cluster.kubectl(&["get", "--raw", "/readyz"])
        })?;
        cluster.start_parts(NODE)?;
        cluster.until_alive("the node to be ready", 120, |cluster| {
            let nodes = cluster.kubectl(&["get", "nodes", "--output=wide"])?;
            ensure!(nodes.contains(" Ready "), "{nodes}");
            Ok(nodes)
        })?;
        println!("cluster: its node is ready after {} s", start.elapsed().as_secs());
        Ok(cluster)
    }

    fn start_parts(&mut self, parts: &[Part]) -> Result<()> {
        for Part { name, args } in parts {
            let path = self.lab.root.path("/var/lib/cluster/log").join(name);
            let log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            let mut command = self.lab.command(name);
            command.env("PATH", format!("{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin")).args(*args);
            command.stdout(log.try_clone()?).stderr(log);
            self.parts.push((name, command.spawn().with_context(|| format!("run {name}"))?));
        }
        Ok(())
    }

    /// Waits for something as long as all parts run.
    fn until_alive<T>(&mut self, what: &str, seconds: u64, look: impl Fn(&Self) -> Result<T>) -> Result<T> {
        for _ in 0..seconds {
            for (name, part) in &mut self.parts {
                if let Some(status) = part.try_wait()? {
                    let log = self.lab.root.path("/var/lib/cluster/log").join(*name);
                    bail!("{name} ended with {status}: {}", log.display());
                }
            }
            if let Ok(found) = look(self) {
                return Ok(found);
            }
            thread::sleep(Duration::from_secs(1));
        }
        wait::until(what, 0, || look(self))
    }

    /// Runs kubectl for what it prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.tool("kubectl", args)
    }

    /// Runs Helm for what it prints.
    pub(crate) fn helm(&self, args: &[&str]) -> Result<String> {
        self.tool("helm", args)
    }

    fn tool(&self, name: &str, args: &[&str]) -> Result<String> {
        let mut command = self.lab.command(&format!("{TOOLS}/{name}"));
        command.env("KUBECONFIG", KUBECONFIG).args(args).stderr(Stdio::piped());
        let output = command.output().with_context(|| format!("run {name}"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        ensure!(
            output.status.success(),
            "{}: {text}{}",
            shell::line(&command),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// Gets a page, as whoever is on the node does.
    pub(crate) fn curl(&self, args: &[&str]) -> Result<String> {
        let options = ["--silent", "--show-error", "--max-time", "5"];
        self.lab.output("curl", &[&options[..], args].concat())
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        std::fs::write(self.lab.root.path(MANIFEST), manifest).context("write a manifest")?;
        self.kubectl(&["apply", "--filename", MANIFEST]).map(drop)
    }

    /// Brings an image into the engine of the node.
    pub(crate) fn load(&self, image: &str) -> Result<()> {
        let archive = "/var/lib/cluster/image.tar";
        self.lab.shell(&format!(
            "rm -f {archive} && buildah push --quiet {image} oci-archive:{archive}:{image}"
        ))?;
        self.lab.output("ctr", &["--namespace", "k8s.io", "images", "import", archive]).map(drop)
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        // From the last to the first, each gently: a kubelet leaves its containers to the engine, and the lab ends those.
        for (_, part) in self.parts.iter_mut().rev() {
            let _ = Command::new("kill").arg(part.id().to_string()).status();
            let _ = part.wait();
        }
    }
}
