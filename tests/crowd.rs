//! Many processes that wait in connect() at once: a kretprobe then misses returns (docs/kernel-notes.md), and every
//! attempt must end all the same.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::{fs, io};

use nix::unistd::gettid;
use proxytrace_tests::backend::full_backlog;
use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};

use crate::clients::CONNECTOR;
use crate::host::Host;
use crate::scene::{agrees_but_for_missed_returns, sees_connect_by, wait_for_in_flight};

/// More than the kernel sets places aside for returns that it waits for: 10, or two for each CPU.
const CROWD: usize = 64;

#[test]
fn an_attempt_whose_return_was_not_seen_ends_all_the_same() {
    let host = Host::new(8080);
    let client = Client::start(CONNECTOR, &host.netns, &Plan::simple(&host.addresses(), How::Blocking, 5));
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);

    let path = host.full.trim_start_matches("unix:").to_owned();
    wait_in_connect(Path::new(&path));
    client.go();
    let truth = client.finish();

    let missed = agrees_but_for_missed_returns(&agent, &name, &truth);
    if sees_connect_by(&agent, "kprobe") {
        assert!(missed > 0, "the crowd was large enough to make a kretprobe miss returns");
    } else {
        assert_eq!(missed, 0, "every return was seen");
    }
}

#[test]
fn what_a_later_call_returns_is_not_the_outcome_of_the_one_before() {
    let host = Host::new(8080);
    let directory = scratch::directory();
    let path = |name: &str| directory.path().join(name);
    let (held, crowded) = (full_backlog(&path("held")), full_backlog(&path("crowded")));
    let address = format!("unix:{}", path("held").display());
    // Of a socket of UDP, and so on: no attempts, but their returns are seen.
    let vain = Step::each(&host.listening, How::NotAnAttempt, 1);
    let steps = [Step::each(&[&address], How::Blocking, 1), vain].concat();
    let client = Client::start(CONNECTOR, &host.netns, &Plan { processes: 1, fork_every: 0, steps });
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);

    let crowd = wait_in_connect(&path("crowded"));
    client.go();
    wait_for_in_flight(&agent, &name, &address, 1);
    drop(crowded);
    crowd.into_iter().for_each(|thread| _ = thread.join().expect("connect()"));
    drop(held);
    let truth = client.finish();

    assert_eq!(truth.0[&address].failures, [("refused".to_owned(), 1)].into());
    let missed = agrees_but_for_missed_returns(&agent, &name, &truth);
    assert_eq!(missed, u64::from(sees_connect_by(&agent, "kprobe")), "only a kretprobe misses the return");
}

/// Returns when a crowd of threads waits in connect() for room in the backlog of `path`. They go on when the listener
/// is closed.
fn wait_in_connect(path: &Path) -> Vec<JoinHandle<io::Result<()>>> {
    let (sender, receiver) = channel();
    let wait = |_| {
        let (path, sender) = (path.to_owned(), sender.clone());
        thread::spawn(move || {
            sender.send(gettid()).expect("say who waits");
            UnixStream::connect(path).map(drop)
        })
    };
    let crowd = (0..CROWD).map(wait).collect();
    let waiting: Vec<_> = receiver.iter().take(CROWD).collect();
    wait::until_true("the crowd to wait in connect()", SOON, || {
        waiting.iter().all(|thread| {
            // The number of the system call that the thread waits in, and its arguments.
            let call = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
            call.split(' ').next() == Some(&libc::SYS_connect.to_string())
        })
    });
    crowd
}
