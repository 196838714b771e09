//! What can still go wrong when the handshake is done, and what must not be taken for it.

use std::io::Read;
use std::time::{Duration, Instant};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};

use crate::causes::{local_host, over_both_families};
use crate::clients::CONNECTOR;
use crate::scene::{Expected, Scene, Watch, counted};

/// A connection of that age that ends before anything was sent over it was not broken, but idle (docs/kernel-notes.md).
const IDLE: Duration = Duration::from_secs(1);

over_both_families! {
    an_upstream_that_closes_without_an_answer_breaks_the_connection,
    an_upstream_that_resets_without_an_answer_breaks_the_connection,
    an_upstream_that_ends_it_at_once_breaks_the_connection,
    an_upstream_that_resets_in_mid_answer_breaks_the_connection,
    an_answer_that_is_complete_breaks_nothing,
    a_client_that_leaves_breaks_nothing_but_a_read_timeout_does,
    an_answer_that_goes_past_tcp_is_not_judged_but_counted_as_unseen,
}

fn an_upstream_that_closes_without_an_answer_breaks_the_connection(family: Family) {
    let (_stage, _upstream, scene) = begin(family, Manner::CloseUnanswered, "");

    scene.gets(3, 502);

    scene.nginx.says("upstream prematurely closed connection while reading response header");
    saw_broken(&scene, family, 3, "closed_before_response");
    scene.end();
}

fn an_upstream_that_resets_without_an_answer_breaks_the_connection(family: Family) {
    let (_stage, _upstream, scene) = begin(family, Manner::ResetUnanswered, "");

    scene.gets(3, 502);

    scene.nginx.says("recv() failed (104: Connection reset by peer) while reading response header");
    saw_broken(&scene, family, 3, "reset_before_response");
    scene.end();
}

fn an_upstream_that_ends_it_at_once_breaks_the_connection(family: Family) {
    for manner in [Manner::CloseAtOnce, Manner::ResetAtOnce] {
        let (_stage, upstream, scene) = begin(family, manner, "");

        // Where nginx is kept waiting for so long that it sees the end before it has sent anything, the connection may as
        // well have been an idle one.
        let is_quick = |_: &u64| {
            let start = Instant::now();
            scene.gets(1, 502);
            start.elapsed() < IDLE
        };
        let quick = (0..5).filter(is_quick).count() as u64;

        // Whether the end or the request is first is a race, and with it how the end is reported; not that it is one.
        assert_eq!(upstream.accepted(), 5);
        wait::until_true("the broken connections to be counted", SOON, || broken(&scene, "") >= quick);
        let without_response = ["closed_before_response", "reset_before_response"];
        let counted: u64 = without_response.iter().map(|cause| broken(&scene, cause)).sum();
        assert!(counted == broken(&scene, "") && (quick..=5).contains(&counted), "{manner:?}: {counted}");
        scene.watch.counted(&scene.address, &established(family).account(5));
    }
}

fn an_upstream_that_resets_in_mid_answer_breaks_the_connection(family: Family) {
    let (_stage, upstream, scene) = begin(family, Manner::ResetMidAnswer, "proxy_buffering off;");

    let mut client = scene.nginx.begin("/");
    let mut answer = Vec::new();
    while !answer.ends_with(b"half") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("half of the answer");
        answer.extend(byte);
    }
    upstream.release();

    scene.nginx.says("(104: Connection reset by peer) while reading upstream");
    saw_broken(&scene, family, 1, "reset");
    scene.end();
}

fn an_answer_that_is_complete_breaks_nothing(family: Family) {
    for manner in [Manner::Answer, Manner::AnswerAndClose] {
        let (_stage, _upstream, scene) = begin(family, manner, "");

        scene.gets(3, 200);

        scene.saw(3, &established(family));
        assert_eq!(broken(&scene, ""), 0, "{manner:?}");
        scene.end();
    }
}

