//! What is wrong is found and named, soon, and it goes when the contrary is seen.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner, full_backlog};
use proxytrace_tests::dns::NameServer;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Options, proxy_to, server};
use proxytrace_tests::wait::{self, SOON, patient};
use proxytrace_tests::{scratch, skip};
use serde_json::json;

use crate::lookout::{AFTER, BEFORE, Lookout, api};

/// A finding is raised within 250 ms of what proves it, on a machine that has time for it.
const RAISED: Duration = Duration::from_millis(250);

/// The set with the service that is in use before all else.
fn healthy(http: &str) -> (Lookout, Backend) {
    let scene = Lookout::begin(http);
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    (scene, backend)
}

#[test]
fn a_reload_with_the_wrong_port_is_named_with_both_addresses_until_it_is_corrected() {
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.gets(12, 200);

    scene.nginx.reload(&api(AFTER));
    let failed = Instant::now();
    scene.gets(1, 502);
    let record = scene.trace.next_among(&["finding"]);
    let took = failed.elapsed();
    println!("misrouted {took:?} after the first request that failed");
    assert!(took < patient(RAISED), "{took:?}");
    let reported = (&*record.finding, &*record.state, &*record.upstream, &*record.address);
    assert_eq!(reported, ("misrouted", "raised", "api", AFTER), "{record:?}");
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
fn after_two_bad_reloads_in_a_row_old_workers_are_those_of_neither() {
    const SECOND: &str = "127.0.0.1:8082";
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.gets(12, 200);
    wait::for_a_tick();
    let of_the_good = [(); 2].map(|()| scene.nginx.begin_half("/"));
    scene.nginx.reload(&api(AFTER));
    scene.gets(1, 502);
    scene.raised("misrouted", AFTER);

    let of_the_bad = [(); 3].map(|()| scene.nginx.begin_half("/"));
    scene.nginx.reload(&api(SECOND));
    scene.cleared("misrouted");
    scene.gets(1, 502);
    scene.raised("misrouted", SECOND);
    for half in of_the_bad {
        assert_eq!(half.finish().status, 502);
    }
    for half in of_the_good {
        assert_eq!(half.finish().status, 200);
    }
    wait::for_a_tick();
    scene.nginx.reload(&api(BEFORE));
    scene.gets(1, 200);
    let evidence = scene.cleared("misrouted").evidence;
    let reported = ["from", "failed", "of", "old_workers"].map(|name| evidence[name].clone());
    assert_eq!(
        reported,
        [json!([BEFORE]), json!(1), json!(1), json!({ "failed": 0, "of": 2 })],
        "{evidence}"
    );
}

#[test]
fn an_upstream_that_dies_is_down_until_it_answers_again() {
    let (scene, backend) = healthy(&api(BEFORE));
    scene.gets(12, 200);
    wait::for_a_tick();
    drop(backend);
    scene.gets(10, 502);
    scene.raised("upstream_down", "");
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    // nginx leaves it alone for fail_timeout only where there are several.
    scene.gets(3, 200);
    scene.cleared("upstream_down");
}

/// Both take their time, so they take it together.
#[test]
fn a_dead_peer_of_several_and_an_upstream_that_is_cut_off_are_found_in_the_end() {
    const WEB: &str = "127.0.0.1:8082";
    let http = |web: &str| {
        format!(
            "upstream api {{ server {BEFORE}; server {AFTER} fail_timeout=2s; }} upstream web {{ server {WEB}; }} {}",
            server(&format!(
                "location /web {{ proxy_pass http://{web}; }} location / {{ proxy_pass http://api; }}"
            ))
        )
    };
    let (scene, _backend) = healthy(&http("web"));
    let start = |address| Backend::start(&scene.netns, address, Manner::AnswerAndClose);
    let (peer, _web) = (start(AFTER), start(WEB));
    let ask = || {
        assert_eq!([scene.nginx.get("/"), scene.nginx.get("/web")], [200, 200]);
        thread::sleep(Duration::from_millis(50));
    };
    (0..20).for_each(|_| ask());
    drop(peer);
    let died = Instant::now();
    let record = scene.raised_while(Duration::from_secs(90), "address_down", AFTER, ask);
    let took = died.elapsed();
    assert!(took > Duration::from_secs(60), "a restart may take {took:?}");
    assert_eq!(record.evidence["causes"], json!({ "refused": record.evidence["failed"] }), "{record:?}");

    scene.nginx.reload(&http("api"));
    let record = scene.raised_while(Duration::from_secs(30), "silent_upstream", "", ask);
    assert_eq!((&*record.upstream, &record.evidence["from"]), ("web", &json!([WEB])), "{record:?}");
    scene.nginx.reload(&http("web"));
    ask();
    scene.cleared("silent_upstream");

    scene.stands("address_down", 1);
    let _peer = start(AFTER);
    scene.cleared_while(Duration::from_secs(30), "address_down", ask);
}

#[test]
fn a_service_that_closes_unanswered_is_the_wrong_one_until_one_answers() {
    let scene = Lookout::begin(&api(BEFORE));
    let wrong = Backend::start(&scene.netns, BEFORE, Manner::CloseUnanswered);
    // A service that crashes takes what is open with it at once; a wrong one goes on.
    for _ in 0..8 {
        scene.gets(1, 502);
        thread::sleep(Duration::from_millis(250));
    }
    scene.raised("wrong_service", BEFORE);
    drop(wrong);
    let _right = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(3, 200);
    scene.cleared("wrong_service");
}

#[test]
fn a_firewall_that_drops_is_a_black_hole_until_something_answers() {
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.gets(12, 200);
    wait::for_a_tick();
    scene.netns.firewall("tcp dport 8080 drop");
    let clients: Vec<_> = (0..4).map(|_| scene.nginx.begin("/")).collect();
    let began = Instant::now();
    scene.raised("upstream_down", "");
    scene.raised("black_hole", BEFORE);
    println!("black_hole {:?} after the first connect", began.elapsed());
    drop(clients);
    scene.netns.firewall("");
    scene.gets(1, 200);
    scene.cleared("upstream_down");
    scene.cleared("black_hole");
}

#[test]
fn clients_that_leave_before_a_syn_is_sent_again_show_a_black_hole_as_well() {
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.gets(12, 200);
    wait::for_a_tick();
    scene.netns.firewall("tcp dport 8080 drop");
    let leave = || {
        let client = scene.nginx.begin("/");
        thread::sleep(Duration::from_millis(700));
        drop(client);
    };
    scene.raised_while(Duration::from_secs(10), "upstream_down", "", leave);
    let record = scene.raised("black_hole", BEFORE);
    assert!(record.evidence["given_up"].as_u64() >= Some(3), "{record:?}");
    scene.netns.firewall("");
    scene.gets(1, 200);
    scene.cleared("upstream_down");
    scene.cleared("black_hole");
}

#[test]
fn a_busy_link_makes_connects_slow_until_it_is_free_again() {
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.gets(120, 200);
    wait::for_a_tick();
    // A request and its answer take ten packets. Those of a handshake wait behind those of the requests before.
    scene.netns.tc("qdisc add dev lo root tbf rate 24kbit burst 600 latency 5s");
    scene.gets(20, 200);
    let record = scene.raised("slow_connect", BEFORE);
    let [now, usual] = ["handshake_us", "usual_us"].map(|name| record.evidence[name].as_u64());
    assert!(now > Some(10_000) && now > usual.map(|usual| usual * 4), "{record:?}");
    scene.netns.tc("qdisc del dev lo root");
    scene.gets(1, 200);
    scene.cleared("slow_connect");
}

#[test]
fn a_destination_that_no_line_names_is_undeclared_until_one_does() {
    let directory = scratch::directory();
    let other = directory.path().join("other.conf");
    let names = |address: &str| {
        let conf =
            format!("events {{}} http {{ server {{ location / {{ proxy_pass http://{address}; }} }} }}");
        fs::write(&other, conf).expect("write a configuration");
    };
    names(AFTER);
    let scene = Lookout::with(&api(BEFORE), &["--nginx-config", &other.display().to_string()]);
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(5, 200);
    scene.raised("undeclared_destination", BEFORE);
    names(BEFORE);
    scene.nginx.reload(&api(BEFORE));
    scene.gets(5, 200);
    scene.cleared("undeclared_destination");
}

#[test]
fn local_ports_that_are_used_up_are_a_finding_until_there_are_some() {
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.netns.sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    let held = [40000, 40001]
        .map(|port| scene.netns.enter(|| TcpListener::bind(("127.0.0.1", port)).expect("hold a port")));
    for _ in 0..6 {
        let _ = scene.nginx.get("/");
    }
    scene.raised("ports_exhausted", BEFORE);
    drop(held);
    scene.netns.sysctl("net.ipv4.ip_local_port_range", "40000 50000");
    scene.cleared_while(SOON, "ports_exhausted", || scene.gets(1, 200));
}

#[test]
fn a_socket_that_the_workers_may_not_use_is_denied_until_they_may() {
    let directory = scratch::directory();
    let path = directory.path().join("app.sock");
    let _backend = Backend::unix(&path, Manner::AnswerAndClose);
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).expect("change a file's mode");
    mode(0o600);
    let address = format!("unix:{}", path.display());
    let scene = Lookout::begin(&proxy_to(&address, ""));
    scene.gets(6, 502);
    scene.raised("denied", &address);
    mode(0o666);
    scene.cleared_while(SOON, "denied", || scene.gets(1, 200));
}

