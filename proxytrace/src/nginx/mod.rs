//! What nginx's configuration says about where it connects to. Pure: a tree goes in, routes and names come out.

mod passes;
pub(crate) mod places;
pub(crate) mod read;
mod time;
pub(crate) mod upstreams;
pub(crate) mod url;
mod variables;

pub mod names;
pub mod routes;
pub mod view;

#[cfg(test)]
pub(crate) mod tests;
