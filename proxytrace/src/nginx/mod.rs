//! nginx's configuration: where it connects to, as [`declared`](crate::declared) has it for any proxy. Pure: a tree goes in, routes
//! come out.

pub(crate) mod complaint;
pub(crate) mod config_path;
pub(crate) mod directives;
pub(crate) mod listen;
pub(crate) mod log;
pub(crate) mod places;
pub(crate) mod read;
pub(crate) mod size;
pub(crate) mod time;
pub(crate) mod upstreams;
pub(crate) mod url;
pub(crate) mod values;
pub(crate) mod variables;
pub(crate) mod version;
pub(crate) mod writers;

mod passes;

#[cfg(test)]
pub(crate) mod tests;
