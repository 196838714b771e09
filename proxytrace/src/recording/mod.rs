//! Recordings: records in a file, a line of JSON each. The first line is a header.

mod kept;
mod parts;
mod read;
mod write;

pub use kept::Kept;
pub use read::{Damage, RecordingReader};
pub use write::{Recorder, Unusable, size};

use jiff::Timestamp;

use crate::model::{Body, FORMAT, Header, Record};

/// The header of what is recorded on this host from now on; `all` says whether established connects are.
///
/// # Errors
/// The kernel did not say what this host is called.
pub fn header(all: bool) -> std::io::Result<Record> {
    let host = nix::sys::utsname::uname()?;
    let header = Header {
        format: FORMAT,
        host: host.nodename().to_string_lossy().into_owned(),
        kernel: host.release().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        all,
    };
    Ok(Record { time: Timestamp::now(), body: Body::Header(header) })
}
