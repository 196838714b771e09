//! What it discloses of its host: what it serves, and what it holds open. docs/security.md says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proxytrace_tests::metrics::Metrics;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{self, Agent};
use proxytrace_tests::wait::{self, SOON};

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

#[test]
fn it_discloses_no_more_of_the_host_than_documented() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let mut command = proxytrace::command();
    command.env("DATABASE_PASSWORD", "tiger-in-the-environment").current_dir("/usr");
    let agent = Agent::by(command, &["--process", nginx.name(), "--process", "tiger-in-args"]);
    assert_eq!(nginx.get("/"), 502);
    wait::until_true("the attempt to be counted", SOON, || {
        agent.metrics().account(nginx.name(), ADDRESS).failures.contains_key("refused")
    });

    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("read the host's name");
    let secrets = ["tiger", "DATABASE", host.trim(), "/usr", "/proc", "/tmp", "/root", "/work"];
    let open_metrics = ("accept", "application/openmetrics-text; version=1.0.0");
    let plain = ("accept", "text/plain");
    let documented = documented();
    for (path, accept) in [
        ("/metrics", plain),
        ("/metrics", open_metrics),
        ("/findings", plain),
        ("/", plain),
        ("/healthz", plain),
        ("/readyz", plain),
        ("/x", plain),
    ] {
        let response = agent.get_with(path, &[accept]);
        let fields: BTreeSet<_> = response.head.lines().filter_map(|line| line.split(':').next()).collect();
        let known = BTreeSet::from(["connection", "content-length", "content-type", "date"]);
        assert!(fields.is_subset(&known), "{path}: {}", response.head);
        // Where the proxy's program and configuration are is disclosed on purpose.
        let lines = response.body.lines().filter(|line| !line.starts_with("proxytrace_proxy_info{"));
        let whole = format!("{}\n{}", response.head, lines.collect::<Vec<_>>().join("\n"));
        for secret in secrets {
            assert!(!whole.contains(secret), "{secret} is in {path}: {whole}");
        }
        if path == "/metrics" {
            for (name, labels) in Metrics::parse(&response.body).shapes() {
                assert_eq!(
                    documented.get(&name),
                    Some(&labels),
                    "{name} is not in docs/metrics.md like that"
                );
            }
        }
    }
    // The routes have places in the configuration, and nothing else of the host.
    let routes = agent.get("/routes").body;
    for secret in ["tiger", "DATABASE", host.trim(), "/usr", "/proc", "/root", "/work"] {
        assert!(!routes.contains(secret), "{secret} is in /routes: {routes}");
    }
    agent.stop();
}

#[test]
fn it_has_no_file_open_but_its_standard_streams() {
    let agent = Agent::start(&[]);
    let directory = format!("/proc/{}/fd", agent.pid());
    for entry in
        fs::read_dir(directory).expect("read the descriptors").map(|entry| entry.expect("a descriptor"))
    {
        // One that is closed meanwhile is none.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let number = entry.file_name();
        let ours = fs::read_link(Path::new("/proc/self/fd").join(&number));
        let is_inherited = ours.is_ok_and(|ours| ours == target);
        let is_standard = ["0", "1", "2"].iter().any(|standard| number == *standard);
        let target = target.display().to_string();
        let is_known = ["socket:", "pipe:", "anon_inode:"].iter().any(|kind| target.starts_with(kind));
        assert!(is_standard || is_known || is_inherited, "descriptor {number:?} is {target}");
    }
    agent.stop();
}

/// Every sample that docs/metrics.md documents, with its labels.
fn documented() -> BTreeMap<String, Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md"));
    let mut samples = BTreeMap::new();
    for line in page.expect("read docs/metrics.md").lines() {
        let [_, name, kind, labels, ..] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            continue;
        };
        let name = name.trim_matches('`');
        let with = |more: &[&str]| {
            let mut labels: Vec<_> = labels
                .split(", ")
                .filter(|label| !label.is_empty())
                .chain(more.iter().copied())
                .map(str::to_owned)
                .collect();
            labels.sort();
            labels
        };
        samples.insert(name.to_owned(), with(&[]));
        if kind == "histogram" {
            samples.insert(format!("{name}_bucket"), with(&["le"]));
            samples.insert(format!("{name}_sum"), with(&[]));
            samples.insert(format!("{name}_count"), with(&[]));
        }
    }
    samples
}
