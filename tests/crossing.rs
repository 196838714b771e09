//! Handshakes that both ends begin at once: the only ones that can be reset without being refused.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, bind, connect, shutdown, socket,
};
use proxytrace_tests::http::answer;
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};

use crate::causes::{local_host, over_both_families};
use crate::scene::{Expected, Scene, wait_for_in_flight};

over_both_families! {
    a_reset_that_is_no_refusal_is_a_reset,
    a_proxy_that_leaves_a_handshake_that_has_crossed_cancels_it,
}

fn a_reset_that_is_no_refusal_is_a_reset(family: Family) {
    let stage = Stage::new(family);
    let (scene, mut client) = begin(&stage);
    // The next SYN-ACK finds nobody who had asked for it.
    stage.upstream.firewall("");

    assert_eq!(answer(&mut client).status, 502);
    scene.nginx.says("connect() failed (104: Connection reset by peer) while connecting to upstream");
    ends(&stage, scene, Expected::at_once("reset", 104));
}

fn a_proxy_that_leaves_a_handshake_that_has_crossed_cancels_it(family: Family) {
    let stage = Stage::new(family);
    let (scene, client) = begin(&stage);

    drop(client);

    scene.nginx.says("client prematurely closed connection, so upstream connection is closed too");
    ends(&stage, scene, Expected::at_once("cancelled", 0));
}

/// nginx's SYN is dropped, another crosses it, which turns nginx's SYN_SENT into SYN_RECV; then the other end forgets
/// about it.
fn begin(stage: &Stage) -> (Scene, UnixStream) {
    stage.upstream.firewall("tcp dport 8080 drop");
    // However slow this machine is, the kernel must not give up before the end of the story.
    stage.proxy.sysctl("net.ipv4.tcp_syn_retries", "50");
    let (ours, theirs) = (stage.proxy_address(47000), stage.upstream_address(8080));
    let scene =
        Scene::begin(&stage.proxy, &theirs, &format!("proxy_bind {ours}; proxy_connect_timeout 60s;"));

    let client = scene.nginx.begin("/");
    wait_for_in_flight(&scene.watch.agent, scene.nginx.name(), &theirs, 1);
    let crossing = stage.upstream.enter(|| begin_to_connect(&theirs, &ours));
    stage.proxy.enter(|| wait::until_true("the SYNs to cross", SOON, has_socket_in_syn_recv));
    // Not only closed: a child that another test is just starting may have it as well.
    shutdown(crossing.as_raw_fd(), Shutdown::Both).expect("forget the handshake");
    (scene, client)
}

#[track_caller]
fn ends(stage: &Stage, scene: Scene, expected: Expected) {
    let mut record = scene.watch.trace.next_about_connections();
    if record.kind == "stalled" {
        // The SYN was sent again before the other crossed it; after that it is the SYN-ACK, which is no stall.
        record = scene.watch.trace.next_of("connect");
    }
    let most = stage.retransmits();
    let expected = expected.from(local_host(stage.family)).after(0.0, 0..=most);
    scene.watch.check(&record, &scene.address, &expected);
    scene.watch.counted(&scene.address, &expected.account(1));
    scene.end();
}

/// A socket that has sent its SYN from `local` to `remote`.
fn begin_to_connect(local: &str, remote: &str) -> OwnedFd {
    let [local, remote]: [SocketAddr; 2] = [local, remote].map(|address| address.parse().expect("HOST:PORT"));
    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None).expect("make a socket");
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local)).expect("bind");
    assert_eq!(connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)), Err(Errno::EINPROGRESS));
    socket
}

/// Whether this network namespace has a socket in state SYN_RECV (3).
fn has_socket_in_syn_recv() -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{table}")).expect("read the sockets");
        table.lines().any(|line| line.split_whitespace().nth(3) == Some("03"))
    })
}
