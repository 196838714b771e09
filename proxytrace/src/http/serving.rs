//! What is served, and to whom: options, and what was made of them, which can be changed while the agent serves.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::HeaderMap;
use tokio::sync::Notify;

use super::{
    files::Files,
    hosts,
    passwords::Users,
    tls::Tls,
    web_config::{Unusable, WebConfig},
};

/// Options of what is served, which can be changed while the agent runs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Serving {
    /// Serve by TLS, or to users with a password, as this file says: in the format that Prometheus's exporters share
    /// (tls_server_config, basic_auth_users). It is read again when it changes, with what it names.
    #[arg(long, value_name = "FILE", env = "PROXYTRACE_WEB_CONFIG")]
    pub web_config: Option<PathBuf>,
    /// Do not serve /routes, which says where the proxies' configurations send requests.
    #[arg(long, env = "PROXYTRACE_NO_ROUTES")]
    no_routes: bool,
    /// Do not serve /findings, which says what is wrong and where in the proxies' configurations.
    #[arg(long, env = "PROXYTRACE_NO_FINDINGS")]
    no_findings: bool,
    /// Serve /status, /records and /minutes here as well, which say how things are and what was: otherwise only the agent's socket
    /// has them.
    #[arg(long, env = "PROXYTRACE_SERVE_RECORDS")]
    serve_records: bool,
    /// Serve a page for people at /, and what it asks for: /events, /status, /records and /minutes. To browsers that call this host by
    /// an address, localhost, or a name of --page-host.
    #[arg(long, env = "PROXYTRACE_PAGE")]
    page: bool,
    /// A name that browsers may call this host by; give it again for more.
    #[arg(long, value_name = "NAME", env = "PROXYTRACE_PAGE_HOST", value_delimiter = ',', value_parser = hosts::name)]
    page_host: Vec<String>,
}

/// What the options say now.
#[derive(Debug)]
pub struct Served {
    pub(super) has_routes: bool,
    pub(super) has_findings: bool,
    pub(super) has_records: bool,
    pub(super) has_changes: bool,
    pub(super) has_page: bool,
    /// The names that browsers may call this host by; `None` where whoever gets here may use any.
    pub(super) hosts: Option<Vec<String>>,
    pub(super) tls: Option<Tls>,
    pub(super) users: Option<Arc<Users>>,
    /// What each answer has as well.
    pub(super) headers: HeaderMap,
}

impl Default for Served {
    /// To everybody, and all but what is remembered.
    fn default() -> Self {
        Self {
            has_routes: true,
            has_findings: true,
            has_records: false,
            has_changes: false,
            has_page: false,
            hosts: None,
            tls: None,
            users: None,
            headers: HeaderMap::new(),
        }
    }
}

impl Served {
    /// Everything, to whoever may use the agent's socket.
    #[must_use]
    pub fn local() -> Self {
        Self { has_records: true, has_changes: true, has_page: true, ..Self::default() }
    }

    /// What can be asked for.
    pub(super) fn paths(&self) -> Vec<&'static str> {
        let optional = [
            ("/findings", self.has_findings),
            ("/routes", self.has_routes),
            ("/status", self.has_records),
            ("/records", self.has_records),
            ("/minutes", self.has_records),
            ("/changes", self.has_changes),
            ("/events", self.has_page),
        ];
        let optional = optional.into_iter().filter(|(_, is_served)| *is_served).map(|(path, _)| path);
        ["/metrics"].into_iter().chain(optional).chain(["/healthz", "/readyz"]).collect()
    }

    /// Whether people have a page.
    #[must_use]
    pub const fn has_page(&self) -> bool {
        self.has_page
    }

    /// What a URL begins with.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What keeps strangers out, in words; `None` where nothing does.
    #[must_use]
    pub fn protection(&self) -> Option<&'static str> {
        let has_certificates = self.tls.as_ref().is_some_and(|tls| tls.requires_certificate);
        match (&self.tls, &self.users) {
            (None, None) => None,
            (None, Some(_)) => Some("passwords, which are sent in the clear"),
            (Some(_), None) if has_certificates => Some("TLS and certificates of clients"),
            (Some(_), None) => Some("TLS, and no password"),
            (Some(_), Some(_)) if has_certificates => Some("TLS, certificates of clients and passwords"),
            (Some(_), Some(_)) => Some("TLS and passwords"),
        }
    }
}

impl Serving {
    /// Reads what the options name, and gives the files that were read as well: when they change, it is time to read again.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn load(&self) -> (Files, Result<Served, Unusable>) {
        let mut files = Files::default();
        let served = match &self.web_config {
            None => Ok(Served::default()),
            Some(path) => load(path, &mut files),
        };
        let (has_routes, has_findings) = (!self.no_routes, !self.no_findings);
        if !self.page && !self.page_host.is_empty() {
            tracing::warn!("--page-host is of no use without --page");
        }
        let (has_page, has_records) = (self.page, self.serve_records || self.page);
        let hosts = self.page.then(|| self.page_host.clone());
        let served =
            served.map(|served| Served { has_routes, has_findings, has_records, has_page, hosts, ..served });
        (files, served)
    }

    /// Whether clients speak TLS.
    ///
    /// # Errors
    /// The file cannot be read or used.
    pub fn has_tls(&self) -> Result<bool, Unusable> {
        let Some(path) = &self.web_config else { return Ok(false) };
        Ok(WebConfig::read(path, &mut Files::default())?.tls.is_some())
    }
}

fn load(path: &Path, files: &mut Files) -> Result<Served, Unusable> {
    let mut config = WebConfig::read(path, files)?;
    let unusable = |why| Unusable::new(path, why);
    let directory = path.parent().unwrap_or(Path::new(""));
    let tls = config.tls.as_ref().map(|section| Tls::load(section, directory, files)).transpose()?;
    let users = config.users.take().filter(|users| !users.is_empty());
    let users = users.map(Users::new).transpose().map_err(unusable)?.map(Arc::new);
    let headers = config.headers().map_err(unusable)?;
    Ok(Served { tls, users, headers, ..Served::default() })
}

/// What is served now, shared by whoever serves and whoever changes it.
#[derive(Clone, Debug)]
pub struct Settings(Arc<Current>);

#[derive(Debug)]
struct Current {
    served: Mutex<Arc<Served>>,
    changed: Notify,
}

impl Settings {
    /// Begins with this.
    #[must_use]
    pub fn new(served: Served) -> Self {
        Self(Arc::new(Current { served: Mutex::new(Arc::new(served)), changed: Notify::new() }))
    }

    /// From now on this, for connections that are accepted later and for requests that come later.
    pub fn change(&self, served: Served) {
        *self.0.served.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
        self.0.changed.notify_one();
    }

    /// As it is now.
    #[must_use]
    pub fn now(&self) -> Arc<Served> {
        Arc::clone(&self.0.served.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the next change. Safe to cancel.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}
