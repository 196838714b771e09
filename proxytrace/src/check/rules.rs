//! Every kind of finding, once: its id, how grave it is, and what it is about.

use serde::Serialize;

/// A kind of finding.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Never changes.
    pub id: &'static str,
    /// How grave it is at most.
    #[serde(skip)]
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
    PART = Note "part" "only a part of a configuration, which was checked as if the rest stood around it";
    EVENTS_MISSING = Error "events-missing" "a main file without the `events` block";
    NOTHING = Note "nothing" "nothing in it that could be checked";
    OUTSIDE = Warning "outside" "files outside of the tree, where a copy of them is in it";
    UNKNOWN_DIRECTIVE = Error "unknown-directive" "a directive that nginx does not have, and whose name is nearly one that it has: a warning where a module may have it";
    WRONG_PLACE = Error "wrong-place" "a directive in a block where nginx refuses it";
    ARGUMENT_COUNT = Error "argument-count" "a directive with more or fewer arguments than it takes, or with a block that it does not take, often for want of a semicolon";
    BAD_ARGUMENT = Error "bad-argument" "an argument or a parameter that nginx refuses";
    DIRECTIVE_TWICE = Error "directive-twice" "a directive twice in a block where nginx takes it once";
    VERSION = Error "version" "a directive or a parameter that this version of nginx does not have";
    UNKNOWN_VARIABLE = Error "unknown-variable" "a variable that nothing defines";
    LISTEN_MISSING = Error "listen-missing" "a server of `stream` or `mail` that listens nowhere";
    HANDLER_MISSING = Error "handler-missing" "a server of `stream` that neither passes nor returns, or one of `mail` without a protocol";
    LISTEN_TWICE = Error "listen-twice" "an address on which nginx refuses to listen a second time";
    CERTIFICATE_MISSING = Error "certificate-missing" "TLS without the certificate, the key or the authorities that nginx needs for it";
    PORT_SHARED = Error "port-shared" "an address that servers of `http`, `stream` and `mail` share, so that nginx cannot bind it";
    BAD_ADDRESS = Error "bad-address" "an address that nginx refuses: port 0, no port where one is needed, no host";
    PORT_OF_UPSTREAM = Error "port-of-upstream" "a port behind the name of an `upstream` block";
    UPSTREAM_TWICE = Error "upstream-twice" "two `upstream` blocks of one name";
    UPSTREAM_EMPTY = Error "upstream-empty" "an upstream without a peer that is no `backup`";
    UPSTREAM_DOWN = Error "upstream-down" "an upstream whose peers are all `down`";
    UPSTREAM_UNDEFINED = Warning "upstream-undefined" "a name without a dot and a port that no `upstream` block has, so that nginx takes it for a host";
    UPSTREAM_UNUSED = Warning "upstream-unused" "an `upstream` block that nothing leads to";
    NO_RESOLVER = Error "no-resolver" "a host name out of variables, and no `resolver` in force";
    NAME_UNRESOLVED = Error "name-unresolved" "a host name that does not resolve";
    SOCKET_MISSING = Warning "socket-missing" "a unix socket that is not there";
    HTTP_TO_443 = Warning "http-to-443" "plain HTTP to the port of HTTPS";
    HTTPS_TO_80 = Warning "https-to-80" "TLS to the port of plain HTTP";
    URI_REFUSED = Error "uri-refused" "a path in `proxy_pass` where nginx refuses one";
    SERVER_NAME_TWICE = Warning "server-name-twice" "a `server_name` that another server has at the same address";
    SERVER_NAME_ODD = Warning "server-name-odd" "a `server_name` that no request can have: a URL, a path, a comma";
    DEFAULT_SERVER_TWICE = Error "default-server-twice" "two default servers at one address";
    LOCATION_TWICE = Error "location-twice" "two locations of one path";
    LOCATION_SHADOWED = Warning "location-shadowed" "a location that an equal one before it hides";
    LOCATION_NESTED = Error "location-nested" "a location inside of another that nginx refuses there";
    LOCATION_MISSING = Warning "location-missing" "a named location that something goes to and that is not there";
    LONG_CONNECT_TIMEOUT = Note "long-connect-timeout" "a connect timeout so long that one dead peer hurts";
    PROBE_FAILED = Error "probe-failed" "an address that `--probe` could not connect to";
}
