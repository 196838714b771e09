//! Logging to standard error.

use tracing_subscriber::{EnvFilter, fmt};

use crate::cli::{Log, LogFormat};

/// Starts logging. `usual` is the level where nothing else is asked for; `PROXYTRACE_LOG` overrides it in detail.
pub fn start(log: &Log, usual: &str) {
    let level = match (log.quiet, log.verbose) {
        (true, _) => "error",
        (false, 0) => usual,
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("PROXYTRACE_LOG").unwrap_or_else(|_| {
        // Of the libraries, only what is wrong.
        EnvFilter::new(format!("warn,proxytrace={level}"))
    });
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match log.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
