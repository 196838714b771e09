//! Why nginx did not take a configuration: its own words, from the end of the log that it writes to.
//!
//! `nginx -t` would say the same. But to run it is to run a program of the proxy's, which may be another container's, with
//! our privileges; and what it reads may have been mended meanwhile.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use jiff::{Timestamp, civil::DateTime, tz::Offset};

use super::root::Root;

/// How much of the end of a log is looked through, in bytes. nginx cuts a line at 2 KiB (ngx_log.h).
const END: u64 = 64 << 10;

/// How long after the signal nginx may take to say it, in seconds.
const LATEST: i64 = 60;

/// nginx writes local time, and no offset. All time zones differ from each other by a multiple of that many seconds.
const ZONES: i64 = 15 * 60;

/// Permission to read for everybody.
const READ_BY_OTHERS: u32 = 0o004;

/// What nginx says of names that `/routes` has as well. The word of an unknown directive may be of a file that is no
/// configuration at all.
const TELLS_NO_SECRET: &[&str] = &[
    "host not found in upstream ",
    "no port in upstream ",
    "invalid port in upstream ",
    "duplicate upstream ",
];

/// Stands for what is left out.
const LEFT_OUT: &str = "\u{2026}";

/// What the process logged that calls itself `pid`, to one of `logs`, as the reason why it did not take the configuration that
/// it was asked for at `asked`.
///
/// A finding is told to everybody. So of a line in a log that not everybody may read, what is in quotes is left out, and paths
/// that not everybody may look up.
pub(super) fn logged(root: &Root, logs: &[OwnedFd], pid: i32, asked: Timestamp) -> Option<String> {
    let reason = |log: &OwnedFd| {
        let (end, is_public) = end_of(root, log).ok()?;
        let reason = found(&String::from_utf8_lossy(&end), pid, asked)?;
        Some(if is_public { reason } else { without_secrets(&reason, |path| root.is_public(path)) })
    };
    logs.iter().filter_map(reason).last()
}

/// The end of a regular file, whatever has become of its name, and whether everybody may read it.
fn end_of(root: &Root, log: &OwnedFd) -> io::Result<(Vec<u8>, bool)> {
    let mut file = root.open_found(log)?;
    let about = file.metadata()?;
    file.seek(SeekFrom::Start(about.len().saturating_sub(END)))?;
    let mut end = Vec::new();
    file.take(END).read_to_end(&mut end)?;
    let is_public = about.mode() & READ_BY_OTHERS != 0 && has_public_path(root, log);
    Ok((end, is_public))
}

/// Whether everybody may look up a file that is open, by the name that it has now.
fn has_public_path(root: &Root, file: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|path| root.is_public(&path))
}

/// A reason without what is in quotes, unless it is one of those that tell no secret, and without paths that are not public.
fn without_secrets(reason: &str, is_public: impl Fn(&Path) -> bool) -> String {
    let keeps_quotes = TELLS_NO_SECRET.iter().any(|start| reason.starts_with(start));
    let mut told = String::new();
    for (index, part) in reason.split('"').enumerate() {
        let is_quoted = index % 2 == 1;
        if index > 0 {
            told.push('"');
        }
        match is_quoted {
            true if !keeps_quotes => told.push_str(LEFT_OUT),
            true if part.contains('/') && !is_public(Path::new(part)) => told.push_str(LEFT_OUT),
            true => told.push_str(part),
            false => told.push_str(&without_hidden_paths(part, &is_public)),
        }
    }
    told
}

