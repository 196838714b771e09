//! The program: the list of commands, what is common to all of them, and what their errors mean to whoever called it.

#[cfg(test)]
mod docs;

use std::{io, process::ExitCode};

use clap::{
    ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    builder::Resettable,
    error::{ContextKind, ContextValue},
};

use crate::{
    check::source::Unreadable,
    commands::{
        Call, Run, agent, check, completions, doctor, guard, man, probe, reader, replay, status, subject,
        top, trace,
    },
    config_file::{self, Again},
    escape,
    exit::Failure,
    http, kernel,
    logging::{self, Log},
    memory,
    recording::Unusable,
    variables,
};

/// Watches what nginx really connects to, and says within a second which upstream fails and why.
#[derive(Debug, Parser)]
#[command(name = "proxytrace", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

/// Makes [`Command`] of lines that each name a command and its module.
macro_rules! commands {
    ($($(#[$attribute:meta])* $name:ident => $module:ident;)+) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$attribute])* $name($module::Args),)+
        }

        impl Command {
            fn run(&self, log: &Log, program: &clap::Command) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$name(args) => run(args, log, program),)+
                }
            }
        }
    };
}

commands! {
    /// Show what is wrong now, each proxy and each upstream: as the agent knows it, or after three seconds of tracing.
    Status => status;
    /// Show that live, on the whole terminal: sort, filter, pause, look into an upstream.
    Top => top;
    /// Show each failed connect to an upstream as it happens.
    Trace => trace;
    /// Show recordings of `trace --record` again; without tracing.
    Replay => replay;
    /// Run as a service and serve metrics to Prometheus until SIGTERM.
    Agent => agent;
    /// Report what an nginx configuration would misroute, before it is deployed; without tracing.
    Check => check;
    /// Change a proxy, watch what its new workers' connects do, and take the change back if they fail.
    Guard => guard;
    /// Report what this host lets proxytrace do, what each gap costs, and how to fix it.
    Doctor => doctor;
    /// Print what a shell reads to complete the command line.
    Completions => completions;
    /// Write the manual pages.
    Man => man;
    /// The process that the self-test of `doctor` looks at.
    #[command(hide = true, name = subject::COMMAND)]
    Subject => subject;
    /// The process that connects as a proxy would.
    #[command(hide = true, name = probe::COMMAND)]
    Probe => probe;
    /// The process that reads configurations for a trace.
    #[command(hide = true, name = reader::COMMAND)]
    Reader => reader;
}

/// Reads the command line and the environment, runs the command, and turns its result into an exit status.
pub fn main() -> ExitCode {
    memory::keep_nothing_large();
    let program = Cli::command();
    let (code, last_words) = match read(&program).and_then(|Cli { log, command }| command.run(&log, &program))
    {
        Ok(code) => (code, String::new()),
        Err(error) => match failure_of(&error) {
            None => (ExitCode::SUCCESS, String::new()),
            Some(failure) => {
                let message = escape::printable_lines(&format!("{error:#}")).into_owned();
                (failure.into(), format!("proxytrace: {message}\n"))
            }
        },
    };
    logging::finish(&last_words);
    code
}

/// The command line; an agent's with the configuration file that it names.
fn read(program: &clap::Command) -> anyhow::Result<Cli> {
    let from = |matches: &ArgMatches| Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let command = with_variables(program.clone());
    let matches = command.clone().try_get_matches();
    let cli = from(&matches.unwrap_or_else(|error| naming_the_variable(error, command.clone()).exit()));
    let Command::Agent(agent::Args { config: Some(path), .. }) = &cli.command else { return Ok(cli) };
    let again = Again::new(command, "agent", path.clone());
    let mut cli = from(&again.read()?);
    if let Command::Agent(args) = &mut cli.command {
        args.again = Some(Box::new(again));
    }
    Ok(cli)
}

fn run<C: Run>(command: &C, log: &Log, program: &clap::Command) -> anyhow::Result<ExitCode> {
    logging::start(log, C::LOG_LEVEL, C::LOG_WAY)?;
    if C::BY_A_PERSON {
        let mut known = variables::of(program);
        known.insert(logging::VARIABLE);
        let set: Vec<_> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        logging::check_variable();
        variables::unknown(&set, &known).iter().for_each(|unknown| tracing::warn!("{unknown}"));
    }
    command.run(Call { quiet: log.quiet, program })
}

/// Reads variables as people set them. One that is set to nothing counts as not set: it is what a template leaves behind that has no
/// value for it. What has no value on the command line can be `1` or `yes` as well as `true`.
fn with_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let is_flag = |arg: &clap::Arg| matches!(arg.get_action(), ArgAction::SetTrue);
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_args(|arg| if is_flag(&arg) { arg.value_parser(switch) } else { arg })
        .mut_subcommands(with_variables)
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match &*text.to_lowercase() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("write true or false"),
    }
}

