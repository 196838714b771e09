//! The program; [`proxytrace`] says what is where.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxytrace::main()
}
