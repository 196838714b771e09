//! Why a TCP handshake fails: a story per row of the truth table, over IPv4 and IPv6.

use std::net::TcpListener;
use std::time::{Duration, UNIX_EPOCH};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::http::answer;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait;

use crate::scene::{Expected, Scene, Watch, short_timeout, wait_for_in_flight};

macro_rules! over_both_families {
    ($($story:ident),* $(,)?) => {
        mod ipv4 { $(#[test] fn $story() { super::$story(proxytrace_tests::stage::Family::V4); })* }
        mod ipv6 { $(#[test] fn $story() { super::$story(proxytrace_tests::stage::Family::V6); })* }
    };
}
pub(crate) use over_both_families;

over_both_families! {
    a_healthy_upstream_is_established,
    a_closed_port_refuses,
    dropped_syns_stall_and_end_with_the_proxys_timeout,
    dropped_syns_end_with_the_kernels_timeout_where_the_proxy_waits_longer,
    an_icmp_error_during_connect_is_the_cause,
    an_icmp_error_after_connect_is_the_cause,
    a_next_hop_that_does_not_answer_is_an_unreachable_host,
    a_route_that_leads_nowhere_fails_at_once,
    local_ports_can_be_used_up,
    a_dead_resolver_is_no_attempt,
}

fn a_healthy_upstream_is_established(family: Family) {
    let stage = Stage::new(family);
    let upstream = Backend::start(&stage.upstream, &stage.upstream_address(8080), Manner::Answer);
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "");

    scene.gets(3, 200);

    scene.saw(3, &Expected::at_once("established", 0).from(local_host(family)));
    assert_eq!(upstream.accepted(), 3);
    let last = scene.watch.agent.metrics().sum("proxytrace_last_established_timestamp_seconds", &[]);
    let age = UNIX_EPOCH.elapsed().expect("a clock that is set").as_secs_f64() - last;
    assert!((0.0..60.0).contains(&age), "the last one was established {age} s ago");
    scene.end();
}

fn a_closed_port_refuses(family: Family) {
    let stage = Stage::new(family);
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "");

    scene.gets(3, 502);

    scene.nginx.says("connect() failed (111: Connection refused)");
    scene.saw(3, &Expected::at_once("refused", 111).from(local_host(family)));
    scene.end();
}

fn dropped_syns_stall_and_end_with_the_proxys_timeout(family: Family) {
    let stage = Stage::new(family);
    stage.upstream.firewall("tcp dport 8080 drop");
    let timeout = short_timeout();
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), &timeout.directive());

    let mut client = scene.nginx.begin("/");

    let stalled = scene.watch.trace.next_of("stalled");
    assert_eq!(scene.nginx.error_log().matches("upstream timed out").count(), 0, "nginx does not know yet");
    assert_eq!((&*stalled.address, stalled.syn_retransmits), (&*scene.address, Some(1)), "{stalled:?}");
    assert!(
        stalled.duration() >= wait::at_least(Duration::from_millis(900)),
        "the first SYN is sent again after 1 s: {stalled:?}"
    );
    wait_for_in_flight(&scene.watch.agent, scene.nginx.name(), &scene.address, 1);

    assert_eq!(answer(&mut client).status, 504);
    scene.nginx.says("upstream timed out (110: Connection timed out) while connecting to upstream");
    let resent = stage.retransmits();
    let connect = scene.watch.trace.next_of("connect");
    let expected = Expected::at_once("proxy_timeout", 0)
        .from(local_host(family))
        .after(timeout.least(), resent..=resent);
    scene.watch.check(&connect, &scene.address, &expected);
    scene.watch.counted(&scene.address, &expected.account(1));
    scene.end();
}

fn dropped_syns_end_with_the_kernels_timeout_where_the_proxy_waits_longer(family: Family) {
    let stage = Stage::new(family);
    stage.upstream.firewall("tcp dport 8080 drop");
    stage.proxy.sysctl("net.ipv4.tcp_syn_retries", "1");
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "proxy_connect_timeout 60s;");

    scene.gets(1, 502);

    scene.nginx.says("connect() failed (110: Connection timed out) while connecting to upstream");
    let resent = stage.retransmits();
    assert!(resent > 0, "the kernel has tried again");
    let expected = Expected::at_once("timed_out", 110).from(local_host(family));
    scene.saw(1, &expected.after(1.9, resent..=resent));
    scene.end();
}

fn an_icmp_error_during_connect_is_the_cause(family: Family) {
    // The answer to the SYN is there before connect() lets go of the socket: the kernel keeps it as a soft error.
    let rows = family.pick(
        [
            ("icmp type host-unreachable", "host_unreachable", 113),
            ("icmp type net-unreachable", "network_unreachable", 101),
            ("icmp type port-unreachable", "refused", 111),
            ("icmp type admin-prohibited", "host_unreachable", 113),
        ],
        [
            ("icmpv6 type addr-unreachable", "host_unreachable", 113),
            ("icmpv6 type no-route", "network_unreachable", 101),
            ("icmpv6 type port-unreachable", "refused", 111),
            ("icmpv6 type admin-prohibited", "permission_denied", 13),
        ],
    );
    for (answer, outcome, errno) in rows {
        let at_once = Expected::at_once(outcome, errno).from(local_host(family));
        // Over IPv6 the kernel keeps a soft error to itself: nginx learns of it a second later, from the next SYN.
        let (requests, expected) = match family {
            // Over IPv4 it wakes nginx before it stores the error (tcp_v4_err). Another processor that stands still in
            // between, as an emulated one may, lets nginx ask too early: then it as well learns from the next SYN.
            Family::V4 if wait::is_slow() => (3, at_once.after(0.0, 0..=1)),
            Family::V4 => (3, at_once),
            Family::V6 => (1, at_once.after(0.0, 0..=1)),
        };

        until_the_cause_is_known(|| {
            let stage = Stage::new(family);
            stage.upstream.firewall(&format!("tcp dport 8080 reject with {answer}"));
            let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "");

            scene.gets(requests, 502);

            scene.nginx.says(&format!("connect() failed ({errno}: "));
            if family == Family::V6 && !scene.knows_the_cause() {
                return false;
            }
            scene.saw(requests, &expected);
            scene.end();
            true
        });
    }
}

