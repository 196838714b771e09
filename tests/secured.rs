//! TLS, certificates of clients and passwords, as a file of --web-config asks for them.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use proxytrace_tests::child::run;
use proxytrace_tests::metrics::Metrics;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{self, Agent};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{scratch, skip};
use tempfile::TempDir;

use crate::prometheus::Prometheus;

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

/// What bcrypt makes of the passwords, at cost 10.
pub(crate) const HUNTER2: &str = "$2b$10$abcdefghijklmnopqrstuu7gIUFBKrYXdzQy8HrouzMJyZ4cijAb2";
const HUNTER3: &str = "$2b$10$abcdefghijklmnopqrstuuDafxB4RMg169XlPokWy7WKwUZcEheh6";

const SUCCESSFUL: &str = "proxytrace_agent_config_last_reload_successful";

#[test]
fn the_real_prometheus_scrapes_by_tls_with_a_password_and_nobody_else_reads_anything() {
    if !are_installed(&["openssl", "curl", "prometheus"]) {
        return;
    }
    let files = WebFiles::new();
    files.certificate("ca", None);
    files.certificate("server", Some("ca"));
    files.write(&format!("{TLS}basic_auth_users: {{alice: {HUNTER2}}}\n"));
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let agent = Agent::secured(&["--process", nginx.name(), "--web-config", &files.path("web.yml")]);
    assert_eq!(nginx.get("/"), 502);

    let more = format!(
        "scheme: https, tls_config: {{ca_file: '{}'}}, basic_auth: {{username: alice, password: hunter2}}",
        files.path("ca.crt")
    );
    let prometheus = Prometheus::with_job(&more, agent.port(), "");
    let failures = format!("proxytrace_connect_failures_total{{proxy=\"{}\"}} == 1", nginx.name());
    let failed = prometheus.asks_until(&failures, |result| !result.is_empty());
    assert_eq!(failed[0]["metric"]["cause"], "refused");

    let client = files.client(agent.port(), "ca");
    for (path, user, status) in [
        ("/metrics", "", 401),
        ("/metrics", "alice:hunter3", 401),
        ("/metrics", "bob:hunter2", 401),
        ("/routes", "", 401),
        ("/", "", 401),
        ("/x", "", 401),
        ("/healthz", "", 200),
        ("/readyz", "alice:hunter3", 200),
        ("/metrics", "alice:hunter2", 200),
        ("/routes", "alice:hunter2", 200),
    ] {
        assert_eq!(client.status(path, user), status, "{path} {user:?}");
    }
    assert!(agent.stderr().contains("protected by TLS and passwords"));
    // A client that begins a handshake and goes no further keeps nobody waiting.
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(("127.0.0.1", agent.port()))).collect();
    assert_eq!(client.status("/readyz", ""), 200);
    assert!(silent.iter().all(Result::is_ok));
    // And who speaks no TLS gets nothing.
    assert_eq!(Client { scheme: "http", ..files.client(agent.port(), "ca") }.status("/metrics", ""), 0);
    agent.stop();
}

