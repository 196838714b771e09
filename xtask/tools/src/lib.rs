//! The tools of a developer's machine as the commands of xtask call them: cargo, Debian's packages, and whatever else is
//! installed.

pub mod cargo;
pub mod debian;
pub mod private_apt;
pub mod shell;
pub mod source_date;
