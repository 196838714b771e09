//! What boots a kernel, and how its console is followed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::arch::{AMD64, Arch};
use crate::console::{self, Limits};
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

/// What boots a kernel into `initramfs`.
pub(crate) fn command(arch: &Arch, kernel: &Kernel, initramfs: &Path) -> Result<Command> {
    match kernel.kind {
        Kind::Image { .. } => Ok(emulator(arch, &kernel.image()?, initramfs, "")),
        Kind::Program { path, .. } => {
            let mut command = ending_with_us();
            user_mode::arguments(&mut command, &kernel.directory, path, initramfs);
            Ok(command)
        }
    }
}

/// An emulated PC that boots an image into an initramfs; `parameters` are the kernel's, beside those that all machines have.
/// It has neither disks nor a network, unless they are added.
#[must_use]
pub fn pc(image: &Path, initramfs: &Path, parameters: &str) -> Command {
    emulator(&AMD64, image, initramfs, parameters)
}

fn emulator(arch: &Arch, image: &Path, initramfs: &Path, parameters: &str) -> Command {
    let mut command = ending_with_us();
    command.args(arch.qemu).args(MACHINE).arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
    command.arg("-append").arg(format!("console={} {KERNEL} {parameters}", arch.console).trim_end());
    command
}

/// setpriv becomes the program that follows, which the kernel then ends with us, in whatever way we end.
fn ending_with_us() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}

/// Boots a kernel and reads its console to the end, also into `log`; `report` gets each run as it ends. Gives why the machine
/// was not done, if so.
pub(crate) fn run(
    command: &mut Command,
    log: &Path,
    transcript: &mut Transcript,
    mut report: impl FnMut(Run),
) -> Result<Option<String>> {
    let trouble = console::watch(command, log, &LIMITS, |line| {
        if let Some(run) = transcript.read(line) {
            report(run);
        }
        transcript.trouble().map(str::to_owned)
    })?;
    let is_done = transcript.is_done();
    Ok(trouble.or_else(|| (!is_done).then(|| "it went off before it was done".to_owned())))
}
