//! The nginx that is traced, on the host and as a container, and what an agent counts of it.

use std::fs;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::lab::Lab;

/// The same everywhere: an upstream `api` that refuses.
pub(crate) const CONFIGURATION: &str = include_str!("config/nginx.conf");

/// Starts nginx beside the containers, as a service of the host would be.
pub(crate) fn start_on_host(lab: &Lab<'_>) -> Result<Child> {
    fs::write(lab.root.path("/etc/nginx/nginx.conf"), CONFIGURATION)
        .context("write nginx's configuration")?;
    lab.command("nginx").stderr(Stdio::null()).spawn().context("run nginx")
}

/// Builds the images of nginx and of the container that a pod's namespaces stand on, as localhost/nginx:1 and localhost/pause:1.
pub(crate) fn build_images(lab: &Lab<'_>) -> Result<()> {
    fs::write(lab.root.path("/etc/nginx/nginx.conf"), CONFIGURATION)
        .context("write nginx's configuration")?;
    lab.shell(
        "rm -rf /tmp/nginx /tmp/pause && mkdir -p /tmp/nginx/run /tmp/nginx/var/log/nginx /tmp/nginx/var/lib/nginx /tmp/pause
        cp --parents /usr/sbin/nginx /etc/nginx/nginx.conf /etc/passwd /etc/group /etc/nsswitch.conf /tmp/nginx
        cp --parents --dereference $(ldd /usr/sbin/nginx | grep --only-matching '/[^ ]*') /tmp/nginx
        cp /bin/busybox /tmp/pause",
    )?;
    for name in ["nginx", "pause"] {
        let (file, tag) =
            (format!("/repo/xtask/cluster/src/config/{name}.Containerfile"), format!("localhost/{name}:1"));
        let context = format!("/tmp/{name}");
        lab.output(
            "buildah",
            &["build", "--quiet", "--isolation", "chroot", "--tag", &tag, "--file", &file, &context],
        )?;
    }
    Ok(())
}

/// The line of a scrape with the refused connects to that upstream, if there were any.
pub(crate) fn refused(metrics: &str) -> Option<&str> {
    let lines = metrics.lines().filter(|line| line.starts_with("proxytrace_connect_failures_total{"));
    let mut refused = lines.filter(|line| {
        [r#"upstream="api""#, r#"address="127.0.0.1:8081""#, r#"cause="refused""#]
            .iter()
            .all(|label| line.contains(label))
    });
    refused.find(|line| !line.ends_with(" 0"))
}
