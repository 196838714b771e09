//! Names that stand for other addresses than a look-up of ours says, or did: what nginx connects to is theirs all the same, and where nginx
//! goes on with an address that a name has no more, that is said.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::name_server::{Says, ScriptedServer};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};
use tempfile::TempDir;

use crate::names::named;

/// An nginx that looks names up once, at a name server of the story's or in its own /etc/hosts.
fn with_own_names(netns: &Netns, hosts: &str, http: &str) -> Nginx {
    let mut nginx = Nginx::prepare(Options { own_names: true, ..Options::default() }, http);
    nginx.set_hosts(hosts);
    nginx.launch(netns);
    nginx
}

/// A server that goes to `host` at port 8081.
fn to(host: &str) -> String {
    server(&format!("location / {{ proxy_pass http://{host}:8081; }}"))
}

/// The next finding that comes or goes of that kind, and all that came before it.
#[track_caller]
fn next_finding(trace: &Trace, kind: &str, state: &str) -> Record {
    wait::until(&format!("{kind} {state}"), SOON * 3, || {
        let record = trace.within(Duration::from_millis(200))?;
        (record.finding == kind && record.state == state).then_some(record)
    })
}

#[test]
fn a_name_behind_which_a_balancer_rotates_has_all_its_addresses() {
    let netns = Netns::new();
    let names = ScriptedServer::start(&netns, 53);
    let all = (1..=6).map(|last| [127, 0, 1, last].into()).collect();
    names.say("elb.test", Says::Rotating(all, 2), 5);
    let _backend = Backend::start(&netns, "0.0.0.0:8081", Manner::AnswerAndClose);
    let http = format!("{} {}", "upstream other { server 127.0.0.9:8082; }", to("elb.test"));
    let nginx = with_own_names(&netns, "127.0.0.1 localhost\n", &http);
    let trace = Trace::start(&["--process", nginx.name(), "--all"]);
    for generation in 0..4 {
        for _ in 0..12 {
            assert_eq!(nginx.get("/"), 200);
            let record = trace.next_of("connect");
            named(&record, nginx.name(), generation, "elb.test", &record.address);
        }
        let _ = nginx.reload(&http);
    }
    let ended = trace.stop();
    assert!(ended.records.iter().all(|record| record.finding.is_empty()), "{:?}", ended.records);
    assert!(ended.stderr.contains("127.0.1."), "{}", ended.stderr);
}

#[test]
fn that_a_name_has_moved_is_said_at_once_where_connects_to_the_old_address_fail() {
    let netns = Netns::new();
    let hosts = |last: u8| format!("127.0.0.1 localhost\n127.0.0.{last} api.test\n");
    let new = Backend::start(&netns, "127.0.0.3:8081", Manner::AnswerAndClose);
    let old = Backend::start(&netns, "127.0.0.2:8081", Manner::AnswerAndClose);
    let nginx = with_own_names(&netns, &hosts(2), &to("api.test"));
    let trace = Trace::start(&["--process", nginx.name()]);
    assert_eq!(nginx.get("/"), 200);
    nginx.set_hosts(&hosts(3));
    old.refuse();
    let get = |status: u16| assert_eq!(nginx.get("/"), status);
    let raised = wait::until("stale_name", SOON * 3, || {
        get(502);
        let record = trace.within(Duration::from_millis(200))?;
        (record.finding == "stale_name").then_some(record)
    });
    assert_eq!(
        (&*raised.upstream, &*raised.address, &*raised.severity),
        ("api.test", "127.0.0.2:8081", "info")
    );
    let words = "stale_name: \"api.test\" is 127.0.0.3 now, nginx still uses 127.0.0.2; a reload fixes it.";
    assert!(raised.sentence.starts_with(words), "{}", raised.sentence);
    assert!(raised.place.is_some_and(|place| place.starts_with(&nginx.config_path())));

    let _ = nginx.reload(&to("api.test"));
    next_finding(&trace, "stale_name", "cleared");
    for _ in 0..5 {
        get(200);
    }
    let ended = trace.stop();
    assert!(ended.records.iter().all(|record| record.finding != "stale_name"), "{:?}", ended.records);
    drop(new);
}

