//! Connects as its plan (the only argument, JSON) says, and prints what came of it, a count a line.
//!
//! It begins when a line comes in on stdin, and lets go of what it holds when stdin ends.

#![expect(unsafe_code, reason = "it makes system calls that nix does not know, and forks")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr,
    bind, connect, getsockname, getsockopt, send, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use proxytrace_tests::client::{Count, How, KILLED_TOGETHER, Plan, Step};
use proxytrace_tests::sockmap::Sockmap;

fn main() {
    let argument = std::env::args().nth(1).expect("a plan");
    let plan: Plan = serde_json::from_str(&argument).expect("a plan in JSON");
    let _ = io::stdin().read(&mut [0; 3]).expect("wait for the beginning");
    if plan.processes == 1 {
        return follow(&plan);
    }
    let children: Vec<_> = (0..plan.processes).map(|_| in_a_child(|| follow(&plan))).collect();
    children.into_iter().for_each(reap);
}

/// Does all the rounds of a plan.
fn follow(plan: &Plan) {
    let mut connector = Connector::default();
    let rounds = plan.steps.iter().map(|step| step.times).max().unwrap_or(0);
    for round in 0..rounds {
        let steps = plan.steps.iter().filter(|step| round < step.times);
        if plan.fork_every > 0 && round % plan.fork_every == 0 {
            let steps = steps.clone();
            reap(in_a_child(|| {
                let mut child = Connector::default();
                steps.for_each(|step| child.connect(step));
                child.report();
            }));
        }
        steps.for_each(|step| connector.connect(step));
    }
    connector.report();
    if !connector.held.is_empty() {
        io::stdin().read_to_end(&mut Vec::new()).expect("wait for the end");
    }
}

/// What one process has done, and what it holds.
#[derive(Default)]
struct Connector {
    counts: BTreeMap<(String, &'static str), u64>,
    held: Vec<OwnedFd>,
    taken: BTreeMap<String, SockaddrStorage>,
}

impl Connector {
    fn connect(&mut self, step: &Step) {
        let target = Target::parse(&step.address);
        let result = match step.how {
            How::Blocking => target.connect(&target.socket(SockFlag::empty())),
            How::Polled => target.connect_and_poll(fetch_error),
            How::AskedTwice => target.connect_and_poll(|polled| match target.connect(polled) {
                Err(Errno::EISCONN) => Ok(()),
                result => result,
            }),
            How::Impatient => {
                let impatient = target.socket(SockFlag::empty());
                setsockopt(&impatient, sockopt::SendTimeout, &TimeVal::milliseconds(50))
                    .expect("limit connect()");
                target.connect(&impatient)
            }
            How::Abandoned => {
                let abandoned = target.socket(SockFlag::SOCK_NONBLOCK);
                let result = target.connect(&abandoned);
                if has_resent(&abandoned) {
                    *self.counts.entry((target.name, "given_up")).or_default() += 1;
                    return;
                }
                result
            }
            How::Held | How::HandedOver => {
                let kept = target.socket(SockFlag::SOCK_NONBLOCK);
                assert_eq!(target.connect(&kept), Err(Errno::EINPROGRESS), "a handshake that takes time");
                if step.how == How::HandedOver {
                    hand_over(&kept);
                } else {
                    self.held.push(kept);
                }
                return;
            }
            How::Multipath => target.connect(&target.multipath_socket()),
            How::FastOpen => {
                let deferred = target.fast_open_socket(true);
                let sent = || send(deferred.as_raw_fd(), b"x", MsgFlags::MSG_NOSIGNAL).map(drop);
                target.connect(&deferred).and_then(|()| sent())
            }
            How::FastOpenAbandoned => {
                target
                    .connect(&target.fast_open_socket(true))
                    .expect("a connect() that only notes the address");
                Err(Errno::EINPROGRESS)
            }
            How::FastOpenSend => {
                let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN) | MsgFlags::MSG_NOSIGNAL;
                let socket = target.fast_open_socket(false);
                let (data, address) = ([IoSlice::new(b"x")], target.storage());
                sendmsg(socket.as_raw_fd(), &data, &[], flags, Some(&address)).map(drop)
            }
            How::Bypassed => {
                answered_past_tcp(&step.address);
                Ok(())
            }
            How::FromTakenPort => self.connect_from_taken_port(&target, &step.address),
            How::NotAnAttempt => return target.connect_in_vain(),
            How::KilledTogether => {
                kill_in_connect(&step.address);
                *self.counts.entry((target.name, "cancelled")).or_default() += KILLED_TOGETHER as u64;
                return;
            }
        };
        self.count(&target, result);
    }

