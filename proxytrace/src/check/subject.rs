//! A configuration with what was read from it.

use nginx_conf::Config;

use crate::{
    declared::Routes,
    nginx::{read, upstreams::Fault},
};

/// A configuration with what was read from it.
pub struct Subject {
    pub(super) config: Config,
    /// What it declares.
    pub routes: Routes,
    /// What nginx refuses about that.
    pub(super) faults: Vec<Fault>,
}

impl Subject {
    /// Reads the routes.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (routes, faults) = read::read(&config);
        Self { config, routes, faults }
    }
}
