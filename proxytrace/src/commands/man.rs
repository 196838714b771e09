//! `proxytrace man`: its manual pages.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap_mangen::Man;

use super::{Call, Run};

/// Options of `proxytrace man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write them: a page for proxytrace, and one for each command. The directory is made where it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Run for Args {
    /// Writes them.
    ///
    /// # Errors
    /// The directory cannot be made, or a page not be written.
    fn run(&self, call: Call<'_>) -> anyhow::Result<ExitCode> {
        let directory = self.directory.display();
        fs::create_dir_all(&self.directory).with_context(|| format!("make directory {directory}"))?;
        // What the library writes of its own accord, such as the names of pages, is known to a command that is built.
        let mut program = call.program.clone().disable_help_subcommand(true);
        program.build();
        let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
        for command in commands.chain([&program]) {
            let page = Man::new(command.clone()).source(SOURCE);
            page.generate_to(&self.directory).with_context(|| format!("write a page to {directory}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What each page is part of.
const SOURCE: &str = concat!("proxytrace ", env!("CARGO_PKG_VERSION"));
