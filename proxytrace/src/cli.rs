//! The command line: what is common to the commands, and their list.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, builder::Resettable,
};
use jiff::tz::TimeZone;

use crate::{
    commands::{agent, check, doctor, replay, trace},
    doctor::subject,
    kernel::{Options, hooks::Forced, processes::Wanted, tables::Resized},
    model::{AddressFilter, Cause, Filter},
    output::{Colour, Human, Printer},
    programs,
    reader::serve,
};

/// Watches what nginx really connects to, and says within a second which upstream fails and why.
#[derive(Debug, Parser)]
#[command(name = "proxytrace", version, max_term_width = 100)]
pub struct Cli {
    /// Logging.
    #[command(flatten)]
    pub log: Log,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line and the environment; ends the process where that is help, or wrong.
    #[must_use]
    pub fn read() -> Self {
        let matches = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// A variable that is set to nothing counts as not set: it is what a template leaves behind that has no value for it.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show each failed connect to an upstream as it happens.
    Trace(trace::Args),
    /// Show recordings of `trace --record` again; without tracing.
    Replay(replay::Args),
    /// Run as a service and serve metrics to Prometheus until SIGTERM.
    Agent(agent::Args),
    /// Report what an nginx configuration would misroute, before it is deployed; without tracing.
    Check(check::Args),
    /// Say what this host lets proxytrace do, what each gap costs, and how to mend it.
    Doctor(doctor::Args),
    /// The process that the self-test of `doctor` looks at.
    #[command(hide = true, name = subject::COMMAND)]
    Subject,
    /// The process that reads configurations for a trace.
    #[command(hide = true, name = serve::COMMAND)]
    Reader(serve::Args),
}

/// How much is logged to standard error, and how.
#[derive(Clone, Debug, Args)]
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
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// What the tracing commands have in common.
#[derive(Clone, Debug, Args)]
pub struct Tracing {
    /// Trace the processes of this name, running or started later [default: nginx, unless --pid is given].
    #[arg(long = "process", value_name = "NAME", env = "PROXYTRACE_PROCESS", value_delimiter = ',')]
    processes: Vec<String>,
    /// Trace this process and its descendants.
    #[arg(long = "pid", value_name = "PID", env = "PROXYTRACE_PID", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Read this configuration, instead of the one that the running nginx names; a path as nginx sees it.
    #[arg(long, value_name = "FILE", env = "PROXYTRACE_NGINX_CONFIG", value_parser = absolute)]
    pub nginx_config: Option<PathBuf>,
    /// The proxy's own connect timeout, where no configuration tells it: one that closes after it has timed out, one that
    /// closes earlier has cancelled.
    #[arg(long, value_name = "SECONDS", default_value = "60", env = "PROXYTRACE_CONNECT_TIMEOUT", value_parser = seconds)]
    connect_timeout: Duration,
    /// The size of the buffer between kernel and reader: a power of two, at least a page (4096).
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, env = "PROXYTRACE_RING_SIZE", value_parser = ring_size)]
    ring_size: u32,
    /// Attach a hook in this way only, or leave it out (none): connect=tp_btf; give it again for more. Otherwise the
    /// best way is taken that the host allows; `proxytrace doctor` shows which that is.
    #[arg(long = "hook-via", value_name = "HOOK=WAY", env = "PROXYTRACE_HOOK_VIA", value_delimiter = ',')]
    hook_via: Vec<Forced>,
    /// How many entries a table in the kernel has: connections=200000; give it again for more. What does not fit is
    /// counted in `proxytrace_untracked_total` (connections, attempts, ledger, processes, calls, proxies, paths), but for timeouts, where it is logged.
    #[arg(
        long = "table-size",
        value_name = "TABLE=ENTRIES",
        env = "PROXYTRACE_TABLE_SIZE",
        value_delimiter = ','
    )]
    table_sizes: Vec<Resized>,
    /// Keep every privilege while running, and do not limit system calls: to look into a problem with a debugger.
    #[arg(long, env = "PROXYTRACE_KEEP_PRIVILEGES")]
    pub keep_privileges: bool,
}

