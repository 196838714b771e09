//! Changes that take themselves back, with a real nginx and real files.
//!
//! - [`verdict`]: which change fails, and which stays; [`others`]: whose doing is no reason
//! - [`rollback`]: what taking it back does, and what where that fails as well
//! - [`interrupted`]: guards that are ended, killed, or meet another one
//! - [`borrowed`]: guards that watch by the agent of the host
//! - [`files`]: what is put back and what is left; disks that are full; [`directory`]: the directory of these files
//! - [`programs`]: what a guard runs
//!
//! [`site`] and [`traffic`] are what they share.

mod borrowed;
mod directory;
mod files;
mod interrupted;
mod others;
mod programs;
mod rollback;
mod site;
mod traffic;
mod verdict;
