//! `proxytrace completions`: what a shell reads to complete the command line.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap_complete::Shell;

use super::{Call, Run};

/// Options of `proxytrace completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that reads them.
    #[arg(value_enum)]
    shell: Shell,
}

impl Run for Args {
    /// Prints them.
    ///
    /// # Errors
    /// Standard output is gone.
    fn run(&self, call: Call<'_>) -> anyhow::Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut without_hidden(call.program), NAME, &mut text);
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

const NAME: &str = "proxytrace";

/// A command line in which nothing is hidden, with all of `program` that is not: the library offers hidden commands as well.
fn without_hidden(program: &clap::Command) -> clap::Command {
    let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
    clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments())
        .subcommands(shown)
}