#[test]
fn a_trace_that_began_later_names_what_nginx_uses_and_says_that_the_name_has_moved() {
    let netns = Netns::new();
    let hosts = |last: u8| format!("127.0.0.1 localhost\n127.0.0.{last} api.test\n127.0.0.9 web.test\n");
    let nginx = with_own_names(&netns, &hosts(2), &to("api.test"));
    nginx.set_hosts(&hosts(3));
    let trace = Trace::start(&["--process", nginx.name()]);
    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 0, "api.test", "127.0.0.2:8081");
    next_finding(&trace, "stale_name", "raised");
    let ended = trace.stop();
    assert!(
        ended.records.iter().all(|record| record.finding != "undeclared_destination"),
        "{:?}",
        ended.records
    );
}

#[test]
fn an_address_that_fails_and_is_the_names_still_is_not_stale() {
    let netns = Netns::new();
    let nginx = with_own_names(&netns, "127.0.0.1 localhost\n127.0.0.2 api.test\n", &to("api.test"));
    let trace = Trace::start(&["--process", nginx.name()]);
    for _ in 0..16 {
        assert_eq!(nginx.get("/"), 502);
        thread::sleep(Duration::from_millis(500));
    }
    let findings: Vec<_> = trace
        .stop()
        .records
        .into_iter()
        .map(|record| record.finding)
        .filter(|kind| !kind.is_empty())
        .collect();
    assert_eq!(findings, ["upstream_down"]);
}

/// Names as another configuration has them, for an nginx that goes to the same places: the installed one may be older than what that has.
struct Other {
    directory: TempDir,
}

impl Other {
    fn new(http: &str) -> Self {
        let other = Self { directory: scratch::directory() };
        fs::write(other.path(), format!("http {{ {http} }}")).expect("write a configuration");
        other
    }

    fn path(&self) -> String {
        self.directory.path().join("nginx.conf").display().to_string()
    }
}

/// Asks for a path and gives the record of the connect.
#[track_caller]
fn connect(nginx: &Nginx, trace: &Trace, path: &str) -> Record {
    assert_eq!(nginx.get(path), 502);
    trace.next_of("connect")
}

/// An nginx that goes to both of two addresses at a port.
fn to_both(netns: &Netns) -> Nginx {
    Nginx::start(
        netns,
        &server(
            "location /one { proxy_pass http://127.0.0.61:8081; } location /two { proxy_pass http://127.0.0.62:8081; }",
        ),
    )
}

#[test]
fn each_upstream_asks_its_own_resolver() {
    let netns = Netns::new();
    let [first, second] = [5301, 5302].map(|port| ScriptedServer::start(&netns, port));
    first.is("backend.test", &[[127, 0, 0, 61]]);
    second.say("backend.test", Says::Alias("other.test"), 1);
    second.is("other.test", &[[127, 0, 0, 62]]);
    let other = Other::new(
        "resolver 127.0.0.1:5301;
         upstream one { zone a 256k; server backend.test:8081 resolve; }
         upstream two { zone b 256k; resolver 127.0.0.1:5302; server backend.test:8081 resolve; }",
    );
    let nginx = to_both(&netns);
    let trace = Trace::start(&["--process", nginx.name(), "--nginx-config", &other.path()]);
    wait::until_true("look-ups", SOON, || first.asked("backend.test") > 0 && second.asked("other.test") > 0);
    thread::sleep(wait::patient(Duration::from_millis(300)));
    for (path, upstream, address) in [("/one", "one", "127.0.0.61:8081"), ("/two", "two", "127.0.0.62:8081")]
    {
        named(&connect(&nginx, &trace, path), nginx.name(), 0, upstream, address);
    }
    assert_eq!((first.asked("backend.test"), second.asked("backend.test")), (1, 1));
}

