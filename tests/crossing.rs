//! A reset in the handshake that is no refusal. Only a handshake that both ends begin at once can meet one.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use proxytrace_tests::http::answer;
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};

use crate::causes::{local_host, over_both_families};
use crate::scene::{Expected, Scene, wait_for_in_flight};

over_both_families! { a_reset_that_is_no_refusal_is_a_reset }

/// The SYNs cross, which turns nginx's SYN_SENT into SYN_RECV; then the other end forgets about it.
fn a_reset_that_is_no_refusal_is_a_reset(family: Family) {
    let stage = Stage::new(family);
    stage.upstream.firewall("tcp dport 8080 drop");
    let (ours, theirs) = (stage.proxy_address(47000), stage.upstream_address(8080));
    let scene =
        Scene::begin(&stage.proxy, &theirs, &format!("proxy_bind {ours}; proxy_connect_timeout 60s;"));

    let mut client = scene.nginx.begin("/");
    wait_for_in_flight(&scene.watch.agent, scene.nginx.name(), &theirs, 1);
    let crossing = stage.upstream.enter(|| begin_to_connect(&theirs, &ours));
    stage.proxy.enter(|| wait::until_true("the SYNs to cross", SOON, has_socket_in_syn_recv));
    drop(crossing);
    // The next SYN-ACK finds nobody who had asked for it.
    stage.upstream.firewall("");

    assert_eq!(answer(&mut client).status, 502);
    scene.nginx.says("connect() failed (104: Connection reset by peer) while connecting to upstream");
    let (resent, expected) = (stage.retransmits(), Expected::at_once("reset", 104).from(local_host(family)));
    let expected = expected.after(0.0, resent..=resent);
    // Not stalled: what was sent again is the SYN-ACK.
    scene.watch.check(&scene.watch.trace.next_of("connect"), &scene.address, &expected);
    scene.watch.counted(&scene.address, &expected.account(1));
    scene.end();
}

/// A socket that has sent its SYN from `local` to `remote`.
fn begin_to_connect(local: &str, remote: &str) -> OwnedFd {
    let [local, remote]: [SocketAddr; 2] = [local, remote].map(|address| address.parse().expect("HOST:PORT"));
    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    // A process that another test starts at this moment must not keep it open.
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
