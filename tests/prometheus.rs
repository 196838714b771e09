//! The real Prometheus.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use proxytrace_tests::child::Guarded;
use proxytrace_tests::{http, scratch, wait};
use serde_json::Value;

/// The real Prometheus, with a configuration, data and a port of its own.
pub(crate) struct Prometheus {
    port: u16,
    _process: Guarded,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// It scrapes the agent at `target` each second.
    pub(crate) fn scraping(target: u16) -> Self {
        Self::with(target, "")
    }

    /// The same with more in its configuration.
    pub(crate) fn with(target: u16, more: &str) -> Self {
        Self::with_job("", target, more)
    }

    /// The same with more in the job: how it scrapes.
    pub(crate) fn with_job(job: &str, target: u16, more: &str) -> Self {
        let (port, directory) = (scratch::free_port(), scratch::directory());
        let file = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             scrape_configs: [{{ job_name: proxytrace, static_configs: [{{ targets: ['127.0.0.1:{target}'] }}], {job} }}]\n{more}"
        );
        fs::write(file("prometheus.yml"), config).expect("configure Prometheus");
        let process = Guarded::spawn(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file("prometheus.yml")))
                .arg(format!("--storage.tsdb.path={}", file("data")))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        Self { port, _process: process, _directory: directory }
    }

    /// Asks until the result is good, which takes a scrape.
    pub(crate) fn asks_until(&self, query: &str, good: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        wait::until(query, wait::SOON * 3, || self.result(query).filter(|result| good(result)))
    }

    /// What it answers now; `None` while it starts, or to what is no query.
    pub(crate) fn result(&self, query: &str) -> Option<Vec<Value>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        http::ask(&mut stream, &format!("/api/v1/query?query={}", percent_encoded(query)), &[]);
        let answer = http::answer(&mut stream);
        let answer: Value =
            (answer.status == 200).then(|| serde_json::from_str(&answer.body))?.expect("JSON");
        answer["data"]["result"].as_array().cloned()
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