impl Tracing {
    /// The options that the kernel half needs.
    #[must_use]
    pub fn options(&self, tell_established: bool) -> Options {
        let names = if self.processes.is_empty() && self.pids.is_empty() {
            vec![programs::NGINX.to_owned()]
        } else {
            self.processes.iter().map(|name| cut_to_comm(name).to_owned()).collect()
        };
        Options {
            wanted: Wanted { names, pids: self.pids.clone() },
            connect_timeout: self.connect_timeout,
            tell_established,
            ring_bytes: self.ring_size,
            hook_via: self.hook_via.clone(),
            table_sizes: self.table_sizes.clone(),
            count_seen: false,
        }
    }
}

/// What of the records is shown, and how.
#[derive(Clone, Debug, Args)]
pub struct Show {
    /// Show established connects too, and workers that start or end in an orderly way; not only what fails.
    #[arg(long)]
    pub all: bool,
    /// Show only this address, port or network: 10.0.0.5, 10.0.0.5:8080, :8080, 10.0.0.0/8, unix:/run/app.sock; give
    /// it again for more.
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',')]
    addresses: Vec<AddressFilter>,
    /// Show only this upstream, by the name in nginx's configuration, or undeclared, or unknown; give it again for more.
    #[arg(long = "upstream", value_name = "NAME", value_delimiter = ',')]
    upstreams: Vec<String>,
    /// Show only this cause, such as refused or stalled; give it again for more. One that does not exist is answered with
    /// all that do.
    #[arg(long = "cause", value_name = "CAUSE", value_delimiter = ',')]
    causes: Vec<Cause>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// End with exit status 1 if there was a finding, shown or not.
    #[arg(long)]
    pub fail_on_finding: bool,
}

impl Show {
    /// What passes.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter {
            addresses: self.addresses.clone(),
            upstreams: self.upstreams.clone(),
            causes: self.causes.clone(),
            all: self.all,
        }
    }

    /// Whether established connects are shown.
    #[must_use]
    pub fn wants_established(&self) -> bool {
        self.all || self.causes.iter().any(Cause::is_established)
    }

    /// Where to.
    #[must_use]
    pub fn printer(&self) -> Printer {
        if self.json {
            Printer::Json
        } else {
            Printer::Human(Human::new(Colour::of_stdout(), TimeZone::system()))
        }
    }
}

/// A number of seconds, with a fraction if need be.
///
/// # Errors
/// It is none, or not positive.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "this is no number of seconds; write 5 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("this must be more than 0".to_owned()),
    }
}

/// A path that means the same wherever it is read.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| format!("this is no path: {error}"))
}

/// The kernel keeps 15 bytes of a process's name.
fn cut_to_comm(name: &str) -> &str {
    let mut end = name.len().min(15);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn ring_size(text: &str) -> Result<u32, String> {
    let smallest = procfs::page_size() as u32;
    match text.parse::<u32>() {
        Ok(size) if size.is_power_of_two() && (smallest..=1 << 30).contains(&size) => Ok(size),
        _ => Err(format!("this must be a power of two from {smallest} to {}", 1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, cut_to_comm, seconds};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |arguments: &str, expected: &str| {
            let error = Cli::try_parse_from(arguments.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments}");
            assert!(error.to_string().contains(expected), "{arguments}: {error}");
        };
        check("proxytrace trace --address 10.0.0", "this is no address");
        check("proxytrace trace --cause refusd", "there is no such cause");
        check("proxytrace trace --duration 0", "more than 0");
        check("proxytrace trace --pid 0", "0 is not in 1..");
        check("proxytrace trace --ring-size 5000", "a power of two");
        check("proxytrace agent --listen localhost", "write 127.0.0.1:9947");
        check("proxytrace trace --hook-via connect=magic", "connect can be attached by fentry");
        check("proxytrace agent --table-size attempts=0", "from 1 to");
        check("proxytrace trace --colour", "unexpected argument");
        check("proxytrace trace --record-max 64M", "--record <FILE>");
        check("proxytrace trace --record r --record-max 1K", "at least 64K");
        check("proxytrace replay", "<FILE>");
    }

    #[test]
    fn names_and_seconds_are_read() {
        assert_eq!(cut_to_comm("a-rather-long-name"), "a-rather-long-n");
        assert_eq!(cut_to_comm("fourteen-plus-\u{e4}"), "fourteen-plus-");
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err());
        assert!(seconds("inf").is_err());
    }
}
