//! Who connects, and how: clients that are not nginx, and what nginx makes of one request.

use std::net::Shutdown;

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::http::answer;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::stage::{Family, Stage};

use crate::host::Host;
use crate::scene::{Expected, Named, Scene, Watch, short_timeout, wait_for_in_flight};

pub(crate) const CONNECTOR: &str = env!("CARGO_BIN_EXE_connector");

/// The tracepoints of connect() alone leave sends out.
pub(crate) const SENDS_ARE_HOOKED: [&str; 2] = ["--hook-via", "connect=tp_btf"];

#[test]
fn a_blocking_client_makes_one_attempt_per_connect() {
    check(|host| Plan::simple(&host.addresses(), How::Blocking, 3));
}

#[test]
fn a_client_that_polls_makes_one_attempt_per_connect() {
    check(|host| Plan::simple(&host.addresses(), How::Polled, 3));
}

#[test]
fn a_second_connect_that_fetches_the_outcome_is_no_attempt() {
    check(|host| Plan::simple(&host.addresses(), How::AskedTwice, 3));
}

#[test]
fn a_client_that_does_not_wait_has_cancelled() {
    for how in [How::Abandoned, How::Impatient] {
        check(|host| Plan::simple(&host.silent, how, 3));
    }
}

#[test]
fn a_connect_that_waits_for_data_is_established_when_its_handshake_is() {
    check(|host| Plan::simple(&host.tcp_addresses(), How::FastOpen, 3));
}

#[test]
fn a_connect_that_never_got_its_data_has_been_cancelled() {
    check(|host| Plan::simple(&host.listening, How::FastOpenAbandoned, 3));
}

#[test]
fn a_send_that_connects_is_an_attempt() {
    check(|host| Plan::simple(&host.reached(), How::FastOpenSend, 3));
}

#[test]
fn a_send_that_fails_before_there_is_a_syn_is_an_attempt_where_sends_are_hooked() {
    check_with(&SENDS_ARE_HOOKED, |host| Plan::simple(&host.tcp_addresses(), How::FastOpenSend, 3));
}

#[test]
fn a_local_port_that_is_taken_is_the_cause() {
    check(|host| Plan::simple(&host.listening, How::FromTakenPort, 3));
}

#[test]
fn a_connect_that_is_no_attempt_never_shows() {
    check(|host| {
        let mut plan = Plan::simple(&host.addresses(), How::NotAnAttempt, 3);
        // The proof that anything would show.
        plan.steps.push(Step { address: host.listening[0].clone(), how: How::Blocking, times: 1 });
        plan
    });
}

#[test]
fn an_upstream_connection_that_is_kept_alive_is_one_attempt() {
    let stage = Stage::new(Family::V4);
    let address = stage.upstream_address(8080);
    let upstream = Backend::start(&stage.upstream, &address, Manner::Answer);
    let mut scene = Scene::with(
        &stage.proxy,
        &address,
        &format!(
            "upstream api {{ server {address}; keepalive 4; }} {}",
            server(
                "location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ''; }"
            )
        ),
    );

    scene.watch.named = Named::As("api");
    scene.gets(5, 200);

    assert_eq!(upstream.accepted(), 1);
    scene.saw(1, &Expected::at_once("established", 0).from("10.0.0.1:"));
    scene.end();
}

#[test]
fn a_request_that_goes_on_to_the_next_upstream_is_an_attempt_at_each() {
    let stage = Stage::new(Family::V4);
    let (dead, alive) = (stage.upstream_address(8080), stage.upstream_address(8081));
    let upstream = Backend::start(&stage.upstream, &alive, Manner::Answer);
    let nginx = Nginx::start(
        &stage.proxy,
        &format!(
            "upstream api {{ server {dead} max_fails=0; server {alive} backup; }} {}",
            server("location / { proxy_pass http://api; proxy_next_upstream error; }")
        ),
    );
    let mut watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    watch.named = Named::As("api");

    for _ in 0..4 {
        assert_eq!(nginx.get("/"), 200);
        watch.saw_next(&dead, &Expected::at_once("refused", 111).from("10.0.0.1:"));
        watch.saw_next(&alive, &Expected::at_once("established", 0).from("10.0.0.1:"));
    }

    assert_eq!(nginx.error_log().matches("connect() failed (111").count(), 4);
    assert_eq!(upstream.accepted(), 4);
    watch.counted(&dead, &Expected::at_once("refused", 111).account(4));
    watch.counted(&alive, &Expected::at_once("established", 0).account(4));
    watch.end();
}

#[test]
fn a_client_that_goes_away_cancels_and_a_proxy_that_waited_times_out() {
    let stage = Stage::new(Family::V4);
    stage.upstream.firewall("tcp dport 8080 drop");
    let timeout = short_timeout();
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), &timeout.directive());

    let client = scene.nginx.begin("/");
    wait_for_in_flight(&scene.watch.agent, scene.nginx.name(), &scene.address, 1);
    client.shutdown(Shutdown::Both).expect("go away");

    scene.nginx.says("client prematurely closed connection, so upstream connection is closed too");
    let cancelled = Expected::at_once("cancelled", 0).from("10.0.0.1:").after(0.0, 0..=2);
    scene.watch.saw_next(&scene.address, &cancelled);

    let mut patient = scene.nginx.begin("/");
    assert_eq!(answer(&mut patient).status, 504);
    let timed_out = Expected::at_once("proxy_timeout", 0)
        .from("10.0.0.1:")
        .after(timeout.least(), 1..=timeout.nginx_seconds);
    scene.watch.saw_next(&scene.address, &timed_out);

    let mut both = cancelled.account(1);
    both.attempts += 1;
    both.failures.extend(timed_out.account(1).failures);
    scene.watch.counted(&scene.address, &both);
    scene.end();
}

/// A client follows the plan: records and metrics say what the client says.
#[track_caller]
fn check(plan: impl FnOnce(&Host) -> Plan) {
    check_with(&[], plan);
}

fn check_with(options: &[&str], plan: impl FnOnce(&Host) -> Plan) {
    let host = Host::new(8080);
    let client = Client::start(CONNECTOR, &host.netns, &plan(&host));
    let watch = Watch::begin(&[options, &["--process", client.name()]].concat(), client.name());

    client.go();
    let name = client.name().to_owned();
    let truth = client.finish();

    assert!(truth.attempts() > 0, "{name} has connected");
    watch.agrees_with(&truth);
    watch.end();
}
