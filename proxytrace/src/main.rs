//! The program: reads the command line, runs the command, and turns its result into an exit status.

use std::process::ExitCode;

use proxytrace::{
    cli::{Cli, Command, Log},
    commands::{agent, check, doctor, replay, trace},
    doctor::subject,
    escape,
    exit::Failure,
    logging::{self, Way},
    memory,
    reader::serve,
};

fn main() -> ExitCode {
    memory::keep_nothing_large();
    let Cli { log, command } = Cli::read();
    let (code, words) = match run(&log, command) {
        Ok(code) => (code, String::new()),
        Err(error) => match Failure::of(&error) {
            None => (ExitCode::SUCCESS, String::new()),
            Some(failure) => {
                let words = escape::printable_lines(&format!("{error:#}")).into_owned();
                (failure.into(), format!("proxytrace: {words}\n"))
            }
        },
    };
    logging::finish(&words);
    code
}

fn run(log: &Log, command: Command) -> anyhow::Result<ExitCode> {
    let (usual, way) = match &command {
        Command::Agent(_) => ("info", Way::Queued),
        Command::Trace(_) => ("warn", Way::Queued),
        _ => ("warn", Way::Direct),
    };
    logging::start(log, usual, way)?;
    match command {
        Command::Trace(args) => trace::run(&args, log.quiet),
        Command::Replay(args) => replay::run(&args, log.quiet),
        Command::Agent(args) => agent::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Reader(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Subject => subject::run().map(|()| ExitCode::SUCCESS),
    }
}
