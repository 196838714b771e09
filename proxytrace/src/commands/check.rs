//! `proxytrace check`: what a configuration would misroute, before it is deployed.

use std::{
    io::{self, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use super::{Call, Run, display::screen, options::seconds};
use crate::{
    check::{
        self, Found, Host, Severity, Version, difference, findings,
        probe::{self, Manner, Place, Probe, Request, Running},
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
    /// Connect once to every address of an upstream that something leads to, as nginx's workers would, and say what TLS,
    /// HTTP/2 of gRPC and FastCGI begin with; with =connect, say nothing.
    #[arg(long, value_enum, value_name = "MANNER", num_args = 0..=1, require_equals = true, default_missing_value = "hello")]
    probe: Option<Manner>,
    /// How long a probe waits for a connect, where the connect timeout in force is not shorter, and for an answer.
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = seconds)]
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
        out.write_all(report.written(self.format, screen().width)?.as_bytes())?;
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
    let running = Running::with(&new.path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hosts = check::hosts(subject);
    let (resolved, probed) = runtime.block_on(async {
        let asked = (!args.no_resolve).then_some(&hosts).into_iter().flatten();
        let resolved = resolve::all(asked.map(String::as_str)).await;
        let probed = match args.probe {
            Some(manner) => Some(probed(args, new, running.as_ref(), &resolved, manner).await),
            None => None,
        };
        (resolved, probed)
    });
    // A look-up that got no answer may still wait for it.
    runtime.shutdown_background();
    let (probed_from, probes) = probed.transpose()?.unzip();
    let failed = probes.iter().flatten().filter_map(Probe::finding);
    let elsewhere = new.outside(old).into_iter().chain(failed).collect();
    let host = Host {
        resolved: &resolved,
        has_socket: &|path| is_socket(running.as_ref(), path),
        has_file: &|path| new.meant(path).is_file(),
        // What is below a root is another host's.
        is_here: !args.no_resolve
            && args.root.is_none()
            && std::env::var_os("CI").is_none_or(|value| value.is_empty()),
        version: args.nginx_version.or_else(source::installed_version),
    };
    let Found { findings, allowed } = findings(subject, &host, elsewhere);
    let names_not_checked = hosts.into_iter().filter(|host| !resolved.contains_key(host)).collect();
    Ok(Report {
        config: None,
        findings,
        allowed,
        changes: old.map(|old| difference::between(&old.subject, subject, host.version)),
        probed_from,
        probes,
        names_not_checked,
    })
}

/// What came of connects from where nginx runs or would run, and in words where that is.
async fn probed(
    args: &Args,
    new: &Source,
    running: Option<&Running>,
    resolved: &Addresses,
    manner: Manner,
) -> anyhow::Result<(String, Vec<Probe>)> {
    let user = new
        .subject
        .user()
        .or_else(|| running.map_or_else(Running::user_of_installed, |running| running.user.clone()))
        .filter(|_| nix::unistd::geteuid().is_root());
    let looks_up_there = running.is_some_and(|running| !running.is_here) && !args.no_resolve;
    let mut request = Request {
        place: Place::OfWorker { master: running.map(|running| running.master), user: user.clone() },
        routes: new.subject.routes.clone(),
        addresses: (!looks_up_there).then(|| resolved.clone()),
        each: args.probe_timeout,
        manner,
    };
    let as_whom = user.map_or_else(String::new, |user| format!(" as {}", user.name));
    let place = match running {
        Some(Running { master, is_here: false, .. }) => format!("where nginx runs, process {master}"),
        _ => "here".to_owned(),
    };
    match probe::from(&request).await {
        Ok(probes) => Ok((format!("{place}{as_whom}"), probes)),
        Err(error) => {
            request.place = Place::OfWorker { master: None, user: None };
            request.addresses = Some(resolved.clone());
            let probes = probe::from(&request).await?;
            Ok((format!("here, and not {place}{as_whom} ({error:#})"), probes))
        }
    }
}

/// As nginx sees it, where it runs elsewhere.
fn is_socket(running: Option<&Running>, path: &str) -> bool {
    let root =
        running.filter(|running| !running.is_here).map(|running| format!("/proc/{}/root", running.master));
    let seen = format!("{}{path}", root.unwrap_or_default());
    std::fs::metadata(seen).is_ok_and(|metadata| metadata.file_type().is_socket())
}
