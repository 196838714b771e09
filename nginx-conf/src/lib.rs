//! Reads nginx configuration as nginx does: tokens, blocks and includes, each with its file and line.
//!
//! Nothing here but [`Disk`] does I/O: files come from a [`Files`], so that a configuration can be read from a disk, from
//! another process's root directory, or from the output of `nginx -T`.

#![forbid(unsafe_code)]

mod blocks;
mod disk;
mod dump;
mod error;
mod files;
pub mod glob;
mod lexer;
mod limits;
mod load;
mod lua;
mod sources;
mod tree;

pub use disk::Disk;
pub use dump::load_dump;
pub use error::{At, Error, Kind, Measure};
pub use files::Files;
pub use limits::Limits;
pub use load::{GLOBALS, load};
pub use tree::{Config, Directive, Place, SourceFile, Word};
