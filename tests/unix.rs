//! Why a connect() to a unix socket fails.

use std::any::Any;
use std::fs::{self, File, Permissions};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use proxytrace_tests::backend::{Backend, Manner, full_backlog, unlistened};
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::scratch;

use crate::clients::CONNECTOR;
use crate::scene::{Expected, Scene, Watch};

#[test]
fn a_listening_socket_is_established() {
    check(|path| Box::new(listen(path)), 200, "", ("established", 0));
}

#[test]
fn a_missing_file_is_no_such_socket() {
    check(|_| Box::new(()), 502, "(2: No such file or directory)", ("no_such_socket", 2));
}

#[test]
fn a_socket_without_a_listener_refuses() {
    check(|path| Box::new(unlistened(path)), 502, "(111: Connection refused)", ("refused", 111));
}

#[test]
fn a_file_that_is_no_socket_refuses() {
    let plain = |path: &Path| {
        let file = File::create(path).expect("make a file");
        fs::set_permissions(path, Permissions::from_mode(0o666)).expect("open it to everybody");
        Box::new(file) as Box<dyn Any>
    };
    check(plain, 502, "(111: Connection refused)", ("refused", 111));
}

#[test]
fn a_full_backlog_is_the_cause() {
    let words = "(11: Resource temporarily unavailable)";
    check(|path| Box::new(full_backlog(path)), 502, words, ("backlog_full", 11));
}

#[test]
fn a_file_mode_that_denies_is_the_cause() {
    let denied = |path: &Path| {
        let backend = listen(path);
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("close it to the workers");
        Box::new(backend) as Box<dyn Any>
    };
    check(denied, 502, "(13: Permission denied)", ("permission_denied", 13));
}

#[test]
fn the_longest_path_is_reported_whole() {
    let directory = scratch::directory();
    let free = 107 - directory.path().as_os_str().len() - 1;
    let path = directory.path().join("s".repeat(free));
    let netns = Netns::new();
    let _upstream = listen(&path);
    let scene = Scene::begin(&netns, &format!("unix:{}", path.display()), "");

    scene.gets(3, 200);

    scene.saw(3, &Expected::at_once("established", 0));
    scene.end();
}

#[test]
fn abstract_names_that_differ_by_zero_bytes_at_their_end_are_two_destinations() {
    let (netns, name) = (Netns::new(), scratch::unique_name("abs"));
    let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let _listener = netns.enter(|| UnixListener::bind_addr(&address)).expect("listen");
    let names = [format!("unix:@{name}"), format!("unix:@{name}\0"), format!("unix:@{name}\0\0")];
    let client = Client::start(CONNECTOR, &netns, &Plan::simple(&names, How::Blocking, 2));
    let watch = Watch::begin(&["--process", client.name()], client.name());

    client.go();
    let truth = client.finish();

    assert!(truth.has(&names[0], "established") && truth.0.len() == names.len(), "{truth:?}");
    watch.agrees_with(&truth);
    watch.end();
}

/// What `prepare` makes of the socket is kept while nginx, three times, connects to it.
#[track_caller]
fn check(
    prepare: impl FnOnce(&Path) -> Box<dyn Any>,
    status: u16,
    words: &str,
    (outcome, errno): (&'static str, i32),
) {
    let (netns, directory) = (Netns::new(), scratch::directory());
    let path = directory.path().join("upstream.sock");
    let _upstream = prepare(&path);
    let scene = Scene::begin(&netns, &format!("unix:{}", path.display()), "");

    scene.gets(3, status);

    scene.nginx.says(words);
    scene.saw(3, &Expected::at_once(outcome, errno));
    scene.end();
}

fn listen(path: &Path) -> Backend {
    Backend::unix(path, Manner::Answer)
}