/// Tries again where the kernel forgot the cause, which is rare.
#[track_caller]
fn until_the_cause_is_known(attempt: impl Fn() -> bool) {
    assert!((0..3).any(|_| attempt()), "the cause was forgotten three times in a row");
}

fn an_icmp_error_after_connect_is_the_cause(family: Family) {
    until_the_cause_is_known(|| an_icmp_error_after_connect(family));
}

fn an_icmp_error_after_connect(family: Family) -> bool {
    let stage = Stage::new(family);
    stage.upstream.firewall("tcp dport 8080 drop");
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "proxy_connect_timeout 60s;");

    let mut client = scene.nginx.begin("/");
    let _ = scene.watch.trace.next_of("stalled");
    let reply = family.pick("icmp type host-unreachable", "icmpv6 type addr-unreachable");
    stage.upstream.firewall(&format!("tcp dport 8080 reject with {reply}"));

    assert_eq!(answer(&mut client).status, 502);
    scene.nginx.says("connect() failed (113: No route to host)");
    if family == Family::V6 && !scene.knows_the_cause() {
        return false;
    }
    let (resent, expected) = (stage.retransmits(), Expected::at_once("host_unreachable", 113));
    let expected = expected.from(local_host(family)).after(1.9, resent..=resent);
    scene.watch.check(&scene.watch.trace.next_of("connect"), &scene.address, &expected);
    scene.watch.counted(&scene.address, &expected.account(1));
    scene.end();
    true
}

fn a_next_hop_that_does_not_answer_is_an_unreachable_host(family: Family) {
    until_the_cause_is_known(|| a_next_hop_that_does_not_answer(family));
}

fn a_next_hop_that_does_not_answer(family: Family) -> bool {
    let stage = Stage::new(family);
    let scene = Scene::begin(&stage.proxy, &stage.nobodys_address(8080), "proxy_connect_timeout 60s;");

    scene.gets(1, 502);

    scene.nginx.says("connect() failed (113: No route to host)");
    if family == Family::V6 && !scene.knows_the_cause() {
        return false;
    }
    // The SYN waits for the neighbour's address: the kernel tries to send it again, but it has never left.
    let resent = stage.retransmits();
    let expected = Expected::at_once("host_unreachable", 113).from(local_host(family));
    scene.saw(1, &expected.after(1.9, resent..=resent));
    scene.end();
    true
}

fn a_route_that_leads_nowhere_fails_at_once(family: Family) {
    let rows = [
        ("unreachable", "host_unreachable", 113, "(113: No route to host)"),
        ("prohibit", "permission_denied", 13, "(13: Permission denied)"),
        ("blackhole", "other", 22, "(22: Invalid argument)"),
        ("", "network_unreachable", 101, "(101: Network is unreachable)"),
    ];
    for (route, outcome, errno, words) in rows {
        let stage = Stage::new(family);
        let (address, prefix) = stage.far_address(8080);
        if !route.is_empty() {
            stage.proxy.ip(&format!("route add {route} {prefix}"));
        }
        let scene = Scene::begin(&stage.proxy, &address, "");

        scene.gets(3, 502);

        scene.nginx.says(words);
        scene.saw(3, &Expected::at_once(outcome, errno));
        scene.end();
    }
}

fn local_ports_can_be_used_up(family: Family) {
    let stage = Stage::new(family);
    let _upstream = Backend::start(&stage.upstream, &stage.upstream_address(8080), Manner::Answer);
    stage.proxy.sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    let _held = [40000, 40001].map(|port| {
        let address = stage.proxy_address(port);
        stage.proxy.enter(|| TcpListener::bind(&address).expect("hold a port"))
    });
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "");

    scene.gets(3, 502);

    scene.nginx.says("(99: Cannot assign requested address)");
    scene.saw(3, &Expected::at_once("no_local_port", 99));
    scene.end();
}

fn a_dead_resolver_is_no_attempt(family: Family) {
    let stage = Stage::new(family);
    let _upstream = Backend::start(&stage.upstream, &stage.upstream_address(8080), Manner::Answer);
    let (alive, dead) = (stage.upstream_address(8080), stage.upstream_address(53));
    let nginx = Nginx::start(
        &stage.proxy,
        &server(&format!(
            "resolver {dead} valid=1s; resolver_timeout 1s; set $host_to_find nowhere.test;
             location / {{ proxy_pass http://{alive}; }}
             location /unresolved {{ proxy_pass http://$host_to_find; }}"
        )),
    );
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());

    assert_eq!(nginx.get("/unresolved"), 502);
    assert_eq!(nginx.get("/"), 200);

    nginx.says("could not be resolved");
    watch.saw(&alive, 1, &Expected::at_once("established", 0).from(local_host(family)));
    assert_eq!(watch.agent.metrics().addresses(nginx.name()), [alive]);
    watch.end();
}

/// What nginx's local address begins with.
pub(crate) fn local_host(family: Family) -> &'static str {
    family.pick("10.0.0.1:", "[2001:db8::1]:")
}