#[test]
fn where_a_name_server_fails_at_a_reload_names_are_what_they_were() {
    let netns = Netns::new();
    let names = ScriptedServer::start(&netns, 5301);
    names.is("one.test", &[[127, 0, 0, 61]]);
    names.is("two.test", &[[127, 0, 0, 62]]);
    let other = Other::new(
        "resolver 127.0.0.1:5301;
         upstream one { zone a 256k; server one.test:8081 resolve; } upstream two { zone b 256k; server two.test:8081 resolve; }",
    );
    let nginx = to_both(&netns);
    let trace = Trace::start(&["--process", nginx.name(), "--nginx-config", &other.path()]);
    wait::until_true("look-ups", SOON, || names.asked("one.test") > 0 && names.asked("two.test") > 0);
    thread::sleep(wait::patient(Duration::from_millis(300)));
    named(&connect(&nginx, &trace, "/one"), nginx.name(), 0, "one", "127.0.0.61:8081");
    names.say("one.test", Says::Failure, 1);
    names.say("two.test", Says::Failure, 1);
    thread::sleep(Duration::from_millis(1500));
    let _ = nginx.reload(&server(
        "location /one { proxy_pass http://127.0.0.61:8081; } location /two { proxy_pass http://127.0.0.62:8081; }",
    ));
    named(&connect(&nginx, &trace, "/two"), nginx.name(), 1, "two", "127.0.0.62:8081");
    named(&connect(&nginx, &trace, "/one"), nginx.name(), 1, "one", "127.0.0.61:8081");
    let ended = trace.stop();
    assert!(
        ended.records.iter().all(|record| record.finding != "undeclared_destination"),
        "{:?}",
        ended.records
    );
}

#[test]
fn nobody_is_asked_for_a_name_more_often_than_its_answer_holds_or_at_all_where_that_is_not_wanted() {
    let netns = Netns::new();
    let names = ScriptedServer::start(&netns, 5301);
    names.say("one.test", Says::Addresses(vec![[127, 0, 0, 61].into()]), 60);
    let other =
        Other::new("resolver 127.0.0.1:5301; upstream one { zone a 256k; server one.test:8081 resolve; }");
    let nginx = to_both(&netns);
    let arguments = ["--process", nginx.name(), "--nginx-config", &other.path()];
    let trace = Trace::start(&[&arguments[..], &["--no-resolve"]].concat());
    named(&connect(&nginx, &trace, "/one"), nginx.name(), 0, "one", "127.0.0.61:8081");
    assert_eq!(names.asked("one.test"), 0, "nobody looks names up");
    drop(trace);

    let trace = Trace::start(&arguments);
    for _ in 0..3 {
        named(&connect(&nginx, &trace, "/one"), nginx.name(), 0, "one", "127.0.0.61:8081");
        // Another address at its port: nginx may have got another answer.
        named(&connect(&nginx, &trace, "/two"), nginx.name(), 0, "one", "127.0.0.62:8081");
        thread::sleep(Duration::from_millis(1500));
    }
    assert_eq!(names.asked("one.test"), 1, "its answer holds for a minute");
}

#[test]
fn why_a_reload_was_rejected_is_known_where_nginx_logs_to_no_file() {
    let netns = Netns::new();
    let hosts = |more: &str| format!("127.0.0.1 localhost\n127.0.0.2 api.test\n{more}");
    let http = format!(
        "upstream old {{ server old.test:8082; }} {}",
        server("location / { proxy_pass http://api.test:8081; } location /old { proxy_pass http://old; }")
    );
    let options = Options { own_names: true, error_log: "stderr", ..Options::default() };
    let mut nginx = Nginx::prepare(options, &http);
    nginx.set_hosts(&hosts("127.0.0.3 old.test\n"));
    nginx.launch(&netns);
    // There is nobody to ask for what does not stand in the file.
    let _names = ScriptedServer::start(&netns, 53);
    let trace = Trace::start(&["--process", nginx.name()]);
    let place = format!("{}:", nginx.config_path());
    let rejected = |words: &str| {
        nginx.signal(nix::sys::signal::Signal::SIGHUP);
        let record = trace.next_among(&["reload"]);
        assert_eq!(record.result, "rejected", "{record:?}");
        assert!(record.reason.starts_with(&format!("{words} in {place}")), "{record:?}");
    };
    nginx.set_hosts(&hosts(""));
    rejected("host not found in upstream \"old.test:8082\"");
    nginx.set_hosts(&hosts("127.0.0.3 old.test\n"));
    nginx.configure(&http.replace("old.test:8082", "old.test:88888"));
    rejected("invalid port in upstream \"old.test:88888\"");
}

