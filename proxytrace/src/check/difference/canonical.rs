//! Directives in a form in which what means the same is the same.

use std::collections::HashMap;

use nginx_conf::Directive;

use crate::{
    declared::Context,
    nginx::{
        directives::{self, Kind},
        time,
        variables::canonical as variables,
    },
};

/// Upstreams that have another name in the new configuration, by their old ones in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Renames(pub(super) HashMap<(Context, String), String>);

impl Renames {
    /// A name as the new configuration has it.
    pub(super) fn of(&self, context: Context, name: &str) -> String {
        let name = name.to_ascii_lowercase();
        self.0.get(&(context, name.clone())).cloned().unwrap_or(name)
    }
}

/// What changes nothing for a request.
const UNSEEN: &[&str] = &[
    "access_log",
    "error_log",
    "log_format",
    "log_not_found",
    "log_subrequest",
    "open_log_file_cache",
    "rewrite_log",
    "uninitialized_variable_warn",
    "connection_pool_size",
    "request_pool_size",
    "postpone_output",
    "output_buffers",
    "sendfile",
    "sendfile_max_chunk",
    "tcp_nopush",
    "tcp_nodelay",
    "aio",
    "aio_write",
    "directio",
    "directio_alignment",
    "status_zone",
    "client_body_temp_path",
    "proxy_temp_path",
    "fastcgi_temp_path",
    "uwsgi_temp_path",
    "scgi_temp_path",
    "zone",
];

/// What such a directive's name ends with.
const UNSEEN_ENDS: [&str; 2] = ["_hash_max_size", "_hash_bucket_size"];

/// What is in force where nothing is written; arguments in their canonical form.
const DEFAULTS: &[(&str, &str)] = &[
    ("proxy_connect_timeout", "60000"),
    ("proxy_send_timeout", "60000"),
    ("proxy_read_timeout", "60000"),
    ("fastcgi_connect_timeout", "60000"),
    ("fastcgi_send_timeout", "60000"),
    ("fastcgi_read_timeout", "60000"),
    ("uwsgi_connect_timeout", "60000"),
    ("uwsgi_send_timeout", "60000"),
    ("uwsgi_read_timeout", "60000"),
    ("scgi_connect_timeout", "60000"),
    ("scgi_send_timeout", "60000"),
    ("scgi_read_timeout", "60000"),
    ("grpc_connect_timeout", "60000"),
    ("grpc_send_timeout", "60000"),
    ("grpc_read_timeout", "60000"),
    ("memcached_connect_timeout", "60000"),
    ("memcached_send_timeout", "60000"),
    ("memcached_read_timeout", "60000"),
    ("proxy_timeout", "600000"),
    ("proxy_next_upstream", "error timeout"),
    ("proxy_ssl_server_name", "off"),
    ("proxy_ssl_verify", "off"),
    ("proxy_buffering", "on"),
    ("proxy_request_buffering", "on"),
    ("proxy_intercept_errors", "off"),
    ("server_tokens", "on"),
    ("client_max_body_size", "1048576"),
    ("keepalive_timeout", "75000"),
    ("gzip", "off"),
    ("autoindex", "off"),
    ("index", "index.html"),
    ("merge_slashes", "on"),
    ("server_name_in_redirect", "off"),
    ("port_in_redirect", "on"),
    ("absolute_redirect", "on"),
];

/// Lists whose arguments are a set.
const SETS: [&str; 5] = [
    "proxy_next_upstream",
    "fastcgi_next_upstream",
    "uwsgi_next_upstream",
    "scgi_next_upstream",
    "grpc_next_upstream",
];

/// What the name of a directive ends with whose lines each set a thing of their first argument, in whatever order.
const BY_NAME: [&str; 5] = ["_set_header", "add_header", "add_trailer", "_param", "_hide_header"];

/// Directives whose arguments are times, besides those of the table.
const TIMES: [&str; 2] = ["keepalive_timeout", "resolver_timeout"];

