//! What the configuration of a proxy declares: the places that lead somewhere, upstreams with their addresses, timeouts. Plain
//! data, the same whatever proxy it is of: whoever reads a configuration makes it ([`nginx`](crate::nginx)), and naming, findings,
//! `check` and pages know nothing else of configurations. No I/O here.

mod configuration;
mod names;
mod peer_settings;
mod routes;
mod view;

pub use configuration::{Changed, Configuration};
pub use names::AddressNames;
pub use peer_settings::SettingsByPeer;
pub use routes::{
    Addresses, Context, Endpoint, MAX_ENTRIES, Other, Peer, Resolver, Route, Routes, Server, Target,
    Upstream, key,
};
pub use view::{RouteView, RoutesView, without_secrets};
