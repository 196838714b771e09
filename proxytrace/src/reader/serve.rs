//! The process that reads: takes requests until its standard input ends, and lets each be worked on by a process that
//! ends with it, so that neither a hostile configuration nor a name server that is silent holds up the next.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe,
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    configuration, confine,
    follow::{self, Followed, Opened},
    handing,
    holder::Owner,
    lines::Lines,
    protocol::{Answer, MAX_ANSWER, MAX_REQUEST, Question, Reply, Request},
    queue::{Job, Queue, Ticket},
    said::{Said, TOO_LARGE},
};
use crate::privilege;

/// The hidden command.
pub const COMMAND: &str = "configuration-reader";

/// How long a request may take. Milliseconds are enough, but a host that is in trouble, or a machine that is emulated, may need
/// more than ten seconds to start a process. Where others wait for their turn it is less (see the queue).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How much memory a request may take, in bytes: more than the largest configuration does that the limits let pass.
const MEMORY: u64 = 256 << 20;

/// So many answers wait for the trace to take them; while they do, no further question is worked on.
const MAX_REPLIES: usize = 4;

/// How often it is looked whether somebody waits for a child that has had its time.
const LOOK: Duration = Duration::from_millis(50);

/// Serves until standard input ends; or answers one request, and ends.
///
/// # Errors
/// A pipe is gone.
pub fn run(once: bool) -> anyhow::Result<()> {
    if once {
        return answer_one();
    }
    ignore_signals()?;
    privilege::lower_to_read()?;
    end_with_parent()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

/// Also when this process is stopped, and so does not see that its standard input ends. To be called after capabilities were
/// given up: the kernel then forgets it.
fn end_with_parent() -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("ask to be ended with the process that asks")
}

fn answer_one() -> anyhow::Result<()> {
    // Where memory runs out the kernel ends children first: they are asked again, who asks is not replaced.
    fs::write("/proc/self/oom_score_adj", "1000").context("be the first in the way of the OOM killer")?;
    confine::limit()?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).context("limit memory")?;
    end_with_parent()?;
    let mut text = String::new();
    io::stdin().take(MAX_REQUEST as u64 + 1).read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)?;
    drop(text);
    let (answer, files) = configuration::answer(&request);
    if request.question == Question::Log {
        handing::give(io::stdin(), &files).context("hand logs over")?;
    }
    drop(files);
    let answer = Said::Answer(answer);
    let line = answer.line().or_else(|error| {
        if error.io_error_kind() != Some(io::ErrorKind::FileTooLarge) {
            return Err(error);
        }
        Said::Answer(request.question.unanswered(TOO_LARGE.to_owned())).line()
    })?;
    io::stdout().write_all(&line)?;
    Ok(())
}

/// It ends when the trace does, which may have a last question when both are to end: by Ctrl-C, or by systemd. SIGHUP, which has an
/// agent read its configuration again, comes to both from whoever signals a whole service (`systemctl kill`).
fn ignore_signals() -> nix::Result<()> {
    for ends in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        #[expect(unsafe_code, reason = "nix cannot know what a handler does")]
        // SAFETY: to ignore a signal runs no code.
        unsafe { signal(ends, SigHandler::SigIgn) }?;
    }
    Ok(())
}

async fn serve() -> anyhow::Result<()> {
    let requests = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let replies = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let mut requests = Lines::new(requests, MAX_REQUEST);
    let mut desk = Desk::new(replies);
    let mut check = interval(LOOK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut logs = interval(follow::LOOK);
    logs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            line = requests.next() => match line? {
                Some(line) => desk.take(serde_json::from_slice(&line)?),
                None => return Ok(()),
            },
            Some(event) = desk.events.recv() => desk.note(event),
            _ = check.tick(), if desk.queue.is_unsettled() => desk.check(),
            _ = logs.tick(), if !desk.followed.is_empty() => desk.look_at_logs(),
        }
        desk.start();
    }
}

