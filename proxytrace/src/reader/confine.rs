//! What a process that reads for one proxy may take of the machine, whatever it is given to read.
//!
//! Its memory is limited where it is started ([`super::serve`]), its system calls once it is that proxy's user
//! ([`super::owner`]).

use std::time::Duration;

use anyhow::Context as _;
use nix::{
    sys::resource::{Resource, getrlimit, rlim_t, setrlimit},
    unistd::alarm,
};

use crate::privilege;

/// What it may take: no file to write, no process of its own, no image of its memory when it dies; seconds of processor time;
/// descriptors for the logs of its proxy and for questions to name servers.
const LIMITS: &[(Resource, rlim_t)] = &[
    (Resource::RLIMIT_CORE, 0),
    (Resource::RLIMIT_FSIZE, 0),
    (Resource::RLIMIT_NPROC, 0),
    (Resource::RLIMIT_CPU, 15),
    (Resource::RLIMIT_NOFILE, 2048),
];

/// When it ends itself: whoever started it ends it before, unless that takes a capability which is missing (`CAP_KILL`).
const CHILD_TIMEOUT: Duration = Duration::from_secs(25);

/// Sets the limits, for good, and keeps others from looking into it.
///
/// # Errors
/// The kernel refused.
pub(super) fn limit() -> anyhow::Result<()> {
    privilege::keep_others_out()?;
    for &(resource, max) in LIMITS {
        let (_, hard) = getrlimit(resource)?;
        let max = max.min(hard);
        setrlimit(resource, max, max).with_context(|| format!("limit {resource:?}"))?;
    }
    alarm::set(CHILD_TIMEOUT.as_secs() as u32);
    Ok(())
}
