//! Exit statuses, in one place.

use std::process::ExitCode;

use crate::{check::source::Unreadable, commands::replay, kernel, recording::Unusable};

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
}

impl Failure {
    /// The failure that an error means; `None` for a closed pipe, which ends a command quietly.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Option<Self> {
        let is_closed_pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
        if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_closed_pipe) {
            return None;
        }
        if error.is::<Unreadable>() || error.is::<replay::Unreadable>() || error.is::<Unusable>() {
            return Some(Self::Usage);
        }
        let is_host = error.downcast_ref::<kernel::Error>().is_some_and(kernel::Error::is_host);
        Some(if is_host { Self::CannotTrace } else { Self::Failed })
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Failure;
    use crate::kernel::Error;

    #[test]
    fn errors_become_the_statuses_of_the_contract() {
        let check =
            |error: anyhow::Error, expected: Option<Failure>| assert_eq!(Failure::of(&error), expected);
        check(Error::KernelTooOld.into(), Some(Failure::CannotTrace));
        check(Error::NoSuchProcess(1).into(), Some(Failure::Failed));
        check(anyhow::anyhow!("listen on 127.0.0.1:1"), Some(Failure::Failed));
        check(anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("write"), None);
    }
}
