//! Reads nginx configuration as nginx does: tokens, blocks and includes, each with its file and line.
//!
//! Nothing here does I/O by itself: files come from a [`Files`], so that a configuration can be read from a disk, from
//! another process's root directory, or from the output of `nginx -T`.

#![forbid(unsafe_code)]

mod files;
mod tree;

pub use files::Files;
pub use tree::{Config, Directive, Place, SourceFile, Word};
