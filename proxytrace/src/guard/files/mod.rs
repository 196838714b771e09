//! A directory of files: what is in it, a copy of that, and how it is put back.
//!
//! * `listing`: what is there, with owners, modes, attributes and hashes.
//! * `copy`: keeps it elsewhere. `restore`: puts it back, and touches nothing but what the change made.
//!   `again`: makes a directory that is gone.
//! * `written`: what is left alone, as somebody writes to it. `room`: what it takes to put files back on a full disk.
//! * `settle`: makes sure that files are on disk.
//! * `link`: links that lead to it. `temporary`: names of what is renamed to its place.
//! * `below`: files below a directory, whoever else may write there. `paths`: paths as text.

mod again;
mod below;
mod copy;
mod link;
mod listing;
mod paths;
mod restore;
mod room;
mod settle;
mod temporary;
mod written;

pub(super) use again::make_again;
pub(super) use copy::{Kept, keep};
pub(super) use link::Link;
pub(super) use listing::Listing;
pub(super) use paths::{of_text, shown, to_text};
pub(super) use restore::{Restored, restore};
pub(super) use room::Room;
pub(super) use settle::settle;
pub(super) use written::Written;
