//! The process that reads: takes requests until its standard input ends, and lets each be worked on by a process that
//! ends with it, so that neither a hostile configuration nor a name server that is silent holds up the next.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::{
    resource::{Resource, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::pipe,
    process::Command,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{Answer, Question, Reply, Request, configuration, pod};
use crate::privilege;

/// The hidden command.
pub const COMMAND: &str = "configuration-reader";

/// How long a request may take, names that nobody answers for included.
const LONGEST: Duration = Duration::from_secs(10);

/// How much memory a request may take, in bytes: twice what the largest configuration does that the limits let pass.
const MEMORY: u64 = 1 << 30;

/// How many requests are worked on at once.
const AT_ONCE: usize = 4;

/// Options of the hidden command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer one request, and end.
    #[arg(long)]
    once: bool,
}

/// Serves until standard input ends.
///
/// # Errors
/// A pipe is gone.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.once {
        return answer_one();
    }
    ignore_signals()?;
    privilege::lower_to_read()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

fn answer_one() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).context("limit memory")?;
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)?;
    let reply = Reply { of: request.of, answer: configuration::answer(&request) };
    io::stdout().write_all(&line(&reply)?)?;
    Ok(())
}

/// It ends when the trace does, which may have a last question when both are told to end: by Ctrl-C, or by systemd.
fn ignore_signals() -> nix::Result<()> {
    for ends in [Signal::SIGINT, Signal::SIGTERM] {
        #[expect(unsafe_code, reason = "nix cannot know what a handler does")]
        // SAFETY: to ignore a signal runs no code.
        unsafe { signal(ends, SigHandler::SigIgn) }?;
    }
    Ok(())
}

async fn serve() -> anyhow::Result<()> {
    let requests = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut replies = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let mut requests = BufReader::new(requests).lines();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let (done, mut answered) = tokio::sync::mpsc::unbounded_channel();
    // By itself, so that requests are taken while a reply waits to be read: neither side then waits for the other.
    let writing = tokio::spawn(async move {
        while let Some(reply) = answered.recv().await {
            replies.write_all(&line(&reply)?).await?;
        }
        anyhow::Ok(())
    });
    while let Some(text) = requests.next_line().await? {
        let request: Request = serde_json::from_str(&text)?;
        let (permits, done) = (Arc::clone(&permits), done.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            // Where nobody hears it any more, this ends as well.
            let _ = done.send(work_on(&request, &text).await);
        });
        while tasks.try_join_next().is_some() {}
    }
    writing.abort();
    Ok(())
}

async fn work_on(request: &Request, text: &str) -> Reply {
    // What the kernel itself tells of mounts harms nobody, and mostly is the whole answer.
    if request.question == Question::Pod && !request.pids.iter().any(|&pid| pod::has_its_mounts(pid)) {
        return Reply { of: request.of, answer: Answer::Pod(None) };
    }
    let why = match timeout(LONGEST, in_a_process(text)).await {
        Ok(Ok(reply)) => return reply,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("it was not read after {LONGEST:?}"),
    };
    Reply { of: request.of, answer: request.question.unanswered(why) }
}

async fn in_a_process(text: &str) -> anyhow::Result<Reply> {
    let mut child = Command::new("/proc/self/exe")
        .args([COMMAND, "--once"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start a process to read it (/proc/self/exe)")?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    stdin.write_all(text.as_bytes()).await.context("hand it the request")?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    anyhow::ensure!(output.status.success(), "the process that read it ended with {}", words(output.status));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// An allocation beyond the limit aborts.
fn words(status: ExitStatus) -> String {
    format!("{status}; a configuration may take {} MiB of memory, and {LONGEST:?}", MEMORY >> 20)
}

fn line(reply: &Reply) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(line)
}
