//! Upstream servers, well behaved and not.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt,
    shutdown, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::Netns;

/// What a server does with the connections that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers each request with 200, and leaves the end of the connection to the client.
    Answer,
    /// Answers one request with 200 and closes.
    AnswerAndClose,
    /// Answers each request after so long; closes without an answer when the server stops meanwhile.
    AnswerAfter(Duration),
    /// Answers each request, and closes when the next has not come for so long.
    AnswerUntilIdle(Duration),
    /// Closes at once.
    CloseAtOnce,
    /// Resets at once.
    ResetAtOnce,
    /// Reads a request and closes.
    CloseUnanswered,
    /// Reads a request and resets.
    ResetUnanswered,
    /// Reads a request, sends half of the answer, and resets on [`Backend::release`].
    ResetMidAnswer,
    /// Reads a request, and closes without an answer on [`Backend::release`].
    HoldThenClose,
    /// Answers so many requests on a connection, and does this with the next.
    AnswerThen(u32, Next),
    /// Answers each request, and resets when the next has not come for so long.
    ResetWhenIdle(Duration),
    /// Answers each request with so many events, one in so long, as server-sent events do; then it closes.
    Events(u32, Duration),
    /// Answers whatever comes with a fatal alert of TLS in plain text, and closes.
    RefuseTls,
}

/// What a server does with a request that it does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Reads it and closes.
    Close,
    /// Reads it and resets.
    Reset,
    /// Reads it and waits for [`Backend::release`].
    Hold,
}

/// handshake_failure, of TLS 1.2.
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// A server; new connections are refused when it is dropped.
#[derive(Debug)]
pub struct Backend {
    listener: OwnedFd,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    stopping: AtomicBool,
    released: Mutex<bool>,
    release: Condvar,
}

impl Backend {
    /// Listens at `address` (`HOST:PORT`) in `netns`.
    #[must_use]
    #[track_caller]
    pub fn start(netns: &Netns, address: &str, manner: Manner) -> Self {
        let listener = netns.enter(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|error| panic!("listen at {address}: {error}"));
        // std's backlog overflows in a storm, and each SYN that it drops costs a second.
        listen(&listener, Backlog::MAXCONN).expect("lengthen the backlog");
        let descriptor = listener.try_clone().expect("share a listener").into();
        Self::serve(descriptor, move || Ok(listener.accept()?.0.into()), manner)
    }

    /// Listens at a unix socket, to which everybody may connect. It lives in the file system, not in a namespace.
    #[must_use]
    #[track_caller]
    pub fn unix(path: &Path, manner: Manner) -> Self {
        let listener = UnixListener::bind(path);
        let listener = listener.unwrap_or_else(|error| panic!("listen at {}: {error}", path.display()));
        open_to_all(path);
        let descriptor = listener.try_clone().expect("share a listener").into();
        Self::serve(descriptor, move || Ok(listener.accept()?.0.into()), manner)
    }