/// Who takes questions, lets children work on them, and knows what becomes of those.
struct Desk {
    queue: Queue,
    followed: Followed,
    /// How children learn that their time is over.
    ends: HashMap<Ticket, oneshot::Sender<()>>,
    replies: mpsc::Sender<Reply>,
    events: mpsc::UnboundedReceiver<(Ticket, Event)>,
    report: mpsc::UnboundedSender<(Ticket, Event)>,
}

/// What becomes of a child.
#[derive(Debug)]
enum Event {
    FilesRead,
    /// It has opened the logs of a proxy.
    LogsOpened(Box<Opened>),
    /// It has answered, or was killed: it ends.
    Ends,
    /// It was reaped.
    Ended,
}

impl Desk {
    fn new(replies: pipe::Sender) -> Self {
        let (report, events) = mpsc::unbounded_channel();
        let (sender, receiver) = mpsc::channel(MAX_REPLIES);
        tokio::spawn(write(replies, receiver));
        let (queue, followed) = (Queue::default(), Followed::default());
        Self { queue, followed, ends: HashMap::new(), replies: sender, events, report }
    }

    fn take(&mut self, request: Request) {
        let owner = Owner::of_any(&request.pids);
        if let Err(request) = self.queue.push(owner, request) {
            self.refuse(owner, &request);
        }
    }

    fn note(&mut self, (ticket, event): (Ticket, Event)) {
        match event {
            Event::FilesRead => self.queue.note_files_read(ticket),
            Event::LogsOpened(opened) => self.followed.note(*opened, Instant::now()),
            Event::Ends => self.queue.note_dying(ticket, Instant::now()),
            Event::Ended => {
                self.ends.remove(&ticket);
                self.queue.note_ended(ticket, Instant::now());
            }
        }
    }

    fn check(&mut self) {
        let now = Instant::now();
        for request in self.queue.note_stuck(now) {
            self.refuse(Owner::of_any(&request.pids), &request);
        }
        while let Some(ticket) = self.queue.overdue(now) {
            self.queue.note_dying(ticket, now);
            if let Some(end) = self.ends.remove(&ticket) {
                // It may just have ended.
                let _ = end.send(());
            }
        }
    }

    fn look_at_logs(&mut self) {
        // Whoever does not take answers gets no more of them: logs wait.
        if self.replies.capacity() == 0 {
            return;
        }
        let looked = self.followed.look(Instant::now());
        looked.reopen.into_iter().for_each(|request| self.take(request));
        if !looked.replies.is_empty() {
            let replies = self.replies.clone();
            tokio::spawn(async move {
                for reply in looked.replies {
                    let _ = replies.send(reply).await;
                }
            });
        }
    }

    /// Its owner has children that do not end.
    fn refuse(&self, owner: Owner, request: &Request) {
        let why = "processes that read for the same user hang in the kernel, as on a file system that does not answer: \
                   nothing more is read for it before they end";
        let reply = Reply { id: request.id, owner, answer: request.question.unanswered(why.to_owned()) };
        let replies = self.replies.clone();
        tokio::spawn(async move { replies.send(reply).await });
    }

    fn start(&mut self) {
        // Whoever does not take answers gets no more of them.
        while self.replies.capacity() > 0
            && let Some(job) = self.queue.next(Instant::now())
        {
            let (end, ended) = oneshot::channel();
            self.ends.insert(job.ticket, end);
            tokio::spawn(work_on(job, ended, self.replies.clone(), self.report.clone()));
        }
    }
}

/// By itself, so that requests are taken while a reply waits to be read: neither side then waits for the other.
async fn write(mut pipe: pipe::Sender, mut replies: mpsc::Receiver<Reply>) -> anyhow::Result<()> {
    while let Some(reply) = replies.recv().await {
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        pipe.write_all(&line).await?;
    }
    Ok(())
}

