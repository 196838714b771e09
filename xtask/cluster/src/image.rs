//! The container image: built twice, packed for all architectures, and run by podman beside a proxy of the host.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use xtask_tools::{cargo, shell};

use crate::lab::Lab;
use crate::oci::{self, Platform};
use crate::proxies;
use crate::tools::Tools;
use crate::wait;

/// The architectures that there are programs for, as Rust and as container engines call them.
const ARCHITECTURES: &[(&str, &str)] = &[("x86_64", "amd64"), ("aarch64", "arm64")];

/// The version of everything here.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the capabilities are that it runs with; a test of the program compares them with docs/security.md.
const DAEMONSET: &str = include_str!("../../../deploy/kubernetes/chart/templates/daemonset.yaml");

/// The finished image.
pub(crate) struct Image {
    /// With its tag, as engines in the root know the one for this machine.
    pub(crate) name: String,
}

/// Builds the image of each architecture that `cargo xtask dist` has built a program for.
pub(crate) fn build(lab: &Lab<'_>) -> Result<Image> {
    let dist = cargo::target_dir()?.join("dist");
    let containerfile = cargo::root().join("deploy/image/Containerfile");
    shell::run(Tools::below(&cargo::target_dir()?).hadolint().arg(&containerfile))
        .context("hadolint has something to say")?;

    let contexts = lab.root.work.join("image");
    xtask_tools::private_apt::remove(&contexts)?;
    fs::create_dir_all(&contexts).context("create the directory of images")?;
    let mut platforms = Vec::new();
    for (arch, platform) in ARCHITECTURES {
        let built = dist.join(format!("proxytrace-{VERSION}-{arch}-linux-musl"));
        if !built.exists() {
            println!(
                "image: {platform} is left out: {} is not there, `cargo xtask dist` makes it",
                built.display()
            );
            continue;
        }
        platforms.push(build_for(lab, platform, &built, &contexts)?);
    }
    ensure!(!platforms.is_empty(), "there is no program to put into an image: cargo xtask dist");
    let archive = oci::pack(lab, VERSION, &platforms, &dist)?;
    println!(
        "image: {} holds {}",
        archive.display(),
        platforms.iter().map(|one| one.name).collect::<Vec<_>>().join(" and ")
    );

    // By the name that the chart has.
    let name = format!("localhost/proxytrace:{VERSION}");
    let own = platforms.iter().find(|one| one.name == xtask_tools::private_apt::OWN);
    let own = own.context("there is no program for this machine's own architecture: cargo xtask dist")?;
    lab.run("buildah", &["tag", &own.image, &name])?;
    Ok(Image { name })
}

fn build_for(lab: &Lab<'_>, platform: &'static str, built: &Path, contexts: &Path) -> Result<Platform> {
    let context = contexts.join(platform);
    fs::create_dir_all(&context)?;
    fs::copy(built.join("proxytrace"), context.join("proxytrace")).context("copy the program")?;
    let version = format!("VERSION={VERSION}");
    let inside = format!("/lab/image/{platform}");
    let build = || {
        lab.output(
            "buildah",
            &[
                "build",
                "--quiet",
                "--isolation",
                "chroot",
                "--timestamp",
                "0",
                "--no-cache",
                "--arch",
                platform,
                "--build-arg",
                &version,
                "--file",
                "/repo/deploy/image/Containerfile",
                &inside,
            ],
        )
    };
    let [first, second] = [build()?, build()?];
    ensure!(first == second, "two builds gave two images: {first} and {second}");
    let listed = lab.shell(&format!(
        "cd \"$(buildah mount \"$(buildah from --arch {platform} {first})\")\" && find . -type f"
    ))?;
    ensure!(listed == "./proxytrace", "not one file is in it, but: {listed}");
    lab.output("buildah", &["rm", "--all"])?;
    let size = fs::metadata(context.join("proxytrace"))?.len();
    println!("image: {platform} {first}, twice; one file of {:.1} MiB", size as f64 / f64::from(1 << 20));
    Ok(Platform { name: platform, image: first, sbom: built.with_added_extension("cdx.json") })
}

/// How podman is to run here: hybrid control groups, and no right to raise limits.
const PODMAN: &[&str] = &["--runtime", "runc", "--cgroup-manager", "cgroupfs"];
const LIMITS: &[&str] = &["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4000:4000"];

/// Those that the chart adds, as podman's option has them.
fn capabilities() -> Option<String> {
    let list = DAEMONSET.split_once("add: [")?.1.split_once("{{")?.0;
    Some(list.replace(' ', ""))
}

/// Runs it read-only, without new privileges, with the capabilities of docs/security.md alone, beside an nginx of the host, and sees that
/// it traces and names that.
pub(crate) fn try_with_podman(lab: &Lab<'_>, image: &Image) -> Result<()> {
    let nginx = proxies::start_on_host(lab)?;
    let podman = |args: &[&str]| lab.output("podman", &[PODMAN, args].concat());
    let capabilities = capabilities().context("the chart adds no capabilities")?;
    let run = [
        &[
            "run",
            "--replace",
            "--detach",
            "--name",
            "proxytrace",
            "--pid=host",
            "--net=host",
            "--read-only",
            "--tmpfs=/run/proxytrace",
            "--cap-drop=all",
            "--cap-add",
            &capabilities,
        ],
        &["--security-opt=no-new-privileges"][..],
        LIMITS,
        &[&image.name],
    ]
    .concat();
    podman(&run)?;
    let ready =
        || lab.output("curl", &["--silent", "--show-error", "--fail", "http://127.0.0.1:9947/readyz"]);
    wait::until("the agent in the container", 20, ready)
        .with_context(|| lab.shell("podman logs proxytrace 2>&1").unwrap_or_default())?;
    lab.shell("curl --silent http://127.0.0.1:8080/ >/dev/null")?;
    let counted = wait::until("a failure to be counted", 10, || {
        let metrics = lab.output("curl", &["--silent", "http://127.0.0.1:9947/metrics"])?;
        proxies::refused(&metrics).context("no connect was refused").map(str::to_owned)
    })?;
    println!("image: {counted}");
    ensure!(counted.contains(r#"proxy="nginx""#), "the host's nginx is not named as such");

    let pid = podman(&["inspect", "--format", "{{.State.Pid}}", "proxytrace"])?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("look at the agent")?;
    let held: Vec<_> = status
        .lines()
        .filter(|line| {
            ["CapPrm", "CapBnd", "NoNewPrivs", "Seccomp:"].iter().any(|field| line.starts_with(field))
        })
        .collect();
    println!("image: {}", held.join(", ").replace('\t', " "));
    let doctor = lab.shell("podman --runtime runc exec proxytrace /proxytrace doctor | head --lines=1")?;
    println!("image: doctor in the container says: {doctor}");
    // It ends with 1 where something is wrong, as it is here.
    let status = lab.shell("podman --runtime runc exec proxytrace /proxytrace status || [ $? = 1 ]")?;
    ensure!(status.contains("the agent watches since"), "status in the container says: {status}");
    podman(&["stop", "--time", "5", "proxytrace"])?;
    let code = podman(&["inspect", "--format", "{{.State.ExitCode}}", "proxytrace"])?;
    podman(&["rm", "proxytrace"])?;
    drop(nginx);
    if code != "0" {
        bail!("the agent ended with {code} when it was stopped");
    }
    println!("image: traced and named an nginx of the host, and ended with 0");
    Ok(())
}
