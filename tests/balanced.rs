//! Where this host sends connects elsewhere than the proxy asked for: they go by what was asked for, as the configuration does.

use std::fs;
use std::process::Stdio;

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::balancer::Balancer;
use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::http::answer;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{self, Agent, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::stage::{Family, Stage};
use serde_json::Value;

use crate::causes::{local_host, over_both_families};
use crate::clients::{CONNECTOR, SENDS_ARE_HOOKED};
use crate::scene::{Expected, Named, Scene, Watch, short_timeout};

over_both_families! {
    a_service_is_named_as_it_is_declared_and_the_record_says_where_it_went,
    a_black_hole_behind_a_service_is_the_services,
    an_address_that_means_this_host_is_named_as_it_is_declared,
    a_service_is_followed_by_its_backend_where_connect_is_not_seen,
    clients_of_a_service_are_counted_by_its_address_however_they_connect,
    a_service_that_is_translated_behind_connect_is_followed_by_its_own_address,
    behind_a_transparent_redirect_every_connect_is_established,
}

/// An address that leads nowhere but for the balancer.
fn service(family: Family) -> String {
    family.address(family.pick("198.51.100.1", "2001:db8:100::1"), 80)
}

/// nginx in front of the service, its timeout in the configuration alone.
fn scene(stage: &Stage, balancer: &Balancer, directives: &str) -> Scene {
    let service = service(stage.family);
    let location = server(&format!("location / {{ proxy_pass http://svc; {directives} }}"));
    let mut scene =
        Scene::with(&stage.proxy, &service, &format!("upstream svc {{ server {service}; }} {location}"));
    scene.watch.named = Named::As("svc");
    balancer.takes(scene.nginx.worker_pids());
    scene
}

fn a_service_is_named_as_it_is_declared_and_the_record_says_where_it_went(family: Family) {
    let stage = Stage::new(family);
    let (service, backend) = (service(family), stage.upstream_address(8080));
    let balancer = Balancer::start(&service, &backend);
    let scene = scene(&stage, &balancer, "");
    let (directory, process) = (scratch::directory(), ["--process", scene.nginx.name()]);
    let file = directory.path().join("recording").display().to_string();
    let recorded = Trace::start(&[&process[..], &["--record", &file]].concat());

    scene.gets(1, 502);
    let refused = Expected::at_once("refused", 111).from(local_host(family));
    let record = scene.watch.saw_next(&service, &refused);
    assert_eq!(record.backend.as_deref(), Some(&*backend), "{record:?}");
    let record = recorded.next_of("connect");
    assert_eq!((&*record.address, record.backend.as_deref()), (&*service, Some(&*backend)), "{record:?}");
    assert!(recorded.stop().status.success());

    let closes = Backend::start(&stage.upstream, &backend, Manner::CloseUnanswered);
    scene.gets(1, 502);
    let record =
        scene.watch.saw_next(&service, &Expected::at_once("established", 0).from(local_host(family)));
    assert_eq!(record.backend.as_deref(), Some(&*backend), "{record:?}");
    let record = scene.watch.trace.next_of("broken");
    let reported = (&*record.upstream, &*record.address, record.backend.as_deref());
    assert_eq!(reported, ("svc", &*service, Some(&*backend)), "{record:?}");
    drop(closes);

    let labels = [("proxy", scene.nginx.name())];
    let metrics = scene.watch.agent.metrics();
    assert_eq!(metrics.values_of("upstream", "proxytrace_connect_attempts_total", &labels), ["svc"]);
    assert_eq!(metrics.addresses(scene.nginx.name()), [&*service]);
    let findings = scene.watch.agent.get("/findings").body;
    let findings: Value = serde_json::from_str(&findings).expect("JSON");
    assert!(!findings.to_string().contains("undeclared"), "{findings}");

    let replay = proxytrace::command()
        .args(["replay", &file])
        .stdin(Stdio::null())
        .output()
        .expect("replay what was recorded");
    let shown = String::from_utf8_lossy(&replay.stdout);
    let words = format!("; this host sent it on to {backend}");
    assert!(shown.lines().any(|line| line.contains(&service) && line.ends_with(&words)), "{shown}");
    assert!(fs::read_to_string(&file).expect("the recording").contains(&format!(r#""backend":"{backend}""#)));
    scene.end();
}

fn a_black_hole_behind_a_service_is_the_services(family: Family) {
    let stage = Stage::new(family);
    stage.upstream.firewall("tcp dport 8080 drop");
    let (service, backend, timeout) = (service(family), stage.upstream_address(8080), short_timeout());
    let balancer = Balancer::start(&service, &backend);
    let location = format!("location / {{ proxy_pass http://svc; {} }}", timeout.directive());
    let nginx =
        Nginx::start(&stage.proxy, &format!("upstream svc {{ server {service}; }} {}", server(&location)));
    balancer.takes(nginx.worker_pids());
    // Only the configuration has the timeout.
    let mut watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    watch.named = Named::As("svc");

    let mut client = nginx.begin("/");
    let stalled = watch.trace.next_of("stalled");
    let reported = (&*stalled.upstream, &*stalled.address, stalled.backend.as_deref());
    assert_eq!(reported, ("svc", &*service, Some(&*backend)), "{stalled:?}");
    assert_eq!(answer(&mut client).status, 504);

    let resent = stage.retransmits();
    let expected = Expected::at_once("proxy_timeout", 0)
        .from(local_host(family))
        .after(timeout.least(), resent..=resent);
    let record = watch.trace.next_of("connect");
    watch.check(&record, &service, &expected);
    assert_eq!(record.backend.as_deref(), Some(&*backend), "{record:?}");
    watch.counted(&service, &expected.account(1));
    watch.end();
}

fn an_address_that_means_this_host_is_named_as_it_is_declared(family: Family) {
    let (netns, port) = (Netns::new(), 8080);
    let asked = family.address(family.pick("0.0.0.0", "::"), port);
    let meant = family.address(family.pick("127.0.0.1", "::1"), port);
    let _upstream = Backend::start(&netns, &meant, Manner::Answer);
    let location = server("location / { proxy_pass http://any; }");
    let mut scene = Scene::with(&netns, &asked, &format!("upstream any {{ server {asked}; }} {location}"));
    scene.watch.named = Named::As("any");

    scene.gets(3, 200);

    let local = family.pick("127.0.0.1:", "[::1]:");
    for record in scene.watch.saw(&asked, 3, &Expected::at_once("established", 0).from(local)) {
        assert_eq!(record.backend.as_deref(), Some(&*meant), "{record:?}");
    }
    scene.end();
}

fn a_service_is_followed_by_its_backend_where_connect_is_not_seen(family: Family) {
    let stage = Stage::new(family);
    let (service, backend) = (service(family), stage.upstream_address(8080));
    let balancer = Balancer::start(&service, &backend);
    let client = Client::start(CONNECTOR, &stage.proxy, &Plan::simple(&[&service], How::Blocking, 3));
    balancer.takes([client.pid()]);
    let agent = Agent::start(&["--process", client.name(), "--hook-via", "connect=none"]);

    client.go();
    let name = client.name().to_owned();
    let truth = client.finish();

    assert!(truth.has(&service, "refused"), "{truth:?}");
    crate::scene::counted(&agent, &name, &backend, &Expected::at_once("refused", 111).account(3));
    assert_eq!(agent.metrics().addresses(&name), [&*backend]);
    agent.stop();
}

fn clients_of_a_service_are_counted_by_its_address_however_they_connect(family: Family) {
    let waiting = [How::Blocking, How::Polled, How::AskedTwice, How::Multipath, How::FastOpen];
    let sending = [How::FastOpenSend];
    // Options, ways to connect, what the firewall of the backend's host does, and whether somebody listens there.
    let rows = [
        (&[][..], &waiting[..], "", true),
        (&[], &waiting, "", false),
        (&SENDS_ARE_HOOKED, &sending, "", true),
        (&SENDS_ARE_HOOKED, &sending, "", false),
        (&[], &[How::Abandoned, How::Impatient], "tcp dport 8080 drop", false),
    ];
    let stage = Stage::new(family);
    let (service, backend) = (service(family), stage.upstream_address(8080));
    let balancer = Balancer::start(&service, &backend);
    for (options, ways, firewall, is_there) in rows {
        stage.upstream.firewall(firewall);
        let _upstream = is_there.then(|| Backend::start(&stage.upstream, &backend, Manner::Answer));
        let steps = ways.iter().flat_map(|how| Step::each(&[&service], *how, 2)).collect();
        let plan = Plan { processes: 1, fork_every: 0, steps };
        let client = Client::start(CONNECTOR, &stage.proxy, &plan);
        balancer.takes([client.pid()]);
        let watch = Watch::begin(&[options, &["--process", client.name()]].concat(), client.name());

        client.go();
        let truth = client.finish();

        assert_eq!(truth.attempts(), 2 * ways.len() as u64, "{ways:?}: {truth:?}");
        watch.agrees_with(&truth);
        watch.end();
    }
}

/// nginx in front of the service, whose packets are sent elsewhere by `rule`, as kube-proxy's or Istio's.
fn translated(stage: &Stage, rule: &str) -> Scene {
    let (service, host) =
        (service(stage.family), stage.family.pick("198.51.100.1/32", "2001:db8:100::1/128"));
    stage.proxy.ip(&format!("route add {host} dev eth0"));
    stage.proxy.translate(&format!("tcp dport 80 {rule}"));
    let location = server("location / { proxy_pass http://svc; }");
    let mut scene =
        Scene::with(&stage.proxy, &service, &format!("upstream svc {{ server {service}; }} {location}"));
    scene.watch.named = Named::As("svc");
    scene
}

fn a_service_that_is_translated_behind_connect_is_followed_by_its_own_address(family: Family) {
    let stage = Stage::new(family);
    let (service, backend) = (service(family), stage.upstream_address(8080));
    let scene = translated(&stage, &format!("dnat {} to {backend}", family.pick("ip", "ip6")));

    scene.gets(1, 502);
    let refused = Expected::at_once("refused", 111).from(local_host(family));
    let record = scene.watch.saw_next(&service, &refused);
    assert_eq!(record.backend, None, "the socket knows of no other address: {record:?}");

    let _upstream = Backend::start(&stage.upstream, &backend, Manner::Answer);
    scene.gets(1, 200);
    let established = Expected::at_once("established", 0).from(local_host(family));
    let record = scene.watch.saw_next(&service, &established);
    assert_eq!(record.backend, None, "{record:?}");
    assert_eq!(scene.watch.agent.metrics().addresses(scene.nginx.name()), [&*service]);
    scene.end();
}

fn behind_a_transparent_redirect_every_connect_is_established(family: Family) {
    let stage = Stage::new(family);
    // Nobody is at the service's address: it is the sidecar that takes the connection, and ends it.
    let sidecar = family.address(family.pick("127.0.0.1", "::1"), 15001);
    let _sidecar = Backend::start(&stage.proxy, &sidecar, Manner::CloseUnanswered);
    let scene = translated(&stage, "redirect to :15001");
    let service = service(family);

    scene.gets(1, 502);
    let established = Expected::at_once("established", 0).from(local_host(family));
    let record = scene.watch.saw_next(&service, &established);
    assert_eq!(record.backend, None, "{record:?}");
    let record = scene.watch.trace.next_of("broken");
    assert_eq!((&*record.address, &*record.cause), (&*service, "closed_before_response"), "{record:?}");
    scene.end();
}
