//! Where nginx reads variables: the arguments of its directives in which a `$` begins one.

use nginx_conf::Directive;

use super::patterns;

/// How it reads a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Variables and groups of patterns in it.
    Text,
    /// Variables in it; a digit is a name like others.
    Variables,
    /// A `$` and one name, and nothing else.
    Name,
}

/// Which arguments.
#[derive(Clone, Copy)]
enum Where {
    All,
    At(usize),
    From(usize),
    Last,
}

use Read::{Name, Text, Variables};
use Where::{All, At, From, Last};

/// In http and stream; a directive of both reads its arguments alike. Words that are no text, such as `off`, have no `$`.
const EVALUATED: &[(&str, Where, Read)] = &[
    ("access_log", At(0), Text),
    ("add_header", At(1), Text),
    ("add_trailer", At(1), Text),
    ("alias", All, Text),
    ("auth_basic", All, Text),
    ("auth_basic_user_file", All, Text),
    ("auth_request_set", At(1), Text),
    ("charset", All, Name),
    ("early_hints", All, Text),
    ("error_page", Last, Text),
    ("expires", Last, Text),
    ("fastcgi_bind", At(0), Text),
    ("fastcgi_cache", All, Text),
    ("fastcgi_cache_bypass", All, Text),
    ("fastcgi_cache_key", All, Text),
    ("fastcgi_no_cache", All, Text),
    ("fastcgi_param", At(1), Text),
    ("fastcgi_pass", All, Text),
    ("fastcgi_store", All, Text),
    ("grpc_bind", At(0), Text),
    ("grpc_pass", All, Text),
    ("grpc_set_header", At(1), Text),
    ("grpc_ssl_certificate", All, Text),
    ("grpc_ssl_certificate_key", All, Text),
    ("grpc_ssl_name", All, Text),
    ("hash", At(0), Text),
    ("index", All, Text),
    ("limit_conn_zone", At(0), Text),
    ("limit_rate", All, Text),
    ("limit_rate_after", All, Text),
    ("limit_req_zone", At(0), Text),
    ("log_format", From(1), Variables),
    ("map", At(0), Text),
    ("memcached_bind", At(0), Text),
    ("pass", All, Text),
    ("proxy_bind", At(0), Text),
    ("proxy_cache", All, Text),
    ("proxy_cache_bypass", All, Text),
    ("proxy_cache_key", All, Text),
    ("proxy_cookie_domain", All, Text),
    ("proxy_cookie_flags", All, Text),
    ("proxy_cookie_path", All, Text),
    ("proxy_download_rate", All, Text),
    ("proxy_method", All, Text),
    ("proxy_no_cache", All, Text),
    ("proxy_pass", All, Text),
    ("proxy_redirect", All, Text),
    ("proxy_set_body", All, Text),
    ("proxy_set_header", At(1), Text),
    ("proxy_ssl_certificate", All, Text),
    ("proxy_ssl_certificate_key", All, Text),
    ("proxy_ssl_name", All, Text),
    ("proxy_store", All, Text),
    ("proxy_upload_rate", All, Text),
    ("return", All, Text),
    ("rewrite", At(1), Text),
    ("root", All, Text),
    ("scgi_bind", At(0), Text),
    ("scgi_cache", All, Text),
    ("scgi_cache_bypass", All, Text),
    ("scgi_cache_key", All, Text),
    ("scgi_no_cache", All, Text),
    ("scgi_param", At(1), Text),
    ("scgi_pass", All, Text),
    ("scgi_store", All, Text),
    ("secure_link", All, Text),
    ("secure_link_md5", All, Text),
    ("set", At(1), Text),
    ("source_charset", All, Name),
    ("split_clients", At(0), Text),
    ("ssl_certificate", All, Text),
    ("ssl_certificate_key", All, Text),
    ("sub_filter", All, Text),
    ("try_files", All, Text),
    ("tunnel_pass", All, Text),
    ("uwsgi_bind", At(0), Text),
    ("uwsgi_cache", All, Text),
    ("uwsgi_cache_bypass", All, Text),
    ("uwsgi_cache_key", All, Text),
    ("uwsgi_no_cache", All, Text),
    ("uwsgi_param", At(1), Text),
    ("uwsgi_pass", All, Text),
    ("uwsgi_ssl_certificate", All, Text),
    ("uwsgi_ssl_certificate_key", All, Text),
    ("uwsgi_ssl_name", All, Text),
    ("uwsgi_store", All, Text),
];

/// Directives whose first argument is a pattern where it begins with `~`.
const PATTERNS: [&str; 4] =
    ["proxy_cookie_domain", "proxy_cookie_flags", "proxy_cookie_path", "proxy_redirect"];

/// The texts of a directive that nginx reads, and how.
pub(super) fn evaluated(directive: &Directive) -> Vec<(Read, &str)> {
    let name = directive.name.text.as_str();
    let texts = || directive.args.iter().map(|word| word.text.as_str());
    let mut read: Vec<_> = EVALUATED
        .iter()
        .filter(|(evaluated, ..)| *evaluated == name)
        .flat_map(|(_, place, read)| {
            let (from, count) = match *place {
                All => (0, usize::MAX),
                At(at) => (at, 1),
                From(from) => (from, usize::MAX),
                Last => (directive.args.len().saturating_sub(1), 1),
            };
            texts().skip(from).take(count).map(|text| (*read, text))
        })
        .collect();
    match name {
        "access_log" => {
            read.retain(|(_, text)| !text.starts_with("syslog:"));
            read.extend(texts().filter_map(|text| Some((Text, text.strip_prefix("if=")?))));
        }
        // It reads it.
        "memcached_pass" => read.push((Name, "$memcached_key")),
        "geo" if directive.args.len() == 2 => read.extend(texts().take(1).map(|text| (Name, text))),
        "if" => read.extend(condition(directive)),
        _ if PATTERNS.contains(&name) && directive.arg(0).is_some_and(|text| text.starts_with('~')) => {
            read.remove(0);
        }
        _ => {}
    }
    read
}

/// A variable and what it is compared with, if that is no pattern; or what a file is called.
fn condition(directive: &Directive) -> Vec<(Read, &str)> {
    let words = patterns::words_of(&directive.args).unwrap_or_default();
    match words[..] {
        [variable] => vec![(Name, variable)],
        [_, file] => vec![(Text, file)],
        [variable, operator, _] if operator.contains('~') => vec![(Name, variable)],
        [variable, _, value] => vec![(Name, variable), (Text, value)],
        _ => Vec::new(),
    }
}
