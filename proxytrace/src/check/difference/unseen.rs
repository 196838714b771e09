//! Directives that change nothing for a request.

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

/// Whether a directive changes what a request meets.
pub(super) fn is_seen(name: &str) -> bool {
    !UNSEEN.contains(&name) && !UNSEEN_ENDS.iter().any(|end| name.ends_with(end))
}
