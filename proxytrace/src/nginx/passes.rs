//! The directives that pass requests on, and what is in force where one stands.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{
    directives, time,
    url::{Error, Url},
};
use crate::declared::{Context, Endpoint, Resolver};

/// nginx's own timeouts where none is set.
const DEFAULT_TIMEOUT_MS: u64 = 60_000;
/// Where a `resolver` listens when no port is written.
const DNS: u16 = 53;

/// A directive that passes requests on.
#[derive(Debug)]
pub(crate) struct Pass {
    context: Context,
    pub(crate) directive: &'static str,
    timeout: &'static str,
    read_timeout: &'static str,
    /// What can stand before the host, and the port that it stands for.
    schemes: &'static [(&'static str, Option<u16>)],
    /// Where it leads when it says nothing.
    pub(crate) default: &'static str,
}

const ANY_PORT: &[(&str, Option<u16>)] = &[("", None)];

/// The end of the names of directives that pass requests on, also those of modules that are not nginx's own.
const PASS: &str = "_pass";

/// Those of other modules: memc, redis2, drizzle, postgres, ajp, nchan and so on. Whether they have a default port is not known.
static FOREIGN: [Pass; 2] = [foreign(Context::Http), foreign(Context::Stream)];

const fn foreign(context: Context) -> Pass {
    Pass { context, directive: PASS, timeout: "", read_timeout: "", schemes: ANY_PORT, default: "" }
}

static PASSES: [Pass; 8] = [
    Pass {
        context: Context::Http,
        directive: "proxy_pass",
        timeout: "proxy_connect_timeout",
        read_timeout: "proxy_read_timeout",
        schemes: &[("http://", Some(80)), ("https://", Some(443))],
        default: "",
    },
    Pass {
        context: Context::Http,
        directive: "fastcgi_pass",
        timeout: "fastcgi_connect_timeout",
        read_timeout: "fastcgi_read_timeout",
        schemes: ANY_PORT,
        default: "",
    },
    Pass {
        context: Context::Http,
        directive: "uwsgi_pass",
        timeout: "uwsgi_connect_timeout",
        read_timeout: "uwsgi_read_timeout",
        schemes: &[("uwsgi://", None), ("suwsgi://", None), ("", None)],
        default: "",
    },
    Pass {
        context: Context::Http,
        directive: "scgi_pass",
        timeout: "scgi_connect_timeout",
        read_timeout: "scgi_read_timeout",
        schemes: ANY_PORT,
        default: "",
    },
    Pass {
        context: Context::Http,
        directive: "grpc_pass",
        timeout: "grpc_connect_timeout",
        read_timeout: "grpc_read_timeout",
        schemes: &[("grpc://", None), ("grpcs://", None), ("", None)],
        default: "",
    },
    Pass {
        context: Context::Http,
        directive: "memcached_pass",
        timeout: "memcached_connect_timeout",
        read_timeout: "memcached_read_timeout",
        schemes: ANY_PORT,
        default: "",
    },
    Pass {
        context: Context::Http,
        directive: "tunnel_pass",
        timeout: "tunnel_connect_timeout",
        read_timeout: "tunnel_read_timeout",
        schemes: ANY_PORT,
        default: "$host:$request_port",
    },
    Pass {
        context: Context::Stream,
        directive: "proxy_pass",
        timeout: "proxy_connect_timeout",
        read_timeout: "", // silence is no failure
        schemes: ANY_PORT,
        default: "",
    },
];

impl Pass {
    /// The pass that a directive is.
    pub(crate) fn of(context: Context, directive: &Directive) -> Option<&'static Self> {
        let name = directive.name.text.as_str();
        let own = PASSES.iter().find(|pass| pass.context == context && pass.directive == name);
        let is_foreign = || name.ends_with(PASS) && directives::of(name).is_empty();
        own.or_else(|| FOREIGN.iter().find(|pass| pass.context == context && is_foreign()))
    }

    /// It is one of another module, whose addresses may be written in another way.
    pub(crate) fn is_foreign(&self) -> bool {
        self.directive == PASS
    }

    /// The part of a text that names a host, with what stands behind it, and the port that its scheme stands for.
    pub(crate) fn without_scheme<'a>(&self, text: &'a str) -> Result<(&'a str, Option<u16>), Error> {
        let cut = |(scheme, port): &(&str, Option<u16>)| {
            let start = text.get(..scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then(|| (&text[scheme.len()..], *port))
        };
        if self.is_foreign() {
            return Ok((text.split_once("://").map_or(text, |(_, rest)| rest), None));
        }
        self.schemes.iter().find_map(cut).ok_or(Error::InvalidPrefix)
    }

    /// Whether TLS is spoken to the host that a text names, and whether that is known.
    pub(crate) fn is_tls(&self, text: &str) -> bool {
        let has =
            |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        self.context == Context::Http && ["https://", "grpcs://", "suwsgi://"].into_iter().any(has)
    }

    /// Only `proxy_pass` in http may have a path behind the host.
    pub(crate) fn has_uri(&self) -> bool {
        self.context == Context::Http && matches!(self.directive, "proxy_pass" | PASS)
    }
}

