//! What is in force where nothing is written.

use super::canonical::{Here, Line};

/// Modules that pass requests on. What they call alike is the same: `*_read_timeout` stands for all of them.
pub(super) const MODULES: [&str; 7] = ["proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached", "tunnel"];

/// What is in force where nothing is written: where (empty where everywhere), the directive, and its arguments in their canonical
/// form. Only what was the same in all versions since 1.18.0.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("http", "*_bind", "off"),
    ("http", "*_buffering", "on"),
    ("http", "*_cache", "off"),
    ("http", "*_cache_background_update", "off"),
    ("http", "*_cache_lock", "off"),
    ("http", "*_cache_lock_age", "5s"),
    ("http", "*_cache_lock_timeout", "5s"),
    ("http", "*_cache_methods", "get head"),
    ("http", "*_cache_min_uses", "1"),
    ("http", "*_cache_revalidate", "off"),
    ("http", "*_cache_use_stale", "off"),
    ("http", "*_connect_timeout", "1m"),
    ("http", "*_force_ranges", "off"),
    ("http", "*_ignore_client_abort", "off"),
    ("http", "*_intercept_errors", "off"),
    ("http", "*_limit_rate", "0"),
    ("http", "*_max_temp_file_size", "1g"),
    ("http", "*_next_upstream", "error timeout"),
    ("http", "*_next_upstream_timeout", "0"),
    ("http", "*_next_upstream_tries", "0"),
    ("http", "*_pass_request_body", "on"),
    ("http", "*_pass_request_headers", "on"),
    ("http", "*_read_timeout", "1m"),
    ("http", "*_request_buffering", "on"),
    ("http", "*_send_timeout", "1m"),
    ("http", "*_socket_keepalive", "off"),
    ("http", "*_ssl_server_name", "off"),
    ("http", "*_ssl_session_reuse", "on"),
    ("http", "*_ssl_verify", "off"),
    ("http", "*_ssl_verify_depth", "1"),
    ("http", "*_store", "off"),
    ("http", "absolute_redirect", "on"),
    ("http", "auth_basic", "off"),
    ("http", "auth_request", "off"),
    ("http", "autoindex", "off"),
    ("http", "charset", "off"),
    ("http", "chunked_transfer_encoding", "on"),
    ("http", "client_body_in_file_only", "off"),
    ("http", "client_body_in_single_buffer", "off"),
    ("http", "client_body_timeout", "1m"),
    ("http", "client_header_buffer_size", "1k"),
    ("http", "client_header_timeout", "1m"),
    ("http", "client_max_body_size", "1m"),
    ("http", "default_type", "text/plain"),
    ("http", "etag", "on"),
    ("http", "expires", "off"),
    ("http", "fastcgi_keep_conn", "off"),
    ("http", "gzip", "off"),
    ("http", "gzip_comp_level", "1"),
    ("http", "gzip_http_version", "1.1"),
    ("http", "gzip_min_length", "20"),
    ("http", "gzip_proxied", "off"),
    ("http", "gzip_static", "off"),
    ("http", "gzip_types", "text/html"),
    ("http", "gzip_vary", "off"),
    ("http", "http2", "off"),
    ("http", "if_modified_since", "exact"),
    ("http", "ignore_invalid_headers", "on"),
    ("http", "index", "index.html"),
    ("http", "keepalive_disable", "msie6"),
    ("http", "keepalive_timeout", "75s"),
    ("http", "large_client_header_buffers", "4 8k"),
    ("http", "limit_conn_dry_run", "off"),
    ("http", "limit_conn_status", "503"),
    ("http", "limit_rate", "0"),
    ("http", "limit_rate_after", "0"),
    ("http", "limit_req_dry_run", "off"),
    ("http", "limit_req_status", "503"),
    ("http", "lingering_close", "on"),
    ("http", "lingering_time", "30s"),
    ("http", "lingering_timeout", "5s"),
    ("http", "merge_slashes", "on"),
    ("http", "mirror", "off"),
    ("http", "mirror_request_body", "on"),
    ("http", "port_in_redirect", "on"),
    ("http", "proxy_cache_convert_head", "on"),
    ("http", "proxy_cookie_domain", "off"),
    ("http", "proxy_cookie_path", "off"),
    ("http", "proxy_redirect", "default"),
    ("http", "real_ip_header", "x-real-ip"),
    ("http", "real_ip_recursive", "off"),
    ("http", "recursive_error_pages", "off"),
    ("http", "reset_timedout_connection", "off"),
    ("http", "satisfy", "all"),
    ("http", "send_timeout", "1m"),
    ("http", "server_name_in_redirect", "off"),
    ("http", "server_tokens", "on"),
    ("http", "ssi", "off"),
    ("http", "sub_filter_last_modified", "off"),
    ("http", "sub_filter_once", "on"),
    ("http", "underscores_in_headers", "off"),
    ("http", "userid", "off"),
    ("stream", "preread_buffer_size", "16k"),
    ("stream", "preread_timeout", "30s"),
    ("stream", "proxy_bind", "off"),
    ("stream", "proxy_buffer_size", "16k"),
    ("stream", "proxy_connect_timeout", "1m"),
    ("stream", "proxy_download_rate", "0"),
    ("stream", "proxy_next_upstream", "on"),
    ("stream", "proxy_next_upstream_timeout", "0"),
    ("stream", "proxy_next_upstream_tries", "0"),
    ("stream", "proxy_protocol", "off"),
    ("stream", "proxy_protocol_timeout", "30s"),
    ("stream", "proxy_requests", "0"),
    ("stream", "proxy_socket_keepalive", "off"),
    ("stream", "proxy_ssl", "off"),
    ("stream", "proxy_ssl_server_name", "off"),
    ("stream", "proxy_ssl_session_reuse", "on"),
    ("stream", "proxy_ssl_verify", "off"),
    ("stream", "proxy_ssl_verify_depth", "1"),
    ("stream", "proxy_timeout", "10m"),
    ("stream", "proxy_upload_rate", "0"),
    ("stream", "ssl_preread", "off"),
    ("mail", "auth_http_timeout", "1m"),
    ("mail", "proxy_pass_error_message", "off"),
    ("mail", "timeout", "1m"),
    ("mail", "xclient", "on"),
    ("upstream", "keepalive_time", "1h"),
    ("upstream", "keepalive_timeout", "1m"),
    ("", "resolver_timeout", "30s"),
    ("", "ssl_prefer_server_ciphers", "off"),
    ("", "ssl_session_timeout", "5m"),
    ("", "ssl_session_tickets", "on"),
    ("", "ssl_verify_client", "off"),
    ("", "ssl_verify_depth", "1"),
];

