//! `proxytrace trace` as a person sees it: shown line by line, and each line remembered with the time it came.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use nix::sys::signal::Signal;
use proxytrace_tests::child::Guarded;
use proxytrace_tests::proxytrace;
use proxytrace_tests::wait::{self, SOON};

pub(crate) struct Live {
    child: Guarded,
    lines: Lines,
    printers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<(SystemTime, String)>>>;

impl Live {
    /// Starts it, and returns when it has said what it watches.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = proxytrace::command();
        command.arg("trace").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Guarded::spawn(&mut command);
        let lines = Lines::default();
        let printers = [
            child.inner().stdout.take().map(|pipe| print_all(pipe, &lines)),
            child.inner().stderr.take().map(|pipe| print_all(pipe, &lines)),
        ];
        let live = Self { child, lines, printers: printers.into_iter().flatten().collect() };
        wait::until("trace to say what it watches", SOON, || live.first_with("", SystemTime::UNIX_EPOCH));
        live
    }

    /// When the first line came since then that has `words` in it.
    pub(crate) fn first_with(&self, words: &str, since: SystemTime) -> Option<SystemTime> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find(|(time, line)| *time >= since && line.contains(words)).map(|(time, _)| *time)
    }

    /// Ends it as Ctrl-C does; its summary is shown as well.
    pub(crate) fn stop(&mut self) {
        self.child.signal(Signal::SIGINT);
        self.child.wait(SOON);
        for printer in self.printers.drain(..) {
            let _ = printer.join();
        }
    }
}

fn print_all(pipe: impl Read + Send + 'static, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let now = SystemTime::now();
            println!("  trace | {line}");
            lines.lock().unwrap_or_else(PoisonError::into_inner).push((now, line));
        }
    })
}