#[test]
fn a_listener_that_accepts_nothing_has_a_full_backlog_until_it_does() {
    let directory = scratch::directory();
    let path = directory.path().join("app.sock");
    let full = full_backlog(&path);
    let address = format!("unix:{}", path.display());
    let scene = Lookout::begin(&proxy_to(&address, ""));
    scene.gets(6, 502);
    scene.raised("backlog_full", &address);
    drop(full);
    fs::remove_file(&path).expect("make room for a socket");
    let _backend = Backend::unix(&path, Manner::AnswerAndClose);
    scene.cleared_while(SOON, "backlog_full", || scene.gets(1, 200));
}

/// As far as its files tell: where they cannot be read on, what stands there twice, and a name that does not resolve.
#[test]
fn a_rejected_reload_has_its_reason_where_the_log_cannot_be_read_too() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    for error_log in ["stderr", "syslog:server=127.0.0.1:5514"] {
        let netns = Netns::new();
        let _dns = NameServer::start(&netns, "", &["--local=/invalid/"]);
        let options = Options { error_log, own_names: true, ..Options::default() };
        let scene = Lookout::on(netns, options, &api(BEFORE), &[]);
        let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
        for (mistake, own, by_files) in [
            ("}\n}\n".to_owned(), "unexpected \"}\" in ", Some("its configuration: ")),
            (api(BEFORE) + &api(AFTER), "duplicate upstream \"api\" in ", None),
            (api("nohost.invalid:8080"), "host not found in upstream \"nohost.invalid:8080\" in ", None),
            (
                "upstream api { }".to_owned(),
                "no servers are inside upstream in ",
                Some("upstream \"api\": no server line in "),
            ),
            (
                format!("{} sever {{ }}", api(BEFORE)),
                "unknown directive \"sever\" in ",
                Some("\"sever\", unless a module brings it in "),
            ),
        ] {
            scene.gets(3, 200);
            scene.nginx.configure(&mistake);
            scene.nginx.signal(Signal::SIGHUP);
            scene.raised("reload_rejected", "");
            // Where syslog is set, nginx says some to the file that it has logged to before.
            let own = format!("nginx says: {own}");
            let by_files =
                by_files.map_or_else(|| own.clone(), |words| format!("By its files, nginx refuses {words}"));
            let line = format!("{}:", scene.nginx.config_path());
            // On a host that is busy the reason may be known later than the rejection.
            wait::until_true(&format!("{error_log}: {by_files}"), SOON, || {
                let sentence =
                    scene.standing("reload_rejected")["sentence"].to_string().replace("\\\"", "\"");
                let is_told =
                    sentence.contains(&by_files) || error_log != "stderr" && sentence.contains(&own);
                is_told && sentence.contains(&line)
            });
            scene.nginx.reload(&api(BEFORE));
            scene.cleared("reload_rejected");
        }
    }
}

#[test]
fn a_rejected_reload_stands_until_one_is_accepted() {
    let (scene, _backend) = healthy(&api(BEFORE));
    scene.gets(3, 200);
    scene.nginx.configure("no_such_directive on;");
    scene.nginx.signal(Signal::SIGHUP);
    let reload = scene.trace.next_among(&["reload"]);
    let reason = format!("unknown directive \"no_such_directive\" in {}:", scene.nginx.config_path());
    assert!(reload.reason.starts_with(&reason), "{reload:?}");
    scene.raised("reload_rejected", "");
    assert!(
        scene.agent.stderr().contains(&format!("nginx says: {}.", reload.reason)),
        "{}",
        scene.agent.stderr()
    );
    scene.nginx.reload(&api(BEFORE));
    scene.cleared("reload_rejected");
}
