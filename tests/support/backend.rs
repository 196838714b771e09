//! Upstream servers, well behaved and not.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt,
    shutdown, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::Netns;
use crate::speech::{Protocol, Speech};

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
    /// Answers so many requests, and closes on [`Backend::release`].
    AnswerUntilReleased(u32),
    /// Answers each request, and resets when the next has not come for so long.
    ResetWhenIdle(Duration),
    /// Answers each request with so many events, one in so long, as server-sent events do; then it closes.
    Events(u32, Duration),
    /// Agrees to another protocol, in which it sends back whatever comes.
    Echo,
    /// Answers whatever comes with a fatal alert of TLS in plain text, and closes.
    RefuseTls,
}

/// What a server does with a request that it does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Reads it and closes.
    Close,
    /// The same, having said goodbye before as TLS does.
    SayGoodbye,
    /// Reads it and resets.
    Reset,
    /// Reads it and waits for [`Backend::release`].
    Hold,
    /// Leaves it unread, also its beginning: there is little room for it.
    ReadNothing,
    /// Says that it is too large before all of it has come, and closes a moment later.
    RefuseBody,
    /// Sends half of the answer, and resets after a moment.
    BeginThenReset,
    /// Sends half of the answer, and closes after a moment.
    BeginThenClose,
    /// Sends half of the answer, and waits for [`Backend::release`].
    BeginThenHold,
}

/// handshake_failure, of TLS 1.2.
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";

/// Long enough that what was sent has been read.
const MOMENT: Duration = Duration::from_millis(100);

/// So much room is left to what is not to be read, in bytes.
const LITTLE: usize = 4096;

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
    /// Its connections, and which of them a request is being answered on.
    connections: Mutex<Vec<(Weak<File>, Arc<AtomicBool>)>>,
}

impl Backend {
    /// Listens at `address` (`HOST:PORT`) in `netns`, and speaks HTTP/1.1.
    #[must_use]
    #[track_caller]
    pub fn start(netns: &Netns, address: &str, manner: Manner) -> Self {
        Self::speaking(Protocol::Http, netns, address, manner)
    }

    /// The same in another protocol.
    #[must_use]
    #[track_caller]
    pub fn speaking(protocol: Protocol, netns: &Netns, address: &str, manner: Manner) -> Self {
        let listener = netns.enter(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|error| panic!("listen at {address}: {error}"));
        // std's backlog overflows in a storm, and each SYN that it drops costs a second.
        listen(&listener, Backlog::MAXCONN).expect("lengthen the backlog");
        if matches!(manner, Manner::AnswerThen(_, Next::ReadNothing)) {
            setsockopt(&listener, sockopt::RcvBuf, &LITTLE).expect("leave little room");
        }
        let descriptor = listener.try_clone().expect("share a listener").into();
        Self::serve(descriptor, move || Ok(listener.accept()?.0.into()), (protocol, manner))
    }

    /// Listens at a unix socket, to which everybody may connect. It lives in the file system, not in a namespace.
    #[must_use]
    #[track_caller]
    pub fn unix(path: &Path, manner: Manner) -> Self {
        let listener = UnixListener::bind(path);
        let listener = listener.unwrap_or_else(|error| panic!("listen at {}: {error}", path.display()));
        open_to_all(path);
        let descriptor = listener.try_clone().expect("share a listener").into();
        Self::serve(descriptor, move || Ok(listener.accept()?.0.into()), (Protocol::Http, manner))
    }