    fn serve(
        listener: OwnedFd,
        accept: impl Fn() -> io::Result<OwnedFd> + Send + 'static,
        manner: Manner,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept_all(accept, manner)
        });
        Self { listener, shared, acceptor: Some(acceptor) }
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Lets the connections that wait for it go on.
    pub fn release(&self) {
        *self.shared.released.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.release.notify_all();
    }

    /// Stops listening.
    pub fn refuse(self) {}
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the accept() that is waiting; closing the descriptor would not.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept_all(self: &Arc<Self>, accept: impl Fn() -> io::Result<OwnedFd>, manner: Manner) {
        while !self.stopping.load(Ordering::SeqCst) {
            let Ok(connection) = accept() else { continue };
            self.accepted.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(self);
            // A connection ends as the peer pleases, also by a reset: nobody is interested in the error.
            thread::spawn(move || shared.serve(File::from(connection), manner));
        }
    }

    fn serve(&self, mut connection: File, manner: Manner) -> io::Result<()> {
        match manner {
            Manner::CloseAtOnce => return Ok(()),
            Manner::ResetAtOnce => return reset(connection),
            Manner::RefuseTls => {
                let _ = connection.read(&mut [0; 4096])?;
                connection.write_all(ALERT)?;
                thread::sleep(Duration::from_millis(20));
                return Ok(());
            }
            Manner::AnswerUntilIdle(time) | Manner::ResetWhenIdle(time) => {
                let milliseconds = i64::try_from(time.as_millis()).expect("a time to be idle");
                setsockopt(&connection, sockopt::ReceiveTimeout, &TimeVal::milliseconds(milliseconds))?;
            }
            _ => {}
        }
        let mut answered = 0;
        loop {
            match read_request(&mut connection) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) if matches!(manner, Manner::ResetWhenIdle(_)) => return reset(connection),
                Err(error) => return Err(error),
            }
            match manner {
                Manner::AnswerThen(requests, next) if answered == requests => {
                    return match next {
                        Next::Close => Ok(()),
                        Next::Reset => reset(connection),
                        Next::Hold => {
                            self.wait_for_release();
                            Ok(())
                        }
                    };
                }
                Manner::AnswerAfter(time) if self.is_released_within(time) => return Ok(()),
                Manner::Answer
                | Manner::AnswerUntilIdle(_)
                | Manner::ResetWhenIdle(_)
                | Manner::AnswerThen(..)
                | Manner::AnswerAfter(_) => {
                    connection.write_all(ANSWER)?;
                    answered += 1;
                }
                Manner::AnswerAndClose => return connection.write_all(ANSWER),
                Manner::CloseUnanswered | Manner::CloseAtOnce | Manner::RefuseTls => return Ok(()),
                Manner::Events(events, each) => {
                    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
                    for _ in 0..events {
                        connection.write_all(b"data: x\n\n")?;
                        if self.is_released_within(each) {
                            break;
                        }
                    }
                    return Ok(());
                }
                Manner::ResetUnanswered | Manner::ResetAtOnce => return reset(connection),
                Manner::ResetMidAnswer => {
                    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")?;
                    self.wait_for_release();
                    return reset(connection);
                }
                Manner::HoldThenClose => {
                    self.wait_for_release();
                    return Ok(());
                }
            }
        }
    }

    fn is_released_within(&self, time: Duration) -> bool {
        let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.release.wait_timeout_while(released, time, |released| !*released);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_for_release(&self) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        while !*released {
            released = self.release.wait(released).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Reads to the end of a request's head (none of ours has a body); false at the end of the connection.
fn read_request(connection: &mut File) -> io::Result<bool> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"\r\n\r\n") {
        match connection.read(&mut buffer)? {
            0 => return Ok(false),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(true)
}

/// Closes with a reset instead of an orderly end.
fn reset(connection: File) -> io::Result<()> {
    setsockopt(&connection, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(connection);
    Ok(())
}

/// A unix socket that is bound, but nobody listens; for as long as the descriptor is held.
#[must_use]
pub fn unlistened(path: &Path) -> OwnedFd {
    let bound = unix_socket(SockFlag::empty());
    bind(bound.as_raw_fd(), &unix_address(path)).expect("bind a unix socket");
    open_to_all(path);
    bound
}

/// A unix socket whose backlog is full, for as long as the descriptors are held.
#[must_use]
pub fn full_backlog(path: &Path) -> Vec<OwnedFd> {
    let listener = unlistened(path);
    listen(&listener, Backlog::new(0).expect("a backlog of nothing")).expect("listen at a unix socket");
    let mut held = vec![listener];
    loop {
        let client = unix_socket(SockFlag::SOCK_NONBLOCK);
        match connect(client.as_raw_fd(), &unix_address(path)) {
            Ok(()) => held.push(client),
            Err(Errno::EAGAIN) => return held,
            Err(error) => panic!("fill the backlog of {}: {error}", path.display()),
        }
    }
}

fn unix_socket(flags: SockFlag) -> OwnedFd {
    socket(AddressFamily::Unix, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)
        .expect("make a unix socket")
}

fn unix_address(path: &Path) -> UnixAddr {
    UnixAddr::new(path).expect("a path that fits into a unix address")
}

/// Workers that are not root must be allowed to connect.
fn open_to_all(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o666)).expect("open a unix socket to everybody");
}