/// Lines that say what holds anyway, in their canonical form: where nginx does not keep connections by default, and where it does.
const USUAL: &[(&str, [&str; 2])] = &[
    ("proxy_http_version", ["1.0", "1.1"]),
    ("proxy_set_header", ["host ${proxy_host}"; 2]),
    ("proxy_set_header", ["connection close", "connection "]),
    ("keepalive", ["0", "32 local"]),
];

/// The lines of one directive that say something else than what is in force anyway.
pub(super) fn unusual(here: &Here<'_>, mut lines: Vec<Line>) -> Vec<Line> {
    if let [line] = &lines[..]
        && is_default(here.kind, &line.name, &line.words.join(" "))
    {
        return Vec::new();
    }
    lines.retain(|line| !is_usual(here, &line.name, &line.words.join(" ")));
    lines
}

fn is_default(kind: &str, name: &str, value: &str) -> bool {
    let is_named = |default: &str| match default.strip_prefix('*') {
        Some(end) => name.strip_suffix(end).is_some_and(|module| MODULES.contains(&module)),
        None => default == name,
    };
    DEFAULTS
        .iter()
        .any(|(of, default, usual)| *usual == value && (of.is_empty() || *of == kind) && is_named(default))
}

fn is_usual(here: &Here<'_>, name: &str, value: &str) -> bool {
    let of_kept = |[not_kept, kept]: [&str; 2]| match here.terms.kept() {
        Some(false) => value == not_kept,
        Some(true) => value == kept,
        None => not_kept == kept && value == kept,
    };
    USUAL.iter().filter(|(of, _)| *of == name).any(|(_, values)| of_kept(*values))
}

#[cfg(test)]
mod tests {
    use super::{DEFAULTS, Here, unusual};
    use crate::{
        check::difference::canonical::{Terms, lines},
        nginx::tests::config,
    };

    #[test]
    fn each_default_is_in_its_canonical_form() {
        for (kind, name, value) in DEFAULTS {
            let kind = if kind.is_empty() { "http" } else { kind };
            let text = format!("{} {value};", name.replace('*', "proxy"));
            let config = config(&text);
            let terms = Terms::default();
            let here = Here { kind, terms: &terms };
            let lines = lines(&here, &config.directives[0]);
            assert!(!lines.is_empty() && unusual(&here, lines).is_empty(), "{text}");
        }
    }
}
