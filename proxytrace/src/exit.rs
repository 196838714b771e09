//! Exit statuses, in one place.

use std::process::ExitCode;

/// How a command ended that was not done well. (Usage errors found by the command line parser exit with 2 as well.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// Something went wrong.
    Failed = 1,
    /// What was asked for cannot be read, or not be written to.
    Usage = 2,
    /// This host does not let us trace.
    CannotTrace = 3,
    /// A change failed, and so did taking it back.
    NotTakenBack = 4,
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure as u8)
    }
}
