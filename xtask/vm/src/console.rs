//! A virtual machine: started, watched line by line, and ended in any case.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a kernel says after it panicked comes in that time.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How many of a console's last lines are shown when a machine was not done.
const TAIL: usize = 20;

/// Starts a machine and reads its console until it goes off, also into `log`, each line after the seconds since the start.
/// `read` gets each line, and gives why the machine cannot be trusted any more, if so. Gives why it was ended, if it did not
/// go off itself.
///
/// # Errors
/// The machine could not be started, or the log not be written.
pub fn watch(
    command: &mut Command,
    log: &Path,
    limits: &Limits,
    mut read: impl FnMut(&str) -> Option<String>,
) -> Result<Option<String>> {
    let mut log_file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut machine = Machine::start(command, &log_file)?;
    let lines = machine.console()?;
    let start = Instant::now();
    let mut last_line = start;
    loop {
        let left = match limits.left(start.elapsed(), last_line.elapsed()) {
            Ok(left) => left,
            Err(over) => return Ok(Some(over)),
        };
        match lines.recv_timeout(left) {
            Ok(line) => {
                last_line = Instant::now();
                writeln!(log_file, "{:7.1} {line}", start.elapsed().as_secs_f32())
                    .with_context(|| format!("write {}", log.display()))?;
                if let Some(trouble) = read(&line) {
                    let deadline = Instant::now() + LAST_WORDS;
                    while let Ok(line) =
                        lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                    {
                        let _ = writeln!(log_file, "{line}");
                    }
                    return Ok(Some(trouble));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// The last lines of a console that was written to `log`.
#[must_use]
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// How long a machine may take.
#[derive(Debug)]
pub struct Limits {
    /// Without a line on its console.
    pub silence: Duration,
    /// In all.
    pub total: Duration,
}

impl Limits {
    /// How long to wait for the next line, or which limit is over.
    fn left(&self, running: Duration, silent: Duration) -> Result<Duration, String> {
        if running >= self.total {
            return Err(format!("it was not done after {} s", self.total.as_secs()));
        }
        if silent >= self.silence {
            return Err(format!("it hangs: nothing on its console for {} s", self.silence.as_secs()));
        }
        Ok((self.total - running).min(self.silence - silent))
    }
}

/// A running emulator; killed when it is dropped.
struct Machine(Child);

impl Machine {
    fn start(command: &mut Command, log: &File) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.stderr(log.try_clone().context("share the log")?).spawn();
        Ok(Self(child.context("run setpriv (of package util-linux) with a virtual machine")?))
    }

    /// The lines of its console, until it goes off.
    fn console(&mut self) -> Result<Receiver<String>> {
        let mut console = BufReader::new(self.0.stdout.take().context("the console was taken before")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while let Ok(1..) = console.read_until(b'\n', &mut line) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(lines)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_slowness_are_distinguished() {
        let seconds = Duration::from_secs;
        let limits = Limits { silence: seconds(60), total: seconds(600) };
        assert_eq!(limits.left(seconds(100), seconds(10)), Ok(seconds(50)));
        assert_eq!(limits.left(seconds(590), seconds(0)), Ok(seconds(10)));
        assert_eq!(
            limits.left(seconds(100), seconds(60)),
            Err("it hangs: nothing on its console for 60 s".to_owned())
        );
        assert_eq!(limits.left(seconds(600), seconds(60)), Err("it was not done after 600 s".to_owned()));
    }
}
