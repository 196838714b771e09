//! Logging to standard error.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    cli::{Log, LogFormat},
    escape,
};

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
    let builder = fmt().with_env_filter(filter).with_target(false);
    match log.log_format {
        LogFormat::Text => builder.with_ansi(false).with_writer(|| Escaping(io::stderr(), line)).init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_writer(|| Escaping(io::stderr(), escape::json)).init();
        }
    }
}

/// Escapes what a message has of others: a line of the log is one message, and does nothing to a terminal.
struct Escaping<W>(W, fn(&str) -> Cow<'_, str>);

impl<W: Write> Write for Escaping<W> {
    /// Each message comes in one piece, with its end.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.write_all(self.1(&String::from_utf8_lossy(message)).as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A line of text; the last character ends it.
fn line(message: &str) -> Cow<'_, str> {
    match message.strip_suffix('\n') {
        Some(text) => (escape::printable(text).into_owned() + "\n").into(),
        None => escape::printable(message),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Escaping, line};
    use crate::escape;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let written = |message: &str, form| {
            let mut out = Vec::new();
            Escaping(&mut out, form).write_all(message.as_bytes()).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("a\nFORGED\u{1b}[2J\n", line), "a\\u{a}FORGED\\u{1b}[2J\n");
        assert_eq!(written("{\"a\":\"\u{202e}\"}\n", escape::json), "{\"a\":\"\\u202e\"}\n");
    }
}