/// Whether a directive changes what a request meets.
pub(super) fn is_seen(name: &str) -> bool {
    !UNSEEN.contains(&name) && !UNSEEN_ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether it is what is in force anyway.
pub(super) fn is_default(name: &str, lines: &[String]) -> bool {
    let [line] = lines else { return false };
    DEFAULTS.iter().any(|(default, value)| *default == name && value == line)
}

/// The lines of one directive in a block, in an order that means nothing more than it does.
pub(super) fn sorted(name: &str, mut lines: Vec<String>) -> Vec<String> {
    if BY_NAME.iter().any(|end| name.ends_with(end)) {
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        lines.sort_by_key(|line| first(line));
    }
    lines
}

/// The arguments of a directive.
pub(super) fn arguments(context: Context, directive: &Directive, renames: &Renames) -> String {
    let name = directive.name.text.as_str();
    let kind = directives::of(name).first().map(|known| known.kind);
    let is_header = BY_NAME.iter().any(|end| name.ends_with(end));
    let mut words: Vec<_> = directive.args.iter().map(|word| variables(&word.text)).collect();
    if matches!(kind, Some(Kind::Time | Kind::Seconds)) || TIMES.contains(&name) {
        for word in &mut words {
            if let Some(ms) = time::milliseconds(word) {
                *word = ms.to_string();
            }
        }
    }
    if matches!(kind, Some(Kind::Size | Kind::Offset)) {
        words.iter_mut().for_each(|word| *word = size(word));
    }
    if kind == Some(Kind::Flag) {
        words.iter_mut().for_each(|word| word.make_ascii_lowercase());
    }
    if name == "set"
        && let Some(value) = words.get_mut(1)
    {
        *value = renamed(context, value, renames);
    }
    if is_header
        && !name.ends_with("_param")
        && let Some(header) = words.first_mut()
    {
        header.make_ascii_lowercase();
    }
    if SETS.contains(&name) {
        words.sort();
    }
    // Nested blocks of other modules, and of values such as types.
    let mut children: Vec<_> = directive
        .children()
        .iter()
        .map(|child| format!("{} {}", child.name.text, arguments(context, child, renames)))
        .collect();
    if !children.is_empty() {
        children.sort();
        words.push(format!("{{ {} }}", children.join("; ")));
    }
    words.join(" ")
}

/// A value that is the name of an upstream, as the new configuration has it.
pub(super) fn renamed(context: Context, value: &str, renames: &Renames) -> String {
    let is_renamed = renames.0.contains_key(&(context, value.to_ascii_lowercase()));
    if is_renamed { renames.of(context, value) } else { value.to_owned() }
}

/// Where a pass leads: scheme, host and port in one form, and what stands behind them.
pub(super) fn target(context: Context, text: &str, renames: &Renames) -> String {
    let text = variables(text);
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{}://", scheme.to_ascii_lowercase()), rest),
        None => (String::new(), text.as_str()),
    };
    if rest.starts_with("unix:") {
        return text;
    }
    let (authority, uri) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A variable may hold what follows the host too: then nothing is known of the host.
    if authority.contains('$') {
        return format!("{scheme}{authority}{uri}");
    }
    let authority = authority.to_ascii_lowercase();
    let default = match &*scheme {
        "http://" | "grpc://" => ":80",
        "https://" | "grpcs://" => ":443",
        _ => "",
    };
    let host = authority.strip_suffix(default).filter(|_| !default.is_empty()).unwrap_or(&authority);
    format!("{scheme}{}{uri}", renames.of(context, host))
}

fn size(text: &str) -> String {
    let (number, unit) =
        text.split_at(text.len() - usize::from(text.ends_with(|c: char| c.is_ascii_alphabetic())));
    let factor = match unit {
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1_u64 << 30,
        _ => 1,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map_or_else(|| text.to_owned(), |bytes| bytes.to_string())
}
