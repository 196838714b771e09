//! nginx's configuration: where it connects to, as [`declared`](crate::declared) has it for any proxy. Pure: a tree goes in, routes
//! come out.

pub(crate) mod config_path;
pub(crate) mod log;
pub(crate) mod places;
pub(crate) mod read;
pub(crate) mod upstreams;
pub(crate) mod url;

mod passes;
mod time;
mod variables;

#[cfg(test)]
pub(crate) mod tests;