/// What is in force at a place: what is set there, or in the nearest block around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// By directive, in milliseconds.
    timeouts: HashMap<&'static str, u64>,
    /// By what passes are called before the `_`: whether the body of a request is passed on as it comes.
    streams_body: HashMap<String, bool>,
    /// `proxy_set_header Upgrade` is in force.
    upgrades: bool,
    /// `proxy_http_version 2` is.
    is_http2: bool,
    pub(crate) resolver: Option<Resolver>,
}

impl Scope {
    /// What is in force in a block that stands here.
    pub(crate) fn inner(&self, context: Context, block: &[Directive]) -> Self {
        let mut inner = self.clone();
        for directive in block {
            let name = directive.name.text.as_str();
            if name == "resolver" {
                inner.resolver = resolver(directive);
            } else if name == "resolver_file" {
                inner.resolver = Some(Resolver { servers: Vec::new(), valid_ms: None });
            }
            let passes = PASSES.iter().filter(|pass| pass.context == context);
            let timeout =
                passes.flat_map(|pass| [pass.timeout, pass.read_timeout]).find(|timeout| *timeout == name);
            if let Some((timeout, ms)) = timeout.zip(directive.arg(0).and_then(time::milliseconds)) {
                inner.timeouts.insert(timeout, ms);
            }
            if let Some(pass) = name.strip_suffix("_request_buffering") {
                inner.streams_body.insert(pass.to_owned(), directive.arg(0) == Some("off"));
            }
            if name == "proxy_http_version" {
                inner.is_http2 = directive.arg(0).is_some_and(|version| version.starts_with('2'));
            }
        }
        // A block that sets any header inherits none.
        let mut headers =
            block.iter().filter(|directive| directive.name.text == "proxy_set_header").peekable();
        if headers.peek().is_some() {
            let is_upgrade = |header: &str| header.eq_ignore_ascii_case("upgrade");
            inner.upgrades = headers.any(|header| {
                header.arg(0).is_some_and(is_upgrade) && header.arg(1).is_some_and(|value| !value.is_empty())
            });
        }
        inner
    }

    /// How long a pass here waits for a connect.
    pub(crate) fn connect_timeout_ms(&self, pass: &Pass) -> u64 {
        self.timeouts.get(pass.timeout).copied().unwrap_or(DEFAULT_TIMEOUT_MS)
    }

    /// How long a pass here waits for bytes of an answer; 0 where it waits for none.
    pub(crate) fn read_timeout_ms(&self, pass: &Pass) -> u64 {
        match pass.read_timeout {
            "" => 0,
            timeout => self.timeouts.get(timeout).copied().unwrap_or(DEFAULT_TIMEOUT_MS),
        }
    }

    /// Whether a pass of `text` here may send while an answer comes, or get bytes that answer nothing. Where the scheme comes out
    /// of variables it may be TLS, which has such bytes as well.
    pub(crate) fn is_unordered(&self, pass: &Pass, text: &str) -> bool {
        let name = pass.directive.trim_end_matches("_pass");
        let is_proxy = name == "proxy";
        name == "grpc"
            || self.streams(name)
            || (is_proxy && (self.upgrades || self.is_http2 || text.starts_with('$')))
    }

    /// Whether it is a client that a pass here may wait for, when it has sent all that it has: the rest of a body. HTTP/2 has something to
    /// say before that.
    pub(crate) fn streams_body(&self, pass: &Pass) -> bool {
        let name = pass.directive.trim_end_matches("_pass");
        self.streams(name) && !(name == "proxy" && self.is_http2)
    }

    fn streams(&self, name: &str) -> bool {
        self.streams_body.get(name) == Some(&true)
    }
}

/// `None` for `resolver off`. OpenResty's `local=on` asks the servers of the host, which stand elsewhere, as those of Tengine's
/// `resolver_file` do.
pub(crate) fn resolver(directive: &Directive) -> Option<Resolver> {
    let args = directive.args.iter().map(|word| word.text.as_str());
    let endpoint = |text: &str| Url::parse(text, false).and_then(|url| url.endpoint(Some(DNS))).ok();
    let servers: Vec<Endpoint> =
        args.clone().filter(|arg| !arg.contains('=') && *arg != "off").filter_map(endpoint).collect();
    let is_elsewhere = args.clone().any(|arg| arg == "local=on");
    let valid = args.filter_map(|arg| arg.strip_prefix("valid=")).find_map(time::seconds);
    let valid_ms = valid.and_then(|seconds| seconds.checked_mul(1_000));
    (is_elsewhere || !servers.is_empty()).then_some(Resolver { servers, valid_ms })
}