/// An error about an option that nobody has typed says which variable it comes from.
fn naming_the_variable(mut error: clap::Error, mut command: clap::Command) -> clap::Error {
    // How an option is shown is known then.
    command.build();
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (Some(shown), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return error;
    };
    let variable = arguments(&command).filter(|arg| arg.to_string() == shown).find_map(|arg| {
        let (long, variable) = (format!("--{}", arg.get_long()?), arg.get_env()?);
        let is_typed = std::env::args().any(|word| word.split('=').next() == Some(&long));
        let is_set = std::env::var_os(variable).is_some_and(|set| set.to_string_lossy().contains(&value));
        (is_set && !is_typed).then(|| variable.to_string_lossy().into_owned())
    });
    if let Some(variable) = variable {
        let tip = format!("the environment says so, by {variable}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Those of all commands.
fn arguments(command: &clap::Command) -> Box<dyn Iterator<Item = &clap::Arg> + '_> {
    Box::new(command.get_arguments().chain(command.get_subcommands().flat_map(arguments)))
}

/// The failure that an error means; `None` for a closed pipe, which ends a command quietly.
fn failure_of(error: &anyhow::Error) -> Option<Failure> {
    let is_closed_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_closed_pipe) {
        return None;
    }
    if error.is::<config_file::Error>()
        || error.is::<http::Unusable>()
        || error.is::<Unreadable>()
        || error.is::<replay::Unreadable>()
        || error.is::<Unusable>()
        || error.is::<guard::Missing>()
        || error.is::<trace::Contradiction>()
    {
        return Some(Failure::Usage);
    }
    let is_host = error.downcast_ref::<kernel::Error>().is_some_and(kernel::Error::is_host);
    Some(if is_host { Failure::CannotTrace } else { Failure::Failed })
}

#[cfg(test)]
mod tests {
    use std::io;

    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Failure, failure_of};
    use crate::kernel::Error;

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
        check("proxytrace trace --address 10.0.0", "not an address");
        check("proxytrace trace --cause refusd", "unknown cause; expected one of established, ");
        check("proxytrace trace --duration 0", "more than 0");
        check("proxytrace trace --duration soon", "not a time");
        check("proxytrace trace --pid 0", "0 is not in 1..");
        check("proxytrace trace --ring-size 5000", "a power of two");
        check("proxytrace agent --listen localhost", "write 127.0.0.1:9947");
        check("proxytrace trace --hook-via connect=magic", "connect can be attached by fentry");
        check("proxytrace agent --table-size attempts=0", "from 1 to");
        check("proxytrace trace --colour", "unexpected argument");
        check("proxytrace trace --record-max 64M", "--record <FILE>");
        check("proxytrace trace --record r --record-max 1K", "at least 64K");
        check("proxytrace replay", "<FILE>");
        check("proxytrace guard", "<COMMAND>");
        check("proxytrace guard --max-failure-ratio 2 -- nginx", "from 0 to 1");
        check("proxytrace guard --discard -- nginx", "cannot be used with");
    }

    /// What deploy/guard shows is what `guard` understands.
    #[test]
    fn examples_have_options_that_there_are() {
        let program = Cli::command();
        let guard = program.find_subcommand("guard").unwrap();
        let known: Vec<_> = guard.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/guard");
        let mut commands = 0;
        for file in [
            "github-actions.yml",
            "gitlab-ci.yml",
            "ansible/handlers.yml",
            "systemd/guard.conf",
            "systemd/proxytrace-guard-recover.service",
            "kubernetes/sidecar.yaml",
        ] {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            let words: String = lines.map(|line| line.trim_start_matches("- ").to_owned() + " ").collect();
            // What is quoted is another program's.
            let own: String = words.split('\'').step_by(2).collect();
            for command in own.split("proxytrace guard ").skip(1) {
                commands += 1;
                let options = command.split(" -- ").next().unwrap();
                for option in options.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                    assert!(known.contains(&option), "{file}: --{option}");
                }
            }
        }
        assert_eq!(commands, 7);
    }

    #[test]
    fn errors_become_the_statuses_of_the_contract() {
        let check =
            |error: anyhow::Error, expected: Option<Failure>| assert_eq!(failure_of(&error), expected);
        check(Error::KernelTooOld.into(), Some(Failure::CannotTrace));
        check(Error::NoSuchProcess(1).into(), Some(Failure::Failed));
        check(anyhow::anyhow!("listen on 127.0.0.1:1"), Some(Failure::Failed));
        check(anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("write"), None);
    }
}
