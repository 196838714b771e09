//! What is wrong is found and named, soon; it goes when the contrary is seen; and what is healthy raises nothing.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner, full_backlog};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to, server};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};

/// A finding is raised within 250 ms of what proves it, on a machine that has time for it.
const RAISED: Duration = Duration::from_millis(250);

const BEFORE: &str = "127.0.0.1:8080";
const AFTER: &str = "127.0.0.1:8081";

/// nginx in front of a service, with `trace` and `agent`.
struct Scene {
    netns: Netns,
    backend: Option<Backend>,
    nginx: Nginx,
    trace: Trace,
    agent: Agent,
}

impl Scene {
    fn begin(manner: Manner, http: &str) -> Self {
        Self::with(manner, http, &[])
    }

    /// `trace` and `agent` get more arguments.
    fn with(manner: Manner, http: &str, more: &[&str]) -> Self {
        let netns = Netns::new();
        let backend = Some(Backend::start(&netns, BEFORE, manner));
        let nginx = Nginx::start(&netns, http);
        let arguments = [&["--process", nginx.name()], more].concat();
        let (trace, agent) = (Trace::start(&arguments), Agent::start(&arguments));
        Self { netns, backend, nginx, trace, agent }
    }

    fn gets(&self, times: u64, status: u16) {
        for _ in 0..times {
            assert_eq!(self.nginx.get("/"), status, "nginx says: {}", self.nginx.error_log());
        }
    }

    /// What came before is not mixed up with what comes: within one look the order is not known.
    fn looked_at(&self) {
        thread::sleep(Duration::from_millis(500));
    }

    /// The next finding is this, and the agent tells it too.
    #[track_caller]
    fn raised(&self, kind: &str, address: &str) -> Record {
        let record = self.trace.next_among(&["finding"]);
        let told = (&*record.finding, &*record.state, &*record.address, &*record.proxy);
        assert_eq!(told, (kind, "raised", address, self.nginx.name()), "{record:?}");
        self.stands(kind, 1);
        let page: serde_json::Value = serde_json::from_str(&self.agent.get("/findings").body).expect("JSON");
        let finding = page.as_array().expect("a list").iter().find(|finding| finding["finding"] == kind);
        let sentence = finding.and_then(|finding| finding["sentence"].as_str()).unwrap_or_default();
        assert!(sentence.starts_with(&format!("{kind}: ")), "{page}");
        wait::until_true("the agent's log to tell it", SOON, || {
            self.agent.stderr().contains(&format!("finding: {kind}: "))
        });
        record
    }

    #[track_caller]
    fn cleared(&self, kind: &str) {
        let record = self.trace.next_among(&["finding"]);
        assert_eq!((&*record.finding, &*record.state), (kind, "cleared"), "{record:?}");
        self.stands(kind, 0);
    }

    #[track_caller]
    fn stands(&self, kind: &str, times: u64) {
        let labels = [("proxy", self.nginx.name()), ("kind", kind)];
        wait::until_true(&format!("{kind} to stand {times} times"), SOON, || {
            self.agent.metrics().count("proxytrace_finding_active", &labels) == times
        });
    }

    /// No finding came, from the start until now.
    #[track_caller]
    fn end_quiet(self) {
        assert_eq!(self.agent.get("/findings").body, "[]");
        assert!(!self.agent.stderr().contains("finding:"), "{}", self.agent.stderr());
        let ended = self.trace.stop();
        let findings: Vec<_> = ended.records.iter().filter(|record| record.kind == "finding").collect();
        assert!(findings.is_empty(), "{findings:#?}");
        self.agent.stop();
    }
}

fn api(address: &str) -> String {
    format!(
        "upstream api {{\nserver {address};\n}} {}",
        server("location / { proxy_pass http://api; proxy_next_upstream off; }")
    )
}

#[test]
fn a_reload_with_the_wrong_port_is_named_with_both_addresses_until_it_is_corrected() {
    let scene = Scene::begin(Manner::AnswerAndClose, &api(BEFORE));
    scene.gets(12, 200);

    scene.nginx.reload(&api(AFTER));
    let failed = Instant::now();
    scene.gets(1, 502);
    let record = scene.trace.next_among(&["finding"]);
    let took = failed.elapsed();
    println!("misrouted {took:?} after the first request that failed");
    assert!(took < patient(RAISED), "{took:?}");
    let told = (&*record.finding, &*record.state, &*record.upstream, &*record.address);
    assert_eq!(told, ("misrouted", "raised", "api", AFTER), "{record:?}");
    let place = record.place.expect("the line that is to blame");
    assert!(place.contains("nginx.conf:"), "{place}");
    scene.stands("misrouted", 1);
    let page = scene.agent.get("/findings").body;
    assert!(page.contains(BEFORE) && page.contains(AFTER) && page.contains(&place), "{page}");

    scene.nginx.reload(&api(BEFORE));
    scene.gets(1, 200);
    scene.cleared("misrouted");
    assert_eq!(scene.agent.stderr().matches("finding:").count(), 1, "{}", scene.agent.stderr());
}

