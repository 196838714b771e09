//! The chart's pod where AppArmor is enforced: a kubelet runs it from a file, in a machine of its own, because the kernel of this machine
//! need not have AppArmor.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask_tools::cargo;
use xtask_vm::Guest;

use crate::image::Image;
use crate::kubernetes;
use crate::lab::Lab;
use crate::proxies;
use crate::tools::Tools;

const GUEST: Guest<'_> = Guest {
    name: "static-pods",
    packages: &["containerd", "containernetworking-plugins", "iptables", "nginx-light", "runc"],
    memory: 3072,
    script: include_str!("config/static-pods.sh"),
};

/// What is handed over as it is.
const FILES: &[(&str, &str)] = &[
    ("containerd.toml", include_str!("config/containerd.toml")),
    ("network.conflist", include_str!("config/network.conflist")),
    ("nginx.conf", proxies::CONFIGURATION),
];

/// A kubelet that reads its pods from a directory. It knows a cluster's domain: pods without a service account have their namespace from
/// resolv.conf alone.
const KUBELET: &str = concat!(
    include_str!("config/kubelet.yaml"),
    "staticPodPath: /etc/kubernetes/pods\nclusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\n"
);

/// The version of that kubelet, as Helm wants it.
const VERSION: &str = "1.20.2";

/// The annotation of AppArmor, and the profiles that the pod runs under, by the names of their manifests.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/proxytrace";
const PROFILES: &[(&str, &str)] = &[("unconfined", "unconfined"), ("default", "runtime/default")];

/// How much more often than on a real machine a pod may not be ready yet: the kubelet would restart it.
const SLOWER: u64 = 20;

/// Tries it. The console is in the directory of what these commands keep.
pub(crate) fn run(lab: &Lab<'_>, image: &Image) -> Result<()> {
    proxies::build_images(lab)?;
    let pod = pod()?;
    GUEST.run(&lab.root.work, |handed| {
        for (name, text) in FILES {
            fs::write(handed.join(name), text).with_context(|| format!("write {name}"))?;
        }
        fs::write(handed.join("kubelet.yaml"), KUBELET).context("write kubelet.yaml")?;
        let kubelet = kubernetes::programs(lab.root).join("kubelet");
        fs::copy(&kubelet, handed.join("kubelet")).context("copy the kubelet")?;
        for (name, profile) in PROFILES {
            let mut pod = pod.clone();
            pod["metadata"]["annotations"][ANNOTATION] = (*profile).into();
            write(handed, name, &pod)?;
        }
        write(handed, "edge", &edge())?;
        export(lab, &[&image.name, "localhost/nginx:1", "localhost/pause:1"], handed)
    })
}

fn write(directory: &Path, name: &str, pod: &Value) -> Result<()> {
    fs::write(directory.join(format!("{name}.json")), pod.to_string())
        .with_context(|| format!("write the pod {name}"))
}

/// Writes the archives of images to a directory.
fn export(lab: &Lab<'_>, images: &[&str], directory: &Path) -> Result<()> {
    for (number, image) in images.iter().enumerate() {
        let archive = format!("image{number}.tar");
        lab.shell(&format!(
            "rm -f /lab/{archive} && buildah push --quiet {image} oci-archive:/lab/{archive}:{image}"
        ))?;
        fs::rename(lab.root.work.join(&archive), directory.join(&archive))
            .with_context(|| format!("move {archive}"))?;
    }
    Ok(())
}

/// The pod that the chart's DaemonSet makes, without what only a cluster can give it.
fn pod() -> Result<Value> {
    let tools = Tools::below(&cargo::target_dir()?);
    let mut helm = tools.helm();
    helm.args(["template", "proxytrace"]).arg(cargo::root().join("deploy/kubernetes/chart"));
    // A kubelet alone has no ConfigMap to give.
    helm.args(["--namespace", "proxytrace", "--kube-version", VERSION, "--set-string", "agent.config="]);
    let manifest = xtask_tools::shell::output(&mut helm)?;
    let objects = parse(&tools, &manifest)?;
    let daemonset = objects.iter().find(|object| object["kind"] == "DaemonSet");
    let template = &daemonset.context("the chart has no DaemonSet")?["spec"]["template"];
    let (metadata, mut spec) = (&template["metadata"], template["spec"].clone());
    ensure!(
        metadata["annotations"][ANNOTATION] == "unconfined",
        "the chart does not ask for no profile of AppArmor"
    );
    spec.as_object_mut().context("a pod has a specification")?.remove("serviceAccountName");
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        let often = &mut container["startupProbe"]["failureThreshold"];
        *often = (often.as_u64().context("a startup probe may fail")? * SLOWER).into();
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            container[probe]["timeoutSeconds"] = SLOWER.into();
        }
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "proxytrace",
            "namespace": "proxytrace",
            "annotations": metadata["annotations"],
            "labels": metadata["labels"],
        },
        "spec": spec,
    }))
}

/// A proxy as one meets it.
fn edge() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "edge", "namespace": "shop"},
        "spec": {"containers": [{"name": "nginx", "image": "localhost/nginx:1", "imagePullPolicy": "Never"}]},
    })
}

/// The objects in YAML.
fn parse(tools: &Tools, yaml: &str) -> Result<Vec<Value>> {
    const PROGRAM: &str =
        "import json, sys, yaml; print(json.dumps([one for one in yaml.safe_load_all(sys.stdin) if one]))";
    let mut python = tools.validate_python();
    python.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().context("run Python")?;
    child.stdin.take().context("the input of Python")?.write_all(yaml.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "Python cannot read what the chart becomes");
    serde_json::from_slice(&output.stdout).context("read what the chart becomes")
}
