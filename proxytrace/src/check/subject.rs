//! A configuration with what was read from it.

use std::path::{Path, PathBuf};

use nginx_conf::{Config, Directive};

use super::{
    blocks::{self, Block},
    part::{self, Part},
    user::User,
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

    /// The user that its workers become, where it says so.
    #[must_use]
    pub fn user(&self) -> Option<User> {
        let user = self.config.directives.iter().find(|directive| directive.name.text == "user")?;
        Some(User { name: user.arg(0)?.to_owned(), group: user.arg(1).map(str::to_owned) })
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

    /// The files that nginx reads when it takes this configuration: those that it consists of, and those that its directives name,
    /// such as certificates.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        /// Directives of which the first argument is a file that is read as the configuration is.
        const NAMING_FILES: [&str; 10] = [
            "auth_basic_user_file",
            "load_module",
            "ssl_certificate",
            "ssl_certificate_key",
            "ssl_client_certificate",
            "ssl_crl",
            "ssl_dhparam",
            "ssl_password_file",
            "ssl_session_ticket_key",
            "ssl_trusted_certificate",
        ];
        let mut files: Vec<_> = self.config.files.iter().map(|file| file.path.clone()).collect();
        let prefix = files.first().and_then(|main| main.parent()).unwrap_or(Path::new("")).to_owned();
        let mut waiting: Vec<&Directive> = self.config.directives.iter().collect();
        while let Some(directive) = waiting.pop() {
            waiting.extend(directive.children());
            let named = directive.arg(0).filter(|_| NAMING_FILES.contains(&&*directive.name.text));
            // One with a variable is read for each request.
            files.extend(named.filter(|name| !name.contains(['$', ':'])).map(|name| prefix.join(name)));
        }
        files.retain(|file| file.is_absolute());
        files.sort();
        files.dedup();
        files
    }
}