#[test]
fn an_upstream_that_dies_is_down_until_it_answers_again() {
    let mut scene = Scene::begin(Manner::AnswerAndClose, &api(BEFORE));
    scene.gets(12, 200);
    scene.looked_at();
    scene.backend = None;
    scene.gets(10, 502);
    scene.raised("upstream_down", "");
    scene.backend = Some(Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose));
    // nginx leaves it alone for fail_timeout only where there are several.
    scene.gets(3, 200);
    scene.cleared("upstream_down");
}

#[test]
fn a_service_that_closes_unanswered_is_the_wrong_one() {
    let scene = Scene::begin(Manner::CloseUnanswered, &api(BEFORE));
    // A service that crashes takes what is open with it at once; a wrong one goes on.
    for _ in 0..8 {
        scene.gets(1, 502);
        thread::sleep(Duration::from_millis(250));
    }
    scene.raised("wrong_service", BEFORE);
}

#[test]
fn a_firewall_that_drops_is_a_black_hole_until_something_answers() {
    let scene = Scene::begin(Manner::AnswerAndClose, &api(BEFORE));
    scene.gets(12, 200);
    scene.looked_at();
    scene.netns.firewall("tcp dport 8080 drop");
    let clients: Vec<_> = (0..4).map(|_| scene.nginx.begin("/")).collect();
    let began = Instant::now();
    scene.raised("black_hole", BEFORE);
    println!("black_hole {:?} after the first connect", began.elapsed());
    drop(clients);
    scene.netns.firewall("");
    scene.gets(1, 200);
    scene.cleared("black_hole");
}

#[test]
fn a_destination_that_no_line_names_is_undeclared() {
    let directory = scratch::directory();
    let other = directory.path().join("other.conf");
    fs::write(&other, "events {} http { server { location / { proxy_pass http://127.0.0.1:9; } } }")
        .expect("write a configuration");
    let path = other.display().to_string();
    let scene = Scene::with(Manner::AnswerAndClose, &api(BEFORE), &["--nginx-config", &path]);
    scene.gets(5, 200);
    scene.raised("undeclared_destination", BEFORE);
}

#[test]
fn an_upstream_that_a_reload_has_cut_off_is_silent() {
    let both = |api: &str| {
        format!(
            "upstream api {{ server {BEFORE}; }} upstream web {{ server {AFTER}; }} {}",
            server(&format!(
                "location /api {{ proxy_pass http://{api}; }} location / {{ proxy_pass http://web; }}"
            ))
        )
    };
    let scene = Scene::begin(Manner::AnswerAndClose, &both("api"));
    let _web = Backend::start(&scene.netns, AFTER, Manner::AnswerAndClose);
    // That it was in steady use takes three steps of 10 s to show.
    let steady = Instant::now();
    while steady.elapsed() < Duration::from_secs(32) {
        assert_eq!(scene.nginx.get("/api"), 200);
        scene.gets(1, 200);
        thread::sleep(Duration::from_millis(50));
    }
    let _ = scene.nginx.reload(&both("web"));
    let began = Instant::now();
    let silent = loop {
        assert_eq!(scene.nginx.get("/api"), 200);
        if let Some(record) =
            scene.trace.within(Duration::from_millis(50)).filter(|record| record.kind == "finding")
        {
            break record;
        }
        assert!(began.elapsed() < patient(SOON * 3), "no finding in {:?}", began.elapsed());
    };
    assert_eq!((&*silent.finding, &*silent.upstream), ("silent_upstream", "api"), "{silent:?}");
}

#[test]
fn local_ports_that_are_used_up_are_a_finding() {
    let scene = Scene::begin(Manner::AnswerAndClose, &api(BEFORE));
    scene.netns.sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    let _held = [40000, 40001]
        .map(|port| scene.netns.enter(|| TcpListener::bind(("127.0.0.1", port)).expect("hold a port")));
    for _ in 0..6 {
        let _ = scene.nginx.get("/");
    }
    scene.raised("ports_exhausted", BEFORE);
}

