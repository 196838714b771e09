//! `proxytrace check`: what a configuration would misroute, before it is deployed.

use std::{
    io::{self, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use super::{Call, Run, options::seconds};
use crate::{
    check::{
        Finding, Subject, difference, findings, probe,
        report::{Format, Report},
        resolve, source,
    },
    declared::Addresses,
    exit::Failure,
};

/// Options of `proxytrace check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration: a file, a directory with an nginx.conf, or - for what `nginx -T` prints (or a file of that).
    #[arg(default_value_os_t = source::default_path())]
    config: PathBuf,
    /// Print what changes in routing from this configuration to the one that is checked. Changes are no errors.
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Connect once to every address of an upstream that something leads to.
    #[arg(long)]
    probe: bool,
    /// How long a probe waits, where the connect timeout in force is not shorter.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    probe_timeout: Duration,
    /// Look no host names up.
    #[arg(long)]
    no_resolve: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Run for Args {
    /// Examines a configuration, and ends with 0 where no finding is an error, and 1 where one is.
    ///
    /// # Errors
    /// A configuration may not be read, or standard output is gone.
    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        if self.config == Path::new("-") && self.against.as_deref() == Some(Path::new("-")) {
            return Err(source::Unreadable::both_from_stdin().into());
        }
        let old = self.against.as_deref().map(source::read).transpose()?;
        let report = match source::read(&self.config)? {
            Err(finding) => Report { findings: vec![*finding], ..Report::default() },
            Ok(subject) => match old {
                Some(Err(finding)) => Report { findings: vec![*finding], ..Report::default() },
                old => examine(self, &subject, old.and_then(Result::ok).as_ref())?,
            },
        };
        let mut out = io::stdout().lock();
        out.write_all(report.written(self.format)?.as_bytes())?;
        out.flush()?;
        Ok(if report.has_error() { Failure::Failed.into() } else { ExitCode::SUCCESS })
    }
}

fn examine(args: &Args, subject: &Subject, old: Option<&Subject>) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (resolved, probes) = runtime.block_on(async {
        let resolved = if args.no_resolve { Addresses::new() } else { resolve::all(&subject.routes).await };
        let probes = match args.probe {
            true => Some(probe::all(&subject.routes, &resolved, args.probe_timeout).await),
            false => None,
        };
        (resolved, probes)
    });
    // A look-up that got no answer may still wait for it.
    runtime.shutdown_background();
    let mut findings = findings(subject, &resolved, &is_socket);
    findings.extend(probes.iter().flatten().filter_map(probe::Probe::finding).collect::<Vec<Finding>>());
    findings.sort_by(|one, other| {
        (&one.file, one.line, one.rule.id).cmp(&(&other.file, other.line, other.rule.id))
    });
    findings.dedup();
    Ok(Report {
        findings,
        changes: old.map(|old| difference::between(&old.routes, &subject.routes)),
        probes,
        names_not_checked: subject
            .routes
            .hosts()
            .filter(|host| !resolved.contains_key(*host))
            .map(str::to_owned)
            .collect(),
    })
}

fn is_socket(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
