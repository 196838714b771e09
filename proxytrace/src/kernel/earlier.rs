//! Finds the connections that were established before tracing began: runs the program `earlier_connection` over the open files of all tasks
//! (a BPF iterator, kernel 5.8), once.

use std::io;

use aya::{
    Btf, Ebpf,
    programs::{Iter, Program, ProgramError},
};

use super::Error;

/// The program.
pub(super) const PROGRAM: &str = "earlier_connection";

/// What it runs over.
const FILES: &str = "task_file";

/// Loads the program, unless it is.
pub(super) fn load(program: &mut Iter, btf: &Btf) -> Result<(), ProgramError> {
    if program.fd().is_err() { program.load(FILES, btf) } else { Ok(()) }
}

/// Runs it. All that it is to find is in the tables by then: processes, and programs that see connections end.
///
/// # Errors
/// What the kernel said.
pub(super) fn find(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), Error> {
    run(ebpf, btf).map_err(Error::Earlier)
}

fn run(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(Program::Iter(program)) = ebpf.program_mut(PROGRAM) else {
        return Err("the object lacks it".into());
    };
    load(program, btf)?;
    let link = program.attach()?;
    let mut files = program.take_link(link)?.into_file()?;
    // The program writes nothing, so a read goes over all files to the end; but over no more than a million, and says then that it is to be
    // called again (kernel/bpf/bpf_iter.c, `MAX_ITER_OBJECTS`).
    while let Err(error) = io::copy(&mut files, &mut io::sink()) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error.into());
        }
    }
    Ok(())
}

/// It is not needed any more.
pub(super) fn unload(ebpf: &mut Ebpf) {
    if let Some(Program::Iter(program)) = ebpf.program_mut(PROGRAM) {
        // One that could not be loaded says so, which is as good.
        let _ = program.unload();
    }
}