/// Words that are paths, with a line behind a colon or not.
fn without_hidden_paths(text: &str, is_public: impl Fn(&Path) -> bool) -> String {
    let word = |word: &str| {
        if !word.contains('/') {
            return word.to_owned();
        }
        let (path, line) = word.rsplit_once(':').unwrap_or((word, ""));
        let is_line = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
        let path = if is_line { path } else { word };
        match is_public(Path::new(path)) {
            true => word.to_owned(),
            false if is_line => format!("{LEFT_OUT}:{line}"),
            false => LEFT_OUT.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The last emergency that the process logged, if that was soon after `asked`.
fn found(log: &str, pid: i32, asked: Timestamp) -> Option<String> {
    let mark = format!(" [emerg] {pid}#");
    let (time, rest) = log.lines().rev().find_map(|line| line.split_once(&mark))?;
    let time = DateTime::strptime("%Y/%m/%d %H:%M:%S", time).ok()?;
    let time = Offset::UTC.to_timestamp(time).ok()?;
    // Whole seconds are written; and the time of the signal is known by another clock, to some milliseconds.
    let after = (time.as_second() - asked.as_second() + 1).rem_euclid(ZONES);
    let (_thread, reason) = rest.split_once(": ")?;
    (after <= LATEST).then(|| reason.replace(char::is_control, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Timestamp, found, without_secrets};

    const LOG: &str = "\
2026/11/25 14:29:55 [emerg] 12#12: unknown directive \"sever\" in /etc/nginx/nginx.conf:3
2026/11/25 14:30:02 [notice] 12#12: signal 1 (SIGHUP) received from 7, reconfiguring
2026/11/25 14:30:03 [emerg] 12#12: host not found in upstream \"api\" in /etc/nginx/conf.d/api.conf:4
2026/11/25 14:30:03 [emerg] 123#123: bind() to 0.0.0.0:80 failed (98: Address already in use)
";

    #[track_caller]
    fn check(pid: i32, asked: &str, expected: Option<&str>) {
        let asked: Timestamp = asked.parse().unwrap();
        assert_eq!(found(LOG, pid, asked).as_deref(), expected, "{asked}");
    }

    #[test]
    fn the_reason_is_the_last_that_this_process_logged_since_the_signal_in_whatever_time_zone() {
        let reason = Some("host not found in upstream \"api\" in /etc/nginx/conf.d/api.conf:4");
        check(12, "2026-11-25T14:30:02.9Z", reason);
        check(12, "2026-11-25T14:30:03.001Z", reason);
        check(12, "2026-11-25T14:30:04.001Z", reason);
        check(12, "2026-11-25T08:45:02Z", reason);
        check(12, "2026-11-26T04:30:02Z", reason);
        check(12, "2026-11-25T14:30:05Z", None);
        check(12, "2026-11-25T14:28:00Z", None);
        check(1, "2026-11-25T14:30:02Z", None);
        check(123, "2026-11-25T14:30:02Z", Some("bind() to 0.0.0.0:80 failed (98: Address already in use)"));
    }

    #[test]
    fn a_line_that_is_cut_off_at_its_beginning_says_nothing() {
        let asked: Timestamp = "2026-11-25T14:30:02Z".parse().unwrap();
        assert_eq!(found("25 14:30:03 [emerg] 12#12: unknown directive", 12, asked), None);
        assert_eq!(found("", 12, asked), None);
    }

    #[test]
    fn of_a_closed_log_only_what_everybody_may_know_is_told() {
        let check = |reason: &str, expected: &str| {
            let is_public = |path: &Path| path.starts_with("/etc/nginx");
            assert_eq!(without_secrets(reason, is_public), expected);
        };
        check(
            "unknown directive \"hunter2\" in /etc/nginx/nginx.conf:3",
            "unknown directive \"\u{2026}\" in /etc/nginx/nginx.conf:3",
        );
        check(
            "host not found in upstream \"api\" in /root/api.conf:4",
            "host not found in upstream \"api\" in \u{2026}:4",
        );
        check(
            "cannot load certificate \"/etc/nginx/private/acme-merger.key\": BIO_new_file() failed",
            "cannot load certificate \"\u{2026}\": BIO_new_file() failed",
        );
        check(
            "open() \"/srv/customer/a\" failed (13: Permission denied) in /etc/nginx/a.conf:1",
            "open() \"\u{2026}\" failed (13: Permission denied) in /etc/nginx/a.conf:1",
        );
        check("bind() to unix:/srv/a/b.sock failed (98: x)", "bind() to \u{2026} failed (98: x)");
        check("bind() to 0.0.0.0:80 failed (98: x)", "bind() to 0.0.0.0:80 failed (98: x)");
    }
}
