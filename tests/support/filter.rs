//! A filter of system calls (seccomp), as container engines set one.

#![expect(unsafe_code, reason = "what a child does before it becomes the program is unsafe")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Has the command, and what it starts, get EPERM from these system calls.
#[track_caller]
pub fn refuse(command: &mut Command, calls: &[i64]) {
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture that has filters");
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a filter");
    let set = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: it makes two system calls, and allocates nothing where they succeed.
    unsafe { command.pre_exec(set) };
}