#[test]
fn a_socket_that_the_workers_may_not_use_is_denied() {
    let directory = scratch::directory();
    let path = directory.path().join("app.sock");
    let _listener = UnixListener::bind(&path).expect("listen");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("close it to the workers");
    let address = format!("unix:{}", path.display());
    let scene = Scene::begin(Manner::AnswerAndClose, &proxy_to(&address, ""));
    scene.gets(6, 502);
    scene.raised("denied", &address);
}

#[test]
fn a_listener_that_accepts_nothing_has_a_full_backlog() {
    let directory = scratch::directory();
    let path = directory.path().join("app.sock");
    let _full = full_backlog(&path);
    let address = format!("unix:{}", path.display());
    let scene = Scene::begin(Manner::AnswerAndClose, &proxy_to(&address, ""));
    scene.gets(6, 502);
    scene.raised("backlog_full", &address);
}

#[test]
fn a_rejected_reload_stands_until_one_is_accepted() {
    let scene = Scene::begin(Manner::AnswerAndClose, &api(BEFORE));
    scene.gets(3, 200);
    scene.nginx.configure("no_such_directive on;");
    scene.nginx.signal(Signal::SIGHUP);
    let reload = scene.trace.next_among(&["reload"]);
    let reason = format!("unknown directive \"no_such_directive\" in {}:7", scene.nginx.config_path());
    assert_eq!(reload.reason, reason, "{reload:?}");
    scene.raised("reload_rejected", "");
    assert!(scene.agent.stderr().contains(&format!("nginx says: {reason}.")), "{}", scene.agent.stderr());
    scene.nginx.reload(&api(BEFORE));
    scene.cleared("reload_rejected");
}

#[test]
fn reloads_without_change_and_scaling_raise_nothing() {
    let scene = Scene::begin(Manner::AnswerAndClose, &api(BEFORE));
    let other = Backend::start(&scene.netns, AFTER, Manner::AnswerAndClose);
    scene.gets(5, 200);
    for http in [api(BEFORE), api(&format!("{BEFORE}; server {AFTER}")), api(BEFORE)] {
        scene.nginx.reload(&http);
        scene.gets(6, 200);
    }
    drop(other);
    scene.end_quiet();
}

#[test]
fn restarts_one_after_the_other_behind_next_upstream_raise_nothing() {
    let http = format!(
        "upstream api {{ server {BEFORE} max_fails=1 fail_timeout=1s; server {AFTER} max_fails=1 fail_timeout=1s; }} {}",
        server("location / { proxy_pass http://api; proxy_next_upstream error; }")
    );
    let mut scene = Scene::begin(Manner::AnswerAndClose, &http);
    let mut other = Some(Backend::start(&scene.netns, AFTER, Manner::AnswerAndClose));
    for _ in 0..2 {
        scene.gets(20, 200);
        scene.backend = None;
        scene.gets(20, 200);
        scene.backend = Some(Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose));
        // nginx counts fail_timeout in whole seconds, and asks a peer again after them.
        thread::sleep(Duration::from_millis(2500));
        scene.gets(20, 200);
        other.take();
        scene.gets(20, 200);
        other = Some(Backend::start(&scene.netns, AFTER, Manner::AnswerAndClose));
        thread::sleep(Duration::from_millis(2500));
    }
    scene.end_quiet();
}

#[test]
fn connections_that_are_kept_and_then_closed_raise_nothing() {
    let http = format!(
        "upstream api {{ server {BEFORE}; keepalive 4; }} {}",
        server(
            "location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ''; }"
        )
    );
    let mut scene = Scene::begin(Manner::Answer, &http);
    for _ in 0..3 {
        scene.gets(10, 200);
        // It goes with the connections that nginx keeps, and comes back.
        scene.backend = None;
        thread::sleep(Duration::from_millis(300));
        scene.backend = Some(Backend::start(&scene.netns, BEFORE, Manner::Answer));
    }
    scene.gets(10, 200);
    scene.looked_at();
    scene.end_quiet();
}

#[test]
fn clients_that_leave_raise_nothing() {
    let scene = Scene::begin(Manner::HoldThenClose, &api(BEFORE));
    for _ in 0..10 {
        drop(scene.nginx.begin("/"));
    }
    // A look more than once a second.
    thread::sleep(Duration::from_millis(1500));
    scene.end_quiet();
}