#[test]
fn new_certificates_and_passwords_are_taken_when_files_change_and_bad_ones_are_not() {
    if !are_installed(&["openssl", "curl"]) {
        return;
    }
    let files = WebFiles::new();
    for ca in ["ca", "other"] {
        files.certificate(ca, None);
    }
    files.certificate("server", Some("ca"));
    files.write(&format!("{TLS}basic_auth_users: {{alice: {HUNTER2}}}\n"));
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let agent = Agent::secured(&["--process", nginx.name(), "--web-config", &files.path("web.yml")]);
    let (client, other) = (files.client(agent.port(), "ca"), files.client(agent.port(), "other"));
    let attempts = |client: &Client, user: &str| {
        Metrics::parse(&client.get("/metrics", user).1).account(nginx.name(), ADDRESS).attempts
    };
    assert_eq!(nginx.get("/"), 502);
    wait::until_true("the attempt to be counted", SOON, || attempts(&client, "alice:hunter2") == 1);
    assert_eq!(other.status("/healthz", ""), 0, "signed by another");

    // A key that does not fit is what one sees between the two files of a renewal.
    let kept = fs::read(files.path("server.crt")).expect("read a certificate");
    files.certificate("server", Some("other"));
    let renewed = fs::read(files.path("server.crt")).expect("read a certificate");
    fs::write(files.path("server.crt"), "no certificate").expect("spoil a certificate");
    let successful =
        |client: &Client| Metrics::parse(&client.get("/metrics", "alice:hunter2").1).count(SUCCESSFUL, &[]);
    wait::until_true("the metric to say so", SOON, || successful(&client) == 0);
    assert!(agent.stderr().contains("server.crt: no certificate (PEM) in it"), "{}", agent.stderr());
    fs::write(files.path("server.crt"), kept).expect("write a certificate");
    wait::until_true("a key that does not fit to be said", SOON, || agent.stderr().contains("server.key: "));
    fs::write(files.path("server.crt"), renewed).expect("write a certificate");
    wait::until_true("the new certificate to be taken", SOON, || other.status("/healthz", "") == 200);
    assert_eq!(client.status("/healthz", ""), 0);
    assert_eq!(successful(&other), 1);

    // The old password is known by then, and does not count any more.
    files.write(&format!("{TLS}basic_auth_users: {{alice: {HUNTER3}}}\n"));
    agent.signal(Signal::SIGHUP);
    wait::until_true("the new password to be taken", SOON, || other.status("/", "alice:hunter3") == 200);
    assert_eq!(other.status("/", "alice:hunter2"), 401);
    assert_eq!(nginx.get("/"), 502);
    wait::until_true("no count to be lost", SOON, || attempts(&other, "alice:hunter3") == 2);
    agent.stop();
}

#[test]
fn where_certificates_of_clients_are_required_nobody_else_connects_but_probes_on_this_host() {
    if !are_installed(&["openssl", "curl"]) {
        return;
    }
    let files = WebFiles::new();
    for ca in ["ca", "other"] {
        files.certificate(ca, None);
    }
    for (name, ca) in [("server", "ca"), ("client", "ca"), ("stranger", "other")] {
        files.certificate(name, Some(ca));
    }
    let required = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    files.write(&format!("{TLS}{required}"));
    let stage = Stage::new(Family::V4);
    let port = scratch::free_port();
    let listen = format!("10.0.0.1:{port}");
    let config = files.path("web.yml");
    // On the proxy's host: the start waits until a probe says that it is ready.
    let agent = stage
        .proxy
        .enter(|| Agent::secured_at(&listen, port, &["--process", "nobody-at-all", "--web-config", &config]));

    let client = |certificate| Client { host: "10.0.0.1", certificate, ..files.client(port, "ca") };
    let from_far = |certificate, path| stage.upstream.enter(|| client(certificate).status(path, ""));
    assert_eq!(from_far(Some("client"), "/metrics"), 200);
    assert_eq!(from_far(Some("client"), "/readyz"), 200);
    for stranger in [None, Some("stranger")] {
        assert_eq!(from_far(stranger, "/metrics"), 0, "{stranger:?}");
        assert_eq!(from_far(stranger, "/healthz"), 0, "{stranger:?}");
    }
    let from_here = |certificate, path| stage.proxy.enter(|| client(certificate).status(path, ""));
    assert_eq!(from_here(None, "/readyz"), 200);
    assert_eq!(from_here(None, "/metrics"), 403);
    assert_eq!(from_here(Some("client"), "/metrics"), 200);
    assert_eq!(from_here(Some("stranger"), "/readyz"), 0);

    // Whoever takes the protection away hears it.
    assert!(!agent.stderr().contains("whoever reaches"), "{}", agent.stderr());
    files.write("# nothing\n");
    agent.signal(Signal::SIGHUP);
    let warning = format!("whoever reaches {listen} can read the metrics");
    wait::until_true("it to be said", SOON, || agent.stderr().contains(&warning));
    files.write(TLS);
    wait::until_true("it to be back", SOON, || agent.stderr().contains("protected by TLS, and no password"));
    agent.stop();
}