    /// The first connection takes the port, and is an attempt as well.
    ///
    /// bind() chooses the port, not connect(): a port that connect() chose is shared with what others connect,
    /// and while one of them is there that cannot share it, nobody can bind to it.
    fn connect_from_taken_port(&mut self, target: &Target, address: &str) -> nix::Result<()> {
        let attempt = target.socket(SockFlag::empty());
        setsockopt(&attempt, sockopt::ReuseAddr, &true).expect("share a port");
        if let Some(local) = self.taken.get(address) {
            bind(attempt.as_raw_fd(), local).expect("bind to a port that is shared");
            return target.connect(&attempt);
        }
        bind(attempt.as_raw_fd(), &target.any_port()).expect("bind to a port that is free");
        target.connect(&attempt)?;
        let local = getsockname(attempt.as_raw_fd()).expect("the port that was chosen");
        self.taken.insert(address.to_owned(), local);
        self.held.push(attempt);
        Ok(())
    }

    fn count(&mut self, target: &Target, result: nix::Result<()>) {
        *self.counts.entry((target.name.clone(), outcome(result))).or_default() += 1;
    }

    /// One write for all, so that the lines of several processes do not mix.
    fn report(&self) {
        let mut lines = String::new();
        for ((address, outcome), &count) in &self.counts {
            let count = Count { address: address.clone(), outcome: (*outcome).to_owned(), count };
            lines += &serde_json::to_string(&count).expect("write a count");
            lines.push('\n');
        }
        assert!(lines.len() <= libc::PIPE_BUF, "a report that fits into one write");
        io::stdout().write_all(lines.as_bytes()).and_then(|()| io::stdout().flush()).expect("report");
    }
}

/// Whether a SYN was sent again: on an emulated machine a second may go by between two system calls.
fn has_resent(socket: &OwnedFd) -> bool {
    // SAFETY: numbers only, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: as much is written as the length says, which is that of `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    // There is none of a unix socket.
    result == 0 && info.tcpi_total_retrans > 0
}

/// The contract's name of what a connect() came to, when the socket is closed after it.
fn outcome(result: nix::Result<()>) -> &'static str {
    match result {
        Ok(()) => "established",
        Err(Errno::EINPROGRESS) => "cancelled",
        Err(Errno::ECONNREFUSED) => "refused",
        Err(Errno::ETIMEDOUT) => "timed_out",
        Err(Errno::EHOSTUNREACH) => "host_unreachable",
        Err(Errno::ENETUNREACH) => "network_unreachable",
        Err(Errno::ECONNRESET) => "reset",
        Err(Errno::EACCES | Errno::EPERM) => "permission_denied",
        Err(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => "no_local_port",
        Err(Errno::ENOENT) => "no_such_socket",
        Err(Errno::EAGAIN) => "backlog_full",
        Err(_) => "other",
    }
}

/// Where to connect to.
struct Target {
    /// As in the metrics.
    name: String,
    family: AddressFamily,
    address: Box<dyn SockaddrLike>,
}

impl Target {
    fn parse(address: &str) -> Self {
        if let Some(name) = address.strip_prefix("unix:@") {
            let unix = UnixAddr::new_abstract(name.as_bytes()).expect("an abstract name");
            // What a line and a label cannot hold is replaced.
            let name = address.replace('\0', "\u{fffd}");
            return Self { name, family: AddressFamily::Unix, address: Box::new(unix) };
        }
        if let Some(path) = address.strip_prefix("unix:") {
            let unix = UnixAddr::new(path).expect("a unix address");
            return Self { name: address.to_owned(), family: AddressFamily::Unix, address: Box::new(unix) };
        }
        let inet: SocketAddr = address.parse().expect("HOST:PORT");
        Self {
            // An IPv4 address is one, also where it is written as an IPv6 one.
            name: SocketAddr::new(inet.ip().to_canonical(), inet.port()).to_string(),
            family: if inet.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
            address: Box::new(SockaddrStorage::from(inet)),
        }
    }

    fn socket(&self, flags: SockFlag) -> OwnedFd {
        socket(self.family, SockType::Stream, flags, None).expect("make a socket")
    }

    fn connect(&self, socket: &OwnedFd) -> nix::Result<()> {
        connect(socket.as_raw_fd(), &*self.address)
    }

