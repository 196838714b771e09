//! A bad reload becomes an alert in somebody's hands: agent, Prometheus, Alertmanager and a webhook, all real but the last.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::Guarded;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::wait::{SOON, patient};
use proxytrace_tests::{scratch, skip};
use serde_json::Value;

use crate::prometheus::Prometheus;

const BEFORE: &str = "127.0.0.1:8080";
const AFTER: &str = "127.0.0.1:8081";

#[test]
fn a_bad_reload_alerts_whoever_is_on_call() {
    if !skip::unless_installed("prometheus") || !skip::unless_installed("prometheus-alertmanager") {
        return;
    }
    let netns = Netns::new();
    let _backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    let nginx = Nginx::start(&netns, &api(BEFORE));
    let agent = Agent::start(&["--process", nginx.name()]);
    let (pager, alertmanager) = (Pager::start(), scratch::free_port());
    let _alertmanager = start_alertmanager(alertmanager, pager.port);
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules/*.yml");
    let prometheus = Prometheus::with(
        agent.port(),
        &format!(
            "rule_files: ['{}']\n\
             alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['127.0.0.1:{alertmanager}'] }}] }}] }}\n",
            rules.display()
        ),
    );
    for _ in 0..12 {
        assert_eq!(nginx.get("/"), 200);
    }
    prometheus.asks_until("proxytrace_connects_established_total", |series| !series.is_empty());

    let reload = Instant::now();
    let _ = nginx.reload(&api(AFTER));
    assert_eq!(nginx.get("/"), 502);
    let alert = pager.rings_for("ProxytraceOutage");
    println!("from the reload to the alert: {:?}", reload.elapsed());
    let labels = &alert["labels"];
    let reported = [&labels["kind"], &labels["upstream"], &labels["address"], &labels["severity"]];
    assert_eq!(reported, ["misrouted", "api", AFTER, "critical"], "{alert}");
    assert!(alert["annotations"]["runbook_url"].as_str().is_some_and(|url| url.contains("docs/")), "{alert}");

    let _ = nginx.reload(&api(BEFORE));
    assert_eq!(nginx.get("/"), 200);
    prometheus.asks_until("ALERTS{alertname='ProxytraceOutage'}", <[Value]>::is_empty);
    agent.stop();
}

fn api(address: &str) -> String {
    format!("upstream api {{ server {address}; }} {}", server("location / { proxy_pass http://api; }"))
}

/// The Debian package's, without its cluster, with data of its own; it notifies `webhook` at once.
fn start_alertmanager(port: u16, webhook: u16) -> (Guarded, tempfile::TempDir) {
    let directory = scratch::directory();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let config = format!(
        "route: {{ receiver: pager, group_wait: 0s, group_interval: 1s }}\n\
         receivers: [{{ name: pager, webhook_configs: [{{ url: 'http://127.0.0.1:{webhook}/' }}] }}]\n"
    );
    fs::write(file("alertmanager.yml"), config).expect("configure Alertmanager");
    let process = Guarded::spawn(
        Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file("alertmanager.yml")))
            .arg(format!("--storage.path={}", file("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    (process, directory)
}

/// Who is called: a server that takes what Alertmanager posts.
struct Pager {
    port: u16,
    calls: Receiver<Value>,
}

impl Pager {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let (sender, calls) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a call");
                let mut text = Vec::new();
                let mut buffer = [0; 65536];
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("limit the wait");
                // The body is one JSON value: it is whole when it can be read.
                let call = loop {
                    let Ok(n @ 1..) = stream.read(&mut buffer) else { break None };
                    text.extend_from_slice(&buffer[..n]);
                    let body = text.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &text[at + 4..]);
                    if let Some(Ok(call)) = body.map(serde_json::from_slice) {
                        break Some(call);
                    }
                };
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                if let Some(call) = call
                    && sender.send(call).is_err()
                {
                    return;
                }
            }
        });
        Self { port, calls }
    }

    /// The first alert of that name.
    #[track_caller]
    fn rings_for(&self, name: &str) -> Value {
        let deadline = Instant::now() + patient(SOON * 3);
        while let Ok(call) = self.calls.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            let alerts = call["alerts"].as_array().cloned().unwrap_or_default();
            let wanted = alerts.into_iter().find(|alert| alert["labels"]["alertname"] == name);
            if let Some(alert) = wanted {
                return alert;
            }
        }
        panic!("nobody was notified of {name}")
    }
}