async fn work_on(
    job: Job,
    ended: oneshot::Receiver<()>,
    replies: mpsc::Sender<Reply>,
    report: mpsc::UnboundedSender<(Ticket, Event)>,
) {
    let Job { ticket, owner, request } = job;
    let report = |event| {
        // Where nobody hears it any more, this ends as well.
        let _ = report.send((ticket, event));
    };
    let started = Instant::now();
    let (mut child, mut files) = (None, Vec::new());
    let asked = timeout(REQUEST_TIMEOUT, ask(&mut child, &mut files, &request, || report(Event::FilesRead)));
    let answer = tokio::select! {
        asked = asked => match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("it was not read after {REQUEST_TIMEOUT:?}")),
        },
        _ = ended => Err(format!(
            "it was not read after {:.1} s, and others waited for their turn",
            started.elapsed().as_secs_f64()
        )),
    };
    let answer = answer.unwrap_or_else(|why| request.question.unanswered(why));
    if let Answer::Log { master, names } = &answer {
        let names: HashSet<_> = names.iter().cloned().collect();
        let (request, master) = (request.clone(), *master);
        report(Event::LogsOpened(Box::new(Opened { request, owner, master, names, files })));
    }
    if let Some(mut child) = child {
        // It has nothing more to say.
        let _ = child.start_kill();
        report(Event::Ends);
        let reply = replies.send(Reply { id: request.id, owner, answer });
        let reap = async {
            let _ = child.wait().await;
            report(Event::Ended);
        };
        let _ = tokio::join!(reply, reap);
    } else {
        report(Event::Ended);
        let _ = replies.send(Reply { id: request.id, owner, answer }).await;
    }
}

/// Starts a child, hands it the request, and hears what it says.
async fn ask(
    started: &mut Option<Child>,
    files: &mut Vec<File>,
    request: &Request,
    note_files_read: impl Fn(),
) -> anyhow::Result<Answer> {
    // A socket, and no pipe: files come back through it.
    let (ours, theirs) = UnixStream::pair().context("make a socket")?;
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    let child = Command::new("/proc/self/exe")
        .args([COMMAND, "--once"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start a process to read it (/proc/self/exe)")?;
    let child = started.insert(child);
    let stdout = child.stdout.take().context("it has no standard output")?;
    // Of one that is killed meanwhile the status says so.
    let _ = ours.write_all(&serde_json::to_vec(request)?).await;
    let _ = ours.shutdown().await;
    let mut lines = Lines::new(stdout, MAX_ANSWER);
    loop {
        let Some(line) = lines.next().await.context("take its answer")? else {
            let status = child.wait().await?;
            anyhow::bail!("the process that read it ended with {}", words(status));
        };
        match serde_json::from_slice(&line)? {
            Said::FilesRead => note_files_read(),
            Said::Answer(answer) => {
                anyhow::ensure!(
                    is_answer_to(&answer, &request.question),
                    "its answer is to another question"
                );
                if matches!(answer, Answer::Log { .. }) {
                    *files = handing::take(&ours).context("take its files")?;
                }
                return Ok(answer);
            }
        }
    }
}

/// Children are exposed to what they read: what they say is believed as far as it was asked.
const fn is_answer_to(answer: &Answer, question: &Question) -> bool {
    match answer {
        Answer::Configuration(_) => matches!(question, Question::Configuration),
        Answer::Addresses(_) => matches!(question, Question::Addresses(_)),
        Answer::Rejection { .. } => matches!(question, Question::Rejection { .. }),
        Answer::Pod(_) => matches!(question, Question::Pod),
        Answer::Log { .. } => matches!(question, Question::Log),
        Answer::Hints(_) => matches!(question, Question::Hints(_)),
        // That comes from what was handed over, and from no child.
        Answer::Complaints { .. } => false,
        Answer::Unreadable(_) | Answer::NoKnownProxy => true,
    }
}

/// An allocation beyond the limit aborts.
fn words(status: ExitStatus) -> String {
    format!("{status}; a configuration may take {} MiB of memory, and {REQUEST_TIMEOUT:?}", MEMORY >> 20)
}
