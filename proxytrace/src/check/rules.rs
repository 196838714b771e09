//! Every kind of finding, once: its id, how grave it is, and what it is about.

use serde::Serialize;

/// A kind of finding.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Never changes.
    pub id: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What it is about.
    #[serde(skip)]
    pub about: &'static str,
}

/// How grave something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// nginx refuses the configuration, or requests fail.
    Error,
    /// Probably not what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! rules {
    ($($name:ident = $severity:ident $id:literal $about:literal;)*) => {
        $(pub(super) static $name: Rule = Rule { id: $id, severity: Severity::$severity, about: $about };)*
        /// All of them.
        #[cfg(test)]
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    SYNTAX = Error "syntax" "nginx cannot read the configuration";
    OUT_OF_PLACE = Error "out-of-place" "a `server`, `upstream` or `location` outside of `http` and `stream`: only a part of a configuration";
    BAD_ADDRESS = Error "bad-address" "an address that nginx refuses: port 0, no port where one is needed, no host";
    PORT_OF_UPSTREAM = Error "port-of-upstream" "a port behind the name of an `upstream` block";
    UPSTREAM_TWICE = Error "upstream-twice" "two `upstream` blocks of one name";
    UPSTREAM_EMPTY = Error "upstream-empty" "an upstream without a peer that is no `backup`";
    UPSTREAM_DOWN = Error "upstream-down" "an upstream whose peers are all `down`";
    UPSTREAM_UNDEFINED = Warning "upstream-undefined" "a name without a dot that no `upstream` block has, so that nginx takes it for a host";
    UPSTREAM_UNUSED = Warning "upstream-unused" "an `upstream` block that nothing leads to";
    NO_RESOLVER = Error "no-resolver" "a host name out of variables, and no `resolver` in force";
    NAME_UNRESOLVED = Error "name-unresolved" "a host name that does not resolve";
    SOCKET_MISSING = Warning "socket-missing" "a unix socket that is not there";
    HTTP_TO_443 = Warning "http-to-443" "plain HTTP to the port of HTTPS";
    HTTPS_TO_80 = Warning "https-to-80" "TLS to the port of plain HTTP";
    SERVER_NAME_TWICE = Warning "server-name-twice" "a `server_name` that another server has at the same address";
    DEFAULT_SERVER_TWICE = Error "default-server-twice" "two default servers at one address";
    LOCATION_TWICE = Error "location-twice" "two locations of one path";
    LOCATION_SHADOWED = Warning "location-shadowed" "a location that an equal one before it hides";
    LONG_CONNECT_TIMEOUT = Note "long-connect-timeout" "a connect timeout so long that one dead peer hurts";
    PROBE_FAILED = Error "probe-failed" "an address that `--probe` could not connect to";
}