#[test]
fn another_nginx_that_starts_after_one_of_the_same_name_has_ended_is_another_proxy() {
    let netns = Netns::new();
    let _backend = Backend::start(&netns, "127.0.0.1:8081", Manner::AnswerAndClose);
    let api = |port: u16| {
        format!(
            "upstream api {{ server 127.0.0.1:{port}; }} {}",
            server("location / { proxy_pass http://api; }")
        )
    };
    let nginx = Nginx::start(&netns, &api(8081));
    let trace = Trace::start(&["--process", nginx.name(), "--all"]);
    for _ in 0..12 {
        assert_eq!(nginx.get("/"), 200);
        assert_eq!(trace.next_of("connect").proxy, nginx.name());
    }
    nginx.signal(nix::sys::signal::Signal::SIGQUIT);
    wait::until_true("nginx to end", SOON, || nginx.has_ended());
    thread::sleep(Duration::from_millis(1500));

    nginx.configure(&api(8082));
    let path = nginx.config().with_file_name("other.conf");
    fs::rename(nginx.config(), &path).expect("rename the configuration");
    let _ = fs::remove_file(nginx.config().with_file_name("clients"));
    let mut other = Command::new(nginx.command().get_program());
    other.arg("-p").arg(path.parent().expect("a directory")).arg("-c").arg(&path);
    let _other = netns.spawn(other.stderr(std::process::Stdio::null()));
    let name = format!("{}:{}", nginx.name(), path.display());
    wait::until_true("the other nginx to serve", SOON, || {
        std::os::unix::net::UnixStream::connect(nginx.config().with_file_name("clients")).is_ok()
    });
    for _ in 0..4 {
        assert_eq!(nginx.get("/"), 502);
        named(&trace.next_of("connect"), &name, 0, "api", "127.0.0.1:8082");
    }
    let ended = trace.stop();
    assert!(ended.records.iter().all(|record| record.finding != "misrouted"), "{:?}", ended.records);
}

#[test]
fn an_errand_is_no_proxy() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &to("127.0.0.1"));
    let arguments = ["--process", nginx.name()];
    let (trace, agent) = (Trace::start(&arguments), Agent::start(&arguments));
    let bad = nginx.config().with_file_name("bad.conf");
    fs::write(&bad, "no such thing;").expect("write a configuration");
    for arguments in [&["-V"][..], &["-v"], &["-t", "-c", &bad.display().to_string()], &["-h"]] {
        for _ in 0..3 {
            let program = nginx.command();
            let mut errand = Command::new(program.get_program());
            let _ = netns.enter(|| errand.args(arguments).output().expect("run nginx"));
        }
    }
    wait::for_a_tick();
    let metrics = agent.metrics();
    assert_eq!(metrics.values_of("proxy", "proxytrace_workers", &[]), [nginx.name()]);
    agent.stop();
    let said = trace.stop().stderr;
    assert!(!said.contains("WARN") && !said.contains("bad.conf"), "{said}");
}

#[test]
fn peers_that_only_a_request_names_get_every_finding_and_the_timeout_of_their_route() {
    let netns = Netns::new();
    netns.firewall("tcp dport 8084 drop");
    let _well = Backend::start(&netns, "127.0.0.1:8081", Manner::AnswerAndClose);
    let _silent = Backend::start(&netns, "127.0.0.1:8083", Manner::CloseUnanswered);
    let nginx = Nginx::start(
        &netns,
        &server("proxy_connect_timeout 1200ms; location / { proxy_pass http://$arg_to; }"),
    );
    let trace = Trace::start(&["--process", nginx.name(), "--all"]);
    let get = |port: u16, status: u16| assert_eq!(nginx.get(&format!("/?to=127.0.0.1:{port}")), status);
    get(8081, 200);
    // Its configuration is read by then.
    named(&trace.next_of("connect"), nginx.name(), 0, "unknown", "127.0.0.1:8081");
    for _ in 0..4 {
        get(8082, 502);
        get(8083, 502);
        get(8084, 504);
    }
    wait::for_a_tick();
    let records = trace.stop().records;
    let timed_out = |record: &&Record| record.kind == "connect" && record.address.ends_with(":8084");
    let outcomes: Vec<_> = records.iter().filter(timed_out).map(|record| &*record.outcome).collect();
    assert_eq!(outcomes, ["proxy_timeout"; 4], "by the timeout of the route");
    let raised: Vec<_> = records
        .iter()
        .filter(|record| record.state == "raised")
        .map(|record| (&*record.finding, &*record.upstream, &*record.address))
        .collect();
    for expected in [
        ("address_down", "unknown", "127.0.0.1:8082"),
        ("wrong_service", "unknown", "127.0.0.1:8083"),
        ("black_hole", "unknown", "127.0.0.1:8084"),
    ] {
        assert!(raised.contains(&expected), "{expected:?} is none of {raised:?}");
    }
}