    fn serve(
        listener: OwnedFd,
        accept: impl Fn() -> io::Result<OwnedFd> + Send + 'static,
        what: (Protocol, Manner),
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept_all(accept, what)
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

    /// Ends as a service does that is restarted: it listens no more, closes what is idle, and the others when it has answered.
    pub fn end(self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for (connection, is_busy) in self.shared.connections().iter() {
            let connection = connection.upgrade().filter(|_| !is_busy.load(Ordering::SeqCst));
            let _ = connection.map(|connection| shutdown(connection.as_raw_fd(), Shutdown::Both));
        }
    }
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
    fn connections(&self) -> MutexGuard<'_, Vec<(Weak<File>, Arc<AtomicBool>)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept_all(
        self: &Arc<Self>,
        accept: impl Fn() -> io::Result<OwnedFd>,
        (protocol, manner): (Protocol, Manner),
    ) {
        while !self.stopping.load(Ordering::SeqCst) {
            let Ok(connection) = accept() else { continue };
            self.accepted.fetch_add(1, Ordering::SeqCst);
            let (shared, connection) = (Arc::clone(self), Arc::new(File::from(connection)));
            let is_busy = Arc::new(AtomicBool::new(false));
            let mut connections = self.connections();
            connections.retain(|(connection, _)| connection.strong_count() > 0);
            connections.push((Arc::downgrade(&connection), Arc::clone(&is_busy)));
            drop(connections);
            // A connection ends as the peer pleases, also by a reset: nobody is interested in the error.
            thread::spawn(move || shared.serve(Speech::new(connection, protocol), manner, &is_busy));
        }
    }

    fn serve(&self, mut connection: Speech, manner: Manner, is_busy: &AtomicBool) -> io::Result<()> {
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
                setsockopt(
                    connection.socket(),
                    sockopt::ReceiveTimeout,
                    &TimeVal::milliseconds(milliseconds),
                )?;
            }
            _ => {}
        }
        let mut answered = 0;
        loop {
            let next = match manner {
                Manner::AnswerThen(requests, next) if answered == requests => Some(next),
                _ => None,
            };
            if let Some(next @ Next::ReadNothing) = next {
                connection.greet()?;
                return self.leave(connection, next);
            }
            match connection.read_request(next != Some(Next::RefuseBody)) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) if matches!(manner, Manner::ResetWhenIdle(_)) => return reset(connection),
                Err(error) => return Err(error),
            }
            is_busy.store(true, Ordering::SeqCst);
            if let Some(next) = next {
                return self.leave(connection, next);
            }
            match manner {
                Manner::AnswerAfter(time) if self.is_released_within(time) => return Ok(()),
                Manner::Answer
                | Manner::AnswerUntilIdle(_)
                | Manner::ResetWhenIdle(_)
                | Manner::AnswerThen(..)
                | Manner::AnswerAfter(_) => {
                    connection.answer()?;
                    answered += 1;
                    is_busy.store(false, Ordering::SeqCst);
                    if manner == Manner::Answer && self.stopping.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                }
                Manner::AnswerUntilReleased(requests) => {
                    connection.answer()?;
                    answered += 1;
                    if answered == requests {
                        self.wait_for_release();
                        return Ok(());
                    }
                }
                Manner::AnswerAndClose => return connection.answer(),
                Manner::Echo => {
                    connection.write_all(SWITCHED)?;
                    return echo(&mut connection);
                }
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
                    connection.begin_answer()?;
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

    /// Does not answer a request, or only half.
    fn leave(&self, mut connection: Speech, next: Next) -> io::Result<()> {
        match next {
            Next::Close => return connection.end(),
            Next::SayGoodbye => {
                connection.say_goodbye()?;
                return connection.end();
            }
            Next::Reset => return reset(connection),
            Next::Hold | Next::ReadNothing => self.wait_for_release(),
            Next::RefuseBody => {
                connection.refuse_body()?;
                thread::sleep(MOMENT);
            }
            Next::BeginThenReset | Next::BeginThenClose | Next::BeginThenHold => {
                connection.begin_answer()?;
                if next == Next::BeginThenHold {
                    self.wait_for_release();
                } else {
                    thread::sleep(MOMENT);
                }
                return if next == Next::BeginThenReset { reset(connection) } else { connection.end() };
            }
        }
        Ok(())
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

fn echo(connection: &mut Speech) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            read => connection.write_all(&buffer[..read])?,
        }
    }
}

/// Closes with a reset instead of an orderly end.
fn reset(connection: Speech) -> io::Result<()> {
    let connection = connection.into_socket();
    setsockopt(&*connection, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
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
