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
        Found, Host, Severity, Version, difference, findings, probe,
        report::{Format, Report},
        resolve,
        source::{self, Map, Paths, Source},
    },
    declared::Addresses,
    exit::Failure,
};

/// Options of `proxytrace check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration: a file, a directory with an nginx.conf, or - for what `nginx -T` prints (or a file of that)
    /// [default: /etc/nginx/nginx.conf].
    config: Option<PathBuf>,
    /// Print what changes for requests from this configuration to the one that is checked. Changes are no errors.
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Connect once to every address of an upstream that something leads to.
    #[arg(long)]
    probe: bool,
    /// How long a probe waits, where the connect timeout in force is not shorter.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    probe_timeout: Duration,
    /// Look no host names up, and take what is missing on this host, such as a unix socket, for a note: nginx runs on
    /// another one.
    #[arg(long)]
    no_resolve: bool,
    /// End with 1 where a finding is that grave, or graver.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// The version of nginx that will run it [default: that of the nginx that is installed here].
    #[arg(long, value_name = "VERSION")]
    nginx_version: Option<Version>,
    /// Read the absolute paths of CONFIG below this directory, as in a copied tree or an image.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Read what CONFIG names below the absolute path OLD from below NEW; give it again for more.
    #[arg(long = "map", value_name = "OLD=NEW")]
    maps: Vec<Map>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Run for Args {
    /// Examines a configuration, and ends with 0 where no finding is an error, and 1 where one is.
    ///
    /// # Errors
    /// A configuration may not be read, or standard output is gone.
    fn run(&self, call: Call<'_>) -> anyhow::Result<ExitCode> {
        let config = self.config.clone().unwrap_or_else(source::default_path);
        if config == Path::new("-") && self.against.as_deref() == Some(Path::new("-")) {
            return Err(source::Unreadable::both_from_stdin().into());
        }
        let paths = Paths { root: self.root.clone(), maps: self.maps.clone() };
        let old = self.against.as_deref().map(|old| source::read(old, &Paths::default())).transpose()?;
        let mut report = match source::read(&config, &paths)? {
            Err(finding) => Report { findings: vec![*finding], ..Report::default() },
            Ok(new) => match old {
                Some(Err(finding)) => Report { findings: vec![*finding], ..Report::default() },
                old => examine(self, &new, old.and_then(Result::ok).as_ref())?,
            },
        };
        let fails = report.has(self.fail_on.into());
        if call.quiet {
            report.findings.retain(|finding| finding.severity != Severity::Note);
        }
        report.config = self.config.is_none().then(|| config.display().to_string());
        let mut out = io::stdout().lock();
        out.write_all(report.written(self.format)?.as_bytes())?;
        out.flush()?;
        Ok(if fails { Failure::Failed.into() } else { ExitCode::SUCCESS })
    }
}

/// How grave a finding must be to end with 1.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FailOn {
    Error,
    Warning,
}

impl From<FailOn> for Severity {
    fn from(from: FailOn) -> Self {
        match from {
            FailOn::Error => Self::Error,
            FailOn::Warning => Self::Warning,
        }
    }
}

fn examine(args: &Args, new: &Source, old: Option<&Source>) -> anyhow::Result<Report> {
    let subject = &new.subject;
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
    let probed = probes.iter().flatten().filter_map(probe::Probe::finding);
    let elsewhere = new.outside(old).into_iter().chain(probed).collect();
    let host = Host {
        resolved: &resolved,
        has_socket: &is_socket,
        is_here: !args.no_resolve && std::env::var_os("CI").is_none_or(|value| value.is_empty()),
        version: args.nginx_version.or_else(source::installed_version),
    };
    let Found { findings, allowed } = findings(subject, &host, elsewhere);
    let mut names_not_checked: Vec<_> =
        subject.routes.hosts().filter(|host| !resolved.contains_key(*host)).map(str::to_owned).collect();
    names_not_checked.sort();
    Ok(Report {
        config: None,
        findings,
        allowed,
        changes: old.map(|old| difference::between(&old.subject, subject)),
        probes,
        names_not_checked,
    })
}

fn is_socket(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
