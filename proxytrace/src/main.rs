//! The program: reads the command line, runs the command, and turns its result into an exit status.

use std::process::ExitCode;

use proxytrace::{
    cli::{Cli, Command},
    commands::{agent, check, doctor, replay, trace},
    doctor::subject,
    escape,
    exit::Failure,
    logging,
    reader::serve,
};

fn main() -> ExitCode {
    let Cli { log, command } = Cli::read();
    let result = match command {
        Command::Trace(args) => {
            logging::start(&log, "warn");
            trace::run(&args, log.quiet)
        }
        Command::Replay(args) => {
            logging::start(&log, "warn");
            replay::run(&args, log.quiet)
        }
        Command::Agent(args) => {
            logging::start(&log, "info");
            agent::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Check(args) => {
            logging::start(&log, "warn");
            check::run(&args)
        }
        Command::Doctor(args) => {
            logging::start(&log, "warn");
            doctor::run(&args)
        }
        Command::Reader(args) => {
            logging::start(&log, "warn");
            serve::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Subject => subject::run().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => match Failure::of(&error) {
            None => ExitCode::SUCCESS,
            Some(failure) => {
                report(&error);
                failure.into()
            }
        },
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a command's failure is told")]
fn report(error: &anyhow::Error) {
    eprintln!("proxytrace: {}", escape::printable_lines(&format!("{error:#}")));
}
