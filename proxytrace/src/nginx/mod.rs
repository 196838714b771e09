//! What nginx's configuration says about where it connects to. Pure: a tree goes in, routes and names come out.

pub mod names;
pub mod routes;