fn a_client_that_leaves_breaks_nothing_but_a_read_timeout_does(family: Family) {
    let (_stage, upstream, scene) = begin(family, Manner::HoldThenClose, "proxy_read_timeout 1s;");

    let client = scene.nginx.begin("/");
    // A client that leaves earlier than that cancels the handshake.
    wait::until_true("the upstream to be connected to", SOON, || upstream.accepted() == 1);
    drop(client);
    scene.nginx.says("client prematurely closed connection");
    scene.gets(1, 504);

    scene.nginx.says("upstream timed out (110: Connection timed out) while reading response header");
    let records: Vec<_> = (0..3).map(|_| scene.watch.trace.next_among(&["connect", "broken"])).collect();
    let causes: Vec<_> =
        records.iter().map(|record| &*record.cause).filter(|cause| !cause.is_empty()).collect();
    assert_eq!(causes, ["response_timeout"], "{records:?}");
    wait::until_true("the broken connection to be counted", SOON, || broken(&scene, "response_timeout") == 1);
    assert_eq!(broken(&scene, ""), 1);
    scene.watch.counted(&scene.address, &established(family).account(2));
    scene.end();
}

fn begin(family: Family, manner: Manner, directives: &str) -> (Stage, Backend, Scene) {
    let stage = Stage::new(family);
    let upstream = Backend::start(&stage.upstream, &stage.upstream_address(8080), manner);
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), directives);
    (stage, upstream, scene)
}

fn established(family: Family) -> Expected {
    Expected::at_once("established", 0).from(local_host(family))
}

/// So many connections were established, and then broken for that cause and no other.
#[track_caller]
fn saw_broken(scene: &Scene, family: Family, connections: u64, cause: &str) {
    for _ in 0..connections {
        // In this order: a connection is established before it breaks.
        let established_record = scene.watch.trace.next_of("connect");
        let record = scene.watch.trace.next_of("broken");
        assert_eq!((&*record.cause, &*record.address), (cause, &*scene.address), "{record:?}");
        assert_eq!(
            (&*record.proxy, &*record.upstream),
            (scene.nginx.name(), scene.watch.upstream_of(&scene.address)),
            "{record:?}"
        );
        assert_eq!(record.local, established_record.local, "the same connection");
    }
    wait::until_true("the broken connections to be counted", SOON, || broken(scene, cause) == connections);
    assert_eq!(broken(scene, ""), connections, "broken for no other cause");
    scene.watch.counted(&scene.address, &established(family).account(connections));
}

/// How many connections the agent counts as broken, for one cause or (empty) all.
fn broken(scene: &Scene, cause: &str) -> u64 {
    let mut labels = vec![("proxy", scene.nginx.name()), ("address", &scene.address)];
    labels.extend((!cause.is_empty()).then_some(("cause", cause)));
    scene.watch.agent.metrics().count("proxytrace_connections_broken_total", &labels)
}

fn an_answer_that_goes_past_tcp_is_not_judged_but_counted_as_unseen(family: Family) {
    let (netns, address) = (Netns::new(), family.address(family.pick("127.0.0.1", "::1"), 8080));
    let client = Client::start(CONNECTOR, &netns, &Plan::simple(&[&address], How::Bypassed, 3));
    let watch = Watch::begin(&["--process", client.name()], client.name());

    client.go();
    let name = client.name().to_owned();
    assert_eq!(client.finish().attempts(), 3);

    for _ in 0..3 {
        let expected = Expected::at_once("established", 0).from(family.pick("127.0.0.1:", "[::1]:"));
        watch.saw_next(&address, &expected);
    }
    let metrics = counted(&watch.agent, &name, &address, &Expected::at_once("established", 0).account(3));
    assert_eq!(metrics.count("proxytrace_untracked_total", &[("why", "bypassed")]), 3);
    assert_eq!(metrics.count("proxytrace_connections_broken_total", &[("proxy", &name)]), 0);
    watch.end();
}
