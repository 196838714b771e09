//! Logging to standard error: at once, or through a queue for a command that must not wait for whoever reads it.

use std::{
    borrow::Cow,
    env,
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{escape, threads};

/// What waits to be written takes no more memory, in bytes.
const MAX_QUEUED: usize = 1 << 20;

/// How long the end of the program waits for what is queued.
const FLUSH: Duration = Duration::from_millis(200);

/// The variable that says in detail what is logged.
pub const VARIABLE: &str = "PROXYTRACE_LOG";

static QUEUE: OnceLock<Queue> = OnceLock::new();

static LEVEL: OnceLock<Level> = OnceLock::new();

/// How the level of what is logged is changed.
struct Level {
    usual: &'static str,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// How much is logged to standard error, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Log {
    /// Log more; twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Logging")]
    pub verbose: u8,
    /// Log errors only, and leave out notes.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    pub quiet: bool,
    /// How to log.
    #[arg(
        long,
        value_enum,
        default_value_t,
        global = true,
        env = "PROXYTRACE_LOG_FORMAT",
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
}

/// A format of log lines.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// How log lines get to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Whoever logs writes, and waits.
    Direct,
    /// A thread writes. Lines are dropped while standard error takes none and the queue is full, which is said later.
    Queued,
}

/// Starts logging. `usual` is the level where nothing else is asked for; [`VARIABLE`] overrides it in detail.
///
/// # Errors
/// The thread that writes could not be started.
pub fn start(log: &Log, usual: &'static str, way: Way) -> anyhow::Result<()> {
    if way == Way::Queued {
        Queue::start()?;
    }
    let (filter, handle) = reload::Layer::new(filter(log, usual));
    let lines = fmt::layer().with_target(false);
    let lines = match log.log_format {
        LogFormat::Text => lines.with_ansi(false).with_writer(|| Escaping(Stderr, line)).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_writer(|| Escaping(Stderr, escape::json)).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    // A program starts this once.
    let _ = LEVEL.set(Level { usual, handle });
    Ok(())
}

/// Says that [`VARIABLE`] cannot be read, where it is set to something else than a filter.
pub fn check_variable() {
    if let Err(error) = EnvFilter::try_from_env(VARIABLE)
        && env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
    {
        tracing::warn!("{VARIABLE} counts as not set: {error}; write for example proxytrace=debug");
    }
}

/// Changes the level of what is logged from now on; the format stays.
pub fn change_level(log: &Log) {
    if let Some(Level { usual, handle }) = LEVEL.get()
        && let Err(error) = handle.reload(filter(log, usual))
    {
        tracing::warn!("change the log level: {error}");
    }
}

fn filter(log: &Log, usual: &str) -> EnvFilter {
    let level = match (log.quiet, log.verbose) {
        (true, _) => "error",
        (false, 0) => usual,
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| {
        // Of the libraries, only what is wrong.
        EnvFilter::new(format!("warn,proxytrace={level}"))
    })
}

/// Escapes what a message has of others: a line of the log is one message, and does nothing to a terminal.
struct Escaping<W>(W, fn(&str) -> Cow<'_, str>);

impl<W: Write> Write for Escaping<W> {
    /// Each message comes in one piece, with its end.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.write_all(self.1(&String::from_utf8_lossy(message)).as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A line of text; the last character ends it.
fn line(message: &str) -> Cow<'_, str> {
    match message.strip_suffix('\n') {
        Some(text) => (escape::printable(text).into_owned() + "\n").into(),
        None => escape::printable(message),
    }
}

/// Writes the last words of the program, and waits a little until they and what was logged before are written.
pub fn finish(words: &str) {
    // Where nobody reads, nobody is to wait.
    let _ = Stderr.write_all(words.as_bytes());
    if let Some(queue) = QUEUE.get() {
        let (done, is_done) = sync_channel(1);
        let _ = queue.sender.send(Entry::Flush(done));
        let _ = is_done.recv_timeout(FLUSH);
    }
}

/// What waits to be written.
#[derive(Debug)]
struct Queue {
    sender: Sender<Entry>,
    /// The bytes in it.
    size: AtomicUsize,
    /// Lines that found no place since that was last said.
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Entry {
    Line(Box<[u8]>),
    /// To be answered when everything before is written.
    Flush(SyncSender<()>),
}

impl Queue {
    const fn new(sender: Sender<Entry>) -> Self {
        Self { sender, size: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    }

    fn start() -> anyhow::Result<()> {
        let (sender, entries) = channel();
        let queue = QUEUE.get_or_init(|| Self::new(sender));
        threads::start_without_capabilities("log", move || Ok(move || queue.write(&entries, io::stderr())))
    }

    fn push(&self, line: &[u8]) {
        if self.size.fetch_add(line.len(), Relaxed) + line.len() > MAX_QUEUED {
            self.size.fetch_sub(line.len(), Relaxed);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        // The thread that takes them runs as long as the program.
        let _ = self.sender.send(Entry::Line(line.into()));
    }

    /// Writes what comes; standard error that is gone takes everything.
    fn write(&self, entries: &Receiver<Entry>, mut to: impl Write) {
        for entry in entries {
            match entry {
                Entry::Line(line) => {
                    let _ = to.write_all(&line);
                    self.size.fetch_sub(line.len(), Relaxed);
                }
                Entry::Flush(done) => {
                    let _ = done.try_send(());
                }
            }
            let dropped = self.dropped.swap(0, Relaxed);
            if dropped > 0 {
                tracing::warn!("dropped {dropped} lines of this log, as standard error was not read");
            }
        }
    }
}

/// Standard error, in the way that was chosen.
#[derive(Clone, Copy, Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => {
                queue.push(line);
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{atomic::Ordering::Relaxed, mpsc::channel},
    };

    use super::{Entry, Escaping, MAX_QUEUED, Queue, line};
    use crate::escape;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let written = |message: &str, form| {
            let mut out = Vec::new();
            Escaping(&mut out, form).write_all(message.as_bytes()).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("a\nFORGED\u{1b}[2J\n", line), "a\\u{a}FORGED\\u{1b}[2J\n");
        assert_eq!(written("{\"a\":\"\u{202e}\"}\n", escape::json), "{\"a\":\"\\u202e\"}\n");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_is_written_frees_its_bytes() {
        let (sender, entries) = channel();
        let queue = Queue::new(sender);
        let half = vec![b'x'; MAX_QUEUED / 2];
        (0..5).for_each(|_| queue.push(&half));
        assert_eq!((queue.size.load(Relaxed), queue.dropped.load(Relaxed)), (MAX_QUEUED, 3));

        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        queue.sender.send(Entry::Flush(done)).unwrap();
        let mut written = Vec::new();
        let Queue { sender, size, dropped } = queue;
        // Nobody can send any more: writing comes to its end.
        let queue = Queue { sender: channel().0, size, dropped };
        drop(sender);
        queue.write(&entries, &mut written);
        assert_eq!(written.len(), MAX_QUEUED);
        assert_eq!((queue.size.load(Relaxed), queue.dropped.load(Relaxed)), (0, 0));
        is_done.recv().unwrap();
    }
}
