//! What a service manager hears from the agent (sd_notify(3)).

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::signal::Signal;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{self, Agent};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};

use crate::scene::{Expected, counted};

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

/// In microseconds.
const WATCHDOG: &str = "400000";

#[test]
fn a_service_manager_hears_when_it_is_attached_alive_reading_again_and_ending() {
    let directory = scratch::directory();
    let path = directory.path().join("notify");
    let by_path = UnixDatagram::bind(&path).expect("listen at a path");
    let name = scratch::unique_name("sd");
    let abstract_name = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let by_name = UnixDatagram::bind_addr(&abstract_name).expect("listen at an abstract name");
    let netns = Netns::new();
    for (address, manager) in [(path.display().to_string(), by_path), (format!("@{name}"), by_name)] {
        let manager = Manager(manager);
        let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
        let mut command = proxytrace::command();
        command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", WATCHDOG);
        let agent = Agent::by(command, &["--process", nginx.name()]);
        manager.hears("READY=1");
        for _ in 0..3 {
            manager.hears("WATCHDOG=1");
        }
        for _ in 0..10 {
            assert_eq!(nginx.get("/"), 502);
        }
        counted(&agent, nginx.name(), ADDRESS, &Expected::at_once("refused", 111).account(10));
        manager.hears("STATUS=tracing; 1 finding: see /findings");
        let task = format!("/proc/{0}/task/{0}/children", agent.pid());
        let children = fs::read_to_string(task).expect("read the children of a process");
        assert!(!children.is_empty(), "it has a reader of configurations");
        for child in children.split_whitespace() {
            let environment = fs::read(format!("/proc/{child}/environ")).expect("read an environment");
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(
                !environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"),
                "{environment}"
            );
        }

        agent.signal(Signal::SIGHUP);
        let reloading = manager.hears("RELOADING=1");
        let micros = reloading.split_once("\nMONOTONIC_USEC=").and_then(|(_, micros)| micros.parse().ok());
        assert!(micros.is_some_and(|micros: u64| micros > 0), "{reloading}");
        manager.hears("READY=1");

        agent.stop();
        manager.hears("STOPPING=1");
    }
}

#[test]
fn a_service_manager_that_is_not_there_is_a_clear_error() {
    let output = proxytrace::command()
        .args(["agent", "--listen", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", "/nowhere/notify")
        .output()
        .expect("run proxytrace");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("NOTIFY_SOCKET=/nowhere/notify"), "{stderr}");
}

/// The end of the socket that a service manager has.
struct Manager(UnixDatagram);

impl Manager {
    /// Waits for a message that begins like this, and gives it.
    #[track_caller]
    fn hears(&self, beginning: &str) -> String {
        self.0.set_nonblocking(true).expect("do not wait in a read");
        wait::until(beginning, SOON, || {
            let mut buffer = [0; 4096];
            let length = self.0.recv(&mut buffer).ok()?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            message.starts_with(beginning).then_some(message)
        })
    }
}