    fn multipath_socket(&self) -> OwnedFd {
        // SAFETY: numbers only.
        let made = unsafe { libc::socket(self.family as i32, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
        let made = Errno::result(made).expect("make a socket of multipath TCP");
        // SAFETY: the kernel has just made this descriptor for us.
        unsafe { OwnedFd::from_raw_fd(made) }
    }

    /// A socket that may send data with its SYN, without having been at that host before.
    fn fast_open_socket(&self, at_connect: bool) -> OwnedFd {
        let socket = self.socket(SockFlag::empty());
        for option in [Some(libc::TCP_FASTOPEN_NO_COOKIE), at_connect.then_some(libc::TCP_FASTOPEN_CONNECT)] {
            option.into_iter().for_each(|option| switch_on(&socket, option));
        }
        socket
    }

    /// Any address and any port of its family.
    fn any_port(&self) -> SockaddrStorage {
        let any: IpAddr = match self.family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(any, 0).into()
    }

    fn storage(&self) -> SockaddrStorage {
        // SAFETY: the address of that length that this has.
        unsafe { SockaddrStorage::from_raw(self.address.as_ptr(), Some(self.address.len())) }
            .expect("an address")
    }

    /// A non-blocking connect(); where it leaves the outcome open, `fetch` gets it when it is there.
    fn connect_and_poll(&self, fetch: impl FnOnce(&OwnedFd) -> nix::Result<()>) -> nix::Result<()> {
        let socket = self.socket(SockFlag::SOCK_NONBLOCK);
        match self.connect(&socket) {
            Err(Errno::EINPROGRESS) => {
                let mut writable = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut writable, PollTimeout::NONE).expect("wait for the handshake");
                fetch(&socket)
            }
            result => result,
        }
    }

    fn connect_in_vain(&self) {
        let datagram =
            socket(self.family, SockType::Datagram, SockFlag::empty(), None).expect("make a socket");
        let _ = connect(datagram.as_raw_fd(), &*self.address);
        let file = File::open("/dev/null").expect("open a file");
        assert_eq!(connect(file.as_raw_fd(), &*self.address), Err(Errno::ENOTSOCK));
        assert_eq!(connect(-1, &*self.address), Err(Errno::EBADF));
        disconnect(&self.socket(SockFlag::empty()));
    }
}

/// A connection whose other end answers by a sockmap, and closes.
fn answered_past_tcp(address: &str) {
    const ANSWER: &[u8] = b"ok";
    let listener = TcpListener::bind(address).expect("listen");
    let mut client = TcpStream::connect(address).expect("connect to ourselves");
    let (mut upstream, _) = listener.accept().expect("accept");
    let sockmap = Sockmap::of(&client, &upstream);
    upstream.write_all(ANSWER).expect("answer");
    let mut answer = [0; ANSWER.len()];
    client.read_exact(&mut answer).expect("read the answer");
    assert_eq!(answer, ANSWER);
    drop(upstream);
    assert_eq!(client.read(&mut answer).expect("the end of the connection"), 0);
    drop(sockmap);
}

/// Switches an option of TCP on; nix does not know these.
fn switch_on(socket: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    let size = u32::try_from(size_of_val(&on)).expect("a small number");
    // SAFETY: the value outlives the call, and has this size.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const on).cast(), size)
    };
    Errno::result(done).expect("set an option of a socket");
}

/// connect() to `AF_UNSPEC`, which undoes an earlier connect(); nix has no such address.
fn disconnect(socket: &OwnedFd) {
    let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let length = u32::try_from(size_of_val(&nowhere)).expect("a small number");
    // SAFETY: the address is whole and outlives the call.
    let _ = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
}

/// The outcome of a handshake that was waited for.
fn fetch_error(socket: &OwnedFd) -> nix::Result<()> {
    match getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Sends a socket to the test, which is at the other end of stdin.
fn hand_over(socket: &OwnedFd) {
    let descriptors = [socket.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(0, &[IoSlice::new(b"!")], &message, MsgFlags::empty(), None).expect("hand over a socket");
}

/// Lets all threads of a child wait in connect() to an address, each on another processor than the one before where there are
/// two, and kills it.
fn kill_in_connect(address: &str) {
    let wait = |n: usize| {
        let mut processors = CpuSet::new();
        processors.set(n % 2).expect("a processor");
        let _ = sched_setaffinity(Pid::from_raw(0), &processors);
        let target = Target::parse(address);
        let result = target.connect(&target.socket(SockFlag::empty()));
        unreachable!("connect() returned with {result:?} before the child was killed");
    };
    let child = in_a_child(|| {
        thread::scope(|scope| {
            (1..KILLED_TOGETHER).for_each(|n| drop(scope.spawn(move || wait(n))));
            wait(0);
        });
    });
    let waits = |call: &String| call.split(' ').next() == Some(&libc::SYS_connect.to_string());
    loop {
        let threads = fs::read_dir(format!("/proc/{child}/task")).expect("the child's threads");
        let calls =
            threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("syscall")).ok());
        if calls.filter(waits).count() == KILLED_TOGETHER {
            break;
        }
        thread::yield_now();
    }
    kill(child, Signal::SIGKILL).expect("kill the child");
    waitpid(child, None).expect("wait for the child");
}

fn in_a_child(work: impl FnOnce()) -> Pid {
    // SAFETY: this program has only one thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            work();
            std::process::exit(0);
        }
    }
}

fn reap(child: Pid) {
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)), "a child that did well");
}
