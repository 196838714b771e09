//! One virtual machine: what it has to do, and what came of it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::docs::Row;
use crate::kernels::Kernel;
use crate::series::{Expect, Series};
use crate::transcript::{Run, Transcript};
use crate::{console, initramfs, qemu};

/// A machine that is to run, and what came of it.
pub(crate) struct Machine {
    pub(crate) series: &'static Series,
    pub(crate) kernel: Kernel,
    plan: String,
    /// As the kernel itself says.
    pub(crate) version: String,
    pub(crate) runs: Vec<Run>,
    pub(crate) faults: usize,
}

impl Machine {
    pub(crate) fn new(series: &'static Series, kernel: Kernel, plan: String) -> Self {
        let version = kernel.release.clone();
        Self { series, kernel, plan, version, runs: Vec::new(), faults: 0 }
    }

    /// Boots it, and says of everything how it went as soon as that is known.
    pub(crate) fn run(&mut self, work: &Path) -> Result<()> {
        let initramfs = work.join(format!("{}.cpio", self.series.name));
        initramfs::write(&initramfs, &initramfs::base(work, self.series.arch), &self.kernel, &self.plan)?;
        let log = work.join(format!("{}.log", self.series.name));
        let mut transcript = Transcript::default();
        let mut since = Instant::now();
        let mut command = qemu::command(self.series.arch, &self.kernel, &initramfs)?;
        let trouble = qemu::run(&mut command, &log, &mut transcript, |run| {
            self.keep(run, since);
            since = Instant::now();
        });
        if let Some(version) = transcript.version() {
            version.clone_into(&mut self.version);
        }
        if let Some(trouble) = trouble.with_context(|| format!("run kernel {}", self.kernel.release))? {
            self.faults += 1;
            let during =
                transcript.unfinished().map(|run| format!(" during {}", run.profile)).unwrap_or_default();
            println!("vm: {}{during}: {trouble}; the end of {}:", self.kernel.release, log.display());
            println!("{}", console::tail(&log));
        }
        fs::remove_file(&initramfs).with_context(|| format!("remove {}", initramfs.display()))
    }

    /// Says how it went, and remembers it.
    fn keep(&mut self, run: Run, since: Instant) {
        let faults = match self.series.expect {
            Expect::Stories(_) => run.faults(),
            Expect::Refusal { words, .. } => run.faults_of_refusal(words),
        };
        let stories = match self.series.expect {
            Expect::Stories(_) => format!("{} passed, {} failed", run.passed, run.failed.len()),
            Expect::Refusal { .. } if faults.is_empty() => "refused as it must be".to_owned(),
            Expect::Refusal { .. } => "not refused as it must be".to_owned(),
        };
        let (release, seconds) = (&self.kernel.release, since.elapsed().as_secs());
        let mut lines = format!("vm: {release:<30} {:<8} {stories}, {seconds} s", run.profile);
        for fault in &faults {
            lines += &format!("\nvm: {release:<30} {:<8} - {fault}", run.profile);
        }
        println!("{lines}");
        self.faults += faults.len();
        self.runs.push(run);
    }

    /// What the page says about it.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let runs = self.runs.iter().filter(|_| self.series.has_stories());
        runs.map(|run| Row {
            series: self.series.name,
            profile: &run.profile,
            passed: run.passed,
            stories: run.passed + run.failed.len(),
            doctor: run.doctor.as_ref(),
        })
    }
}
