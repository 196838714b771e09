//! A configuration with what was read from it.

use nginx_conf::Config;

use super::{
    blocks::{self, Block},
    part::{self, Part},
};
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
    /// Where it belongs, if it is only a part of a configuration.
    pub(super) part: Option<Part>,
}

impl Subject {
    /// Reads the routes.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (config, part) = part::whole(config);
        let (routes, faults) = read::read(&config);
        Self { config, routes, faults, part }
    }

    /// All blocks of nginx's own directives.
    pub(super) fn blocks(&self) -> Vec<Block<'_>> {
        blocks::all(&self.config.directives)
    }

    /// Whether it is all that nginx reads, so that what is not in it is nowhere.
    pub(super) const fn is_whole(&self) -> bool {
        self.part.is_none()
    }

    /// Whether the servers in it have all of their locations.
    pub(super) fn has_whole_servers(&self) -> bool {
        self.part.as_ref().is_none_or(|part| part.holds_servers())
    }
}
