//! What the service manager is told (sd_notify(3)): that the agent is ready, reads its configuration again, ends, and is alive. The
//! socket is connected before system calls are limited, so it is kept; a library that connects for each message would be refused.

use std::{
    env,
    io::{self, IoSlice},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::socket::{MsgFlags, sendmsg},
    time::{ClockId, clock_gettime},
};

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A message that must arrive waits so long for a service manager that is busy.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// The last status line: one that says the same is not sent again.
    status: Mutex<String>,
}

impl Notifier {
    /// Connects to the service manager that the environment names, if it names one.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn from_environment() -> anyhow::Result<Self> {
        let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let socket = connect(name.as_bytes()).with_context(|| {
            format!("connect to the service manager at {}={}", SOCKET, name.to_string_lossy())
        })?;
        Ok(Self { socket: Some(socket), watchdog: watchdog(|name| env::var(name).ok()), ..Self::default() })
    }

    /// How often it wants to hear that the agent is alive: twice in the time that it waits.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Hooks are attached, or a new configuration is in use.
    pub fn ready(&self) {
        self.send("READY=1", MsgFlags::empty());
    }

    /// The configuration is being read again; [`Self::ready`] ends that.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()), MsgFlags::empty());
    }

    /// The agent ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1", MsgFlags::MSG_DONTWAIT);
    }

    /// The agent is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1", MsgFlags::MSG_DONTWAIT);
    }

    /// A line for people.
    pub fn status(&self, line: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status != line {
            line.clone_into(&mut status);
            self.send(&format!("STATUS={line}"), MsgFlags::MSG_DONTWAIT);
        }
    }

    fn send(&self, message: &str, flags: MsgFlags) {
        let Some(socket) = &self.socket else { return };
        let message = [IoSlice::new(message.as_bytes())];
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        if let Err(error) = sendmsg::<()>(socket.as_raw_fd(), &message, &[], flags, None) {
            tracing::debug!("notify the service manager: {error}");
        }
    }
}

/// A name that begins with `@` is no path but in the abstract name space.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(name)))?,
        _ => return Err(io::Error::other("neither a path nor an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

/// Half of the time after which the service manager takes this process for dead.
fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let is_ours = variable(WATCHDOG_PID).is_none_or(|pid| pid == process::id().to_string());
    let micros: u64 = variable(WATCHDOG).filter(|_| is_ours)?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros / 2).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr, UnixDatagram},
        },
        process,
        time::Duration,
    };

    use super::{Notifier, WATCHDOG, WATCHDOG_PID, connect, watchdog};

    #[test]
    fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("proxytrace-notify-{}", process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (name, manager) in [(path.to_str().unwrap(), by_path), (&format!("@{name}"), by_name)] {
            let notifier =
                Notifier { socket: Some(connect(name.as_bytes()).unwrap()), ..Notifier::default() };
            let next = || {
                let mut buffer = [0; 256];
                let length = manager.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..length].to_vec()).unwrap()
            };
            notifier.ready();
            assert_eq!(next(), "READY=1");
            for line in ["one", "one", "two"] {
                notifier.status(line);
            }
            assert_eq!((next(), next()), ("STATUS=one".to_owned(), "STATUS=two".to_owned()));
            notifier.reloading();
            assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        }
        assert!(connect(b"vsock:2:1").is_err());
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_by_the_process_that_it_is_for() {
        let own = process::id().to_string();
        let check = |micros: &str, pid: Option<&str>, expected: Option<Duration>| {
            let variable = |name: &str| match name {
                WATCHDOG => Some(micros.to_owned()),
                WATCHDOG_PID => pid.map(str::to_owned),
                _ => None,
            };
            assert_eq!(watchdog(variable), expected, "{micros} {pid:?}");
        };
        check("30000000", None, Some(Duration::from_secs(15)));
        check("30000000", Some(&own), Some(Duration::from_secs(15)));
        check("30000000", Some("1"), None);
        check("0", None, None);
        check("soon", None, None);
    }
}
