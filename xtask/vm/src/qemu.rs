//! A virtual machine: started, watched line by line, and ended in any case.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::kernels::Kernel;
use crate::series::Kind;
use crate::transcript::{Run, Transcript};
use crate::user_mode;

/// Software emulation: KVM is not to be had on the machines that this runs on, or does not run these kernels.
///
/// All processors of a machine in one thread: with a thread for each, QEMU before 8.1 reads code to translate it before it
/// locks the page (its change "accel/tcg: Always lock pages before translation"). So it can keep the breakpoint that a
/// kernel sets for a moment while it changes its own code, as it does whenever a tracepoint's programs come or go, and run
/// it long after: `Oops: int3`, in one run of three.
#[rustfmt::skip]
const MACHINE: &[&str] = &[
    "-accel", "tcg,thread=single", "-smp", "2", "-m", "2048", "-nographic", "-no-reboot", "-nic", "none",
];
/// `panic=-1` ends the machine at once when its kernel panics, which it does as well where it would go on limping.
/// `norandmaps`: where each process has addresses of its own, half of the emulator's time goes into translating the same
/// programs again (QEMU 7.2: 70 s instead of 44 s for `6.12 --profile tp_btf`).
/// `init_on_alloc=0`: clearing all memory twice takes a twentieth of the time.
const KERNEL: &str = "quiet norandmaps init_on_alloc=0 panic=-1 oops=panic";

const LIMITS: Limits = Limits { silence: Duration::from_secs(660), total: Duration::from_secs(2400) };
/// What a kernel says after it panicked comes in that time.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What boots a kernel into `initramfs`.
pub(crate) fn command(arch: &Arch, kernel: &Kernel, initramfs: &Path) -> Result<Command> {
    // setpriv becomes the emulator, which the kernel then ends with us, in whatever way we end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    match kernel.kind {
        Kind::Image { .. } => {
            command.args(arch.qemu).args(MACHINE).arg("-kernel").arg(kernel.image()?);
            command.arg("-initrd").arg(initramfs);
            command.arg("-append").arg(format!("console={} {KERNEL}", arch.console));
        }
        Kind::Program { path, .. } => {
            user_mode::arguments(&mut command, &kernel.directory, path, initramfs);
        }
    }
    Ok(command)
}

/// Boots a kernel and reads its console to the end, also into `log`, each line after the seconds since the start; `report`
/// gets each run as it ends. Gives why the machine was not done, if so.
pub(crate) fn run(
    command: &mut Command,
    log: &Path,
    transcript: &mut Transcript,
    mut report: impl FnMut(Run),
) -> Result<Option<String>> {
    let mut log_file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut machine = Machine::start(command, &log_file)?;
    let lines = machine.console()?;
    let start = Instant::now();
    let mut last_line = start;
    loop {
        let left = match LIMITS.left(start.elapsed(), last_line.elapsed()) {
            Ok(left) => left,
            Err(over) => return Ok(Some(over)),
        };
        match lines.recv_timeout(left) {
            Ok(line) => {
                last_line = Instant::now();
                writeln!(log_file, "{:7.1} {line}", start.elapsed().as_secs_f32())
                    .with_context(|| format!("write {}", log.display()))?;
                if let Some(run) = transcript.read(&line) {
                    report(run);
                }
                if let Some(trouble) = transcript.trouble() {
                    let deadline = Instant::now() + LAST_WORDS;
                    while let Ok(line) =
                        lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                    {
                        let _ = writeln!(log_file, "{line}");
                    }
                    return Ok(Some(trouble.to_owned()));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if transcript.is_done() => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Some("it went off before it was done".to_owned()));
            }
        }
    }
}

/// How long a machine may take.
struct Limits {
    /// Without a line on its console.
    silence: Duration,
    /// In all.
    total: Duration,
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
