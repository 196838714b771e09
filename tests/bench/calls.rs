//! What a process does that is timed: one kind of call, again and again. It waits until it is told to begin, and prints how many
//! nanoseconds a call takes: in the median of short runs, most of which nobody interrupts also on a busy machine.

use std::env;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{self, Backlog};
use nix::unistd::getppid;
use proxytrace_tests::child::Guarded;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::scratch;
use tempfile::TempDir;

use crate::comparison::median;

/// What a caller does.
#[derive(Debug, clap::Args)]
pub(crate) struct Calls {
    /// What a process does that is timed
    #[arg(long, hide = true, value_enum, default_value_t = Call::Getppid)]
    call: Call,

    /// In how many runs
    #[arg(long, hide = true, default_value_t = 1)]
    runs: u32,

    /// How many calls instead, one after the other
    #[arg(long, hide = true)]
    calls: Option<u32>,

    /// How many of those in a second; as many as there can be without it
    #[arg(long, hide = true, requires = "calls")]
    rate: Option<u32>,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Call {
    /// A system call that does next to nothing.
    Getppid,
    /// A socket is made, connect() refused at once, and the socket closed. In a network namespace without anybody else.
    Connect,
    /// A socket is made, connected to a listener of a thread, which closes it, and then closed.
    Established,
    /// A request, and its answer, on one connection that is kept.
    Kept,
    /// A connection is made, and held until the end.
    Hold,
}

/// Where nobody listens.
const CLOSED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Does the calls. A second line says that they are done, and how long one took.
pub(crate) fn make(Calls { call, runs, calls, rate }: Calls) -> Result<()> {
    let address = match call {
        Call::Established => listen(drop)?,
        Call::Kept => listen(answer)?,
        Call::Hold => {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("ask for the limit of files")?;
            setrlimit(Resource::RLIMIT_NOFILE, most, most).context("allow more files")?;
            queue()?
        }
        Call::Getppid | Call::Connect => CLOSED,
    };
    println!("waiting");
    std::io::stdin().read_line(&mut String::new()).context("wait for the beginning")?;
    let nanoseconds = match calls {
        Some(calls) => paced(call, address, calls, rate)?,
        None => {
            let runs: Result<Vec<_>> = (0..runs).map(|_| run(call, address)).collect();
            median(runs?)
        }
    };
    println!("{nanoseconds}");
    // Whoever measures looks at what there is as long as we are here.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// A listener of a thread that does this with every connection.
fn listen(serve: fn(TcpStream)) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let address = listener.local_addr().context("ask for our address")?;
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    Ok(address)
}

/// A listener that accepts nothing: the other ends of connections wait in its queue, which is as long as the network namespace allows,
/// and take no descriptors.
fn queue() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let all = Backlog::new(-1).context("a queue of any length")?;
    socket::listen(&listener, all).context("make the queue longer")?;
    let address = listener.local_addr().context("ask for our address")?;
    std::mem::forget(listener);
    Ok(address)
}

/// A byte for a byte, until the other side ends.
fn answer(mut connection: TcpStream) {
    let mut byte = [0];
    while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
}

/// The nanoseconds of a call in one run, which takes a millisecond or so.
fn run(call: Call, address: SocketAddr) -> Result<f64> {
    let calls = match call {
        Call::Getppid => 5000,
        _ => 50,
    };
    paced(call, address, calls, None)
}

/// The nanoseconds of a call when so many are made, at most so many in a second.
fn paced(call: Call, address: SocketAddr, calls: u32, rate: Option<u32>) -> Result<f64> {
    let start = Instant::now();
    let mut kept = match call {
        Call::Kept => Some(connect(address)?),
        _ => None,
    };
    for number in 0..calls {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        match call {
            Call::Getppid => {
                black_box(getppid());
            }
            Call::Connect => be_refused()?,
            Call::Established => be_answered(address)?,
            Call::Kept => {
                let connection = kept.as_mut().context("a connection that is kept")?;
                connection.write_all(&[0]).context("send a request")?;
                connection.read_exact(&mut [0]).context("wait for the answer")?;
            }
            Call::Hold => std::mem::forget(connect(address)?),
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls))
}

fn be_refused() -> Result<()> {
    match TcpStream::connect(CLOSED) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => bail!("connect to {CLOSED}: {error}, where it should be refused"),
        Ok(_) => bail!("somebody listens at {CLOSED}"),
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(address).with_context(|| format!("connect to {address}"))
}

/// The other side closes first: a port of ours that waits until nothing more can come would be missed soon.
fn be_answered(address: SocketAddr) -> Result<()> {
    let mut stream = connect(address)?;
    let _ = stream.read(&mut [0]).context("wait for the end")?;
    Ok(())
}

/// A process that makes calls, under a name of its own.
pub(crate) struct Caller {
    name: String,
    process: Guarded,
    /// It ends when this is closed.
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl Caller {
    /// Starts it; `options` are those of [`Calls`]. It waits for [`Self::go`].
    pub(crate) fn start(netns: &Netns, kind: &str, options: &[&str]) -> Result<Self> {
        let own = env::current_exe().context("find out where this program is")?;
        let (name, directory) = (scratch::unique_name(kind), scratch::directory());
        scratch::alias(&own, directory.path(), &name);
        let mut command = Command::new(directory.path().join(&name));
        command.args(["--part", "caller"]).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = netns.spawn(&mut command);
        let stdin = process.inner().stdin.take().context("a pipe")?;
        let stdout = BufReader::new(process.inner().stdout.take().context("a pipe")?);
        let mut caller = Self { name, process, stdin, stdout, _directory: directory };
        let line = caller.line()?;
        ensure!(line == "waiting", "a caller printed {line:?}");
        Ok(caller)
    }

    /// The name of its process.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Has it make its calls; gives how many nanoseconds one took.
    pub(crate) fn go(&mut self) -> Result<f64> {
        self.begin()?;
        self.done()
    }

    /// Has it begin.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.stdin.write_all(b"go\n").with_context(|| format!("have process {} begin", self.process.pid()))
    }

    /// Waits until they are made.
    pub(crate) fn done(&mut self) -> Result<f64> {
        let line = self.line()?;
        line.parse().with_context(|| format!("a caller printed {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read what a caller prints")?;
        Ok(line.trim().to_owned())
    }
}
