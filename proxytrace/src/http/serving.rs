//! What is served, and to whom: options, and what was made of them, which can be changed while the agent serves.

use std::sync::{Arc, Mutex, PoisonError};

/// Options of what is served, which can be changed while the agent runs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Serving {
    /// Do not serve /routes, which says where the proxies' configurations send requests.
    #[arg(long, env = "PROXYTRACE_NO_ROUTES")]
    no_routes: bool,
    /// Do not serve /findings, which says what is wrong and where in the proxies' configurations.
    #[arg(long, env = "PROXYTRACE_NO_FINDINGS")]
    no_findings: bool,
}

/// What the options say now.
#[derive(Debug)]
pub struct Served {
    pub(super) has_routes: bool,
    pub(super) has_findings: bool,
}

impl Default for Served {
    /// Everything.
    fn default() -> Self {
        Self { has_routes: true, has_findings: true }
    }
}

impl Served {
    /// What can be asked for.
    pub(super) fn paths(&self) -> Vec<&'static str> {
        let optional = [("/findings", self.has_findings), ("/routes", self.has_routes)];
        let optional = optional.into_iter().filter(|(_, is_served)| *is_served).map(|(path, _)| path);
        ["/metrics"].into_iter().chain(optional).chain(["/healthz", "/readyz"]).collect()
    }
}

impl Serving {
    /// Reads what the options name.
    #[must_use]
    pub fn load(&self) -> Served {
        Served { has_routes: !self.no_routes, has_findings: !self.no_findings }
    }
}

/// What is served now, shared by whoever serves and whoever changes it.
#[derive(Clone, Debug)]
pub struct Settings(Arc<Mutex<Arc<Served>>>);

impl Settings {
    /// Begins with this.
    #[must_use]
    pub fn new(served: Served) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(served))))
    }

    /// From now on this, for connections that are accepted later and for requests that come later.
    pub fn change(&self, served: Served) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }

    pub(super) fn now(&self) -> Arc<Served> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
