//! A directory of files: what is in it, a copy of that, and how it is put back.
//!
//! * `listing`: what is there, with owners, modes, attributes and hashes.
//! * `copy`: keeps it elsewhere. `restore`: puts it back, and touches nothing but what the change made.
//! * `below`: files below a directory, whoever else may write there. `paths`: paths as text.

mod below;
mod copy;
mod listing;
mod paths;
mod restore;

pub(super) use copy::{Kept, keep};
pub(super) use listing::Listing;
pub(super) use paths::shown;
pub(super) use restore::{Restored, restore};