#[test]
fn what_is_not_supported_of_the_format_is_refused_by_name() {
    if !are_installed(&["openssl"]) {
        return;
    }
    let files = WebFiles::new();
    files.certificate("ca", None);
    files.certificate("server", Some("ca"));
    let check = |text: &str| {
        files.write(text);
        let arguments = ["agent", "--check-config", "--web-config", &files.path("web.yml")];
        let output = proxytrace::command().args(arguments).output().expect("run proxytrace");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(TLS).0, Some(0));
    for (more, expected) in [
        ("  client_allowed_sans: [a]\n", "web.yml: tls_server_config.client_allowed_sans is not supported"),
        ("  min_versoin: TLS13\n", "unknown key tls_server_config.min_versoin; did you mean min_version?"),
        ("rate_limit: {interval: 1s}\n", "web.yml: rate_limit is not supported"),
        ("basic_auth_users: {alice: hunter2}\n", "alice: not a bcrypt hash"),
        (
            "  client_ca_file: nothing.crt\n  client_auth_type: VerifyClientCertIfGiven\n",
            "nothing.crt: No such",
        ),
    ] {
        let (code, stderr) = check(&format!("{TLS}{more}"));
        assert_eq!(code, Some(2), "{more}: {stderr}");
        assert!(stderr.contains(expected), "{more}: {stderr}");
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

#[track_caller]
fn are_installed(programs: &[&str]) -> bool {
    programs.iter().all(|program| skip::unless_installed(program))
}

/// A file of --web-config and what it names.
struct WebFiles(TempDir);

impl WebFiles {
    fn new() -> Self {
        Self(scratch::directory())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, text: &str) {
        fs::write(self.path("web.yml"), text).expect("write a configuration");
    }

    /// `NAME.crt` and `NAME.key`, signed by a CA of that name or by itself. The key comes first, as certbot does it.
    #[track_caller]
    fn certificate(&self, name: &str, ca: Option<&str>) {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-days", "2", "-subj", &format!("/CN={name}")]);
        match ca {
            None => command.args(["-addext", "keyUsage=critical,keyCertSign"]),
            Some(ca) => command
                .args(["-CA", &self.path(&format!("{ca}.crt")), "-CAkey", &self.path(&format!("{ca}.key"))])
                .args(["-addext", "subjectAltName=IP:127.0.0.1,IP:10.0.0.1"])
                .args(["-addext", "basicConstraints=critical,CA:false"])
                .args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]),
        };
        let [key, certificate] = ["key", "crt"].map(|kind| self.path(&format!("{name}.{kind}")));
        run(command.args(["-keyout", &key, "-out", &certificate]));
    }

    /// Somebody who trusts that CA.
    fn client(&self, port: u16, ca: &str) -> Client {
        Client {
            scheme: "https",
            host: "127.0.0.1",
            port,
            directory: self.0.path().to_owned(),
            ca: ca.to_owned(),
            certificate: None,
        }
    }
}

/// curl.
struct Client {
    scheme: &'static str,
    host: &'static str,
    port: u16,
    directory: PathBuf,
    ca: String,
    certificate: Option<&'static str>,
}

impl Client {
    /// The status, 0 where there is no answer, and the body.
    fn get(&self, path: &str, user: &str) -> (u16, String) {
        let in_directory = |name: &str| Path::new(&self.directory).join(name);
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}"]);
        command.arg("--cacert").arg(in_directory(&format!("{}.crt", self.ca)));
        if let Some(name) = self.certificate {
            command.arg("--cert").arg(in_directory(&format!("{name}.crt")));
            command.arg("--key").arg(in_directory(&format!("{name}.key")));
        }
        if !user.is_empty() {
            command.args(["--user", user]);
        }
        let url = format!("{}://{}:{}{path}", self.scheme, self.host, self.port);
        let output = command.arg(url).output().expect("run curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').expect("a status");
        (status.parse().expect("a status"), body.to_owned())
    }

    fn status(&self, path: &str, user: &str) -> u16 {
        self.get(path, user).0
    }
}
