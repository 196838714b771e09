//! nginx's log of errors: why it did not take a configuration, in its own words.

use std::path::Path;

use jiff::{Timestamp, civil::DateTime, tz::Offset};

/// How long after the signal nginx may take to say it, in seconds.
const REASON_TIMEOUT: i64 = 60;

/// nginx writes local time, and no offset. All time zones differ from each other by a multiple of that many seconds.
const ZONE_STEP: i64 = 15 * 60;

/// What nginx says of names that `/routes` has as well. The word of an unknown directive may be of a file that is no
/// configuration at all.
const HOLDS_NO_SECRET: &[&str] = &[
    "host not found in upstream ",
    "no port in upstream ",
    "invalid port in upstream ",
    "duplicate upstream ",
];

/// Stands for what is left out.
const LEFT_OUT: &str = "\u{2026}";

/// The last emergency that the process logged which calls itself `pid`, if that was soon after `asked`.
pub(crate) fn reason(log: &str, pid: i32, asked: Timestamp) -> Option<String> {
    let mark = format!(" [emerg] {pid}#");
    let (time, rest) = log.lines().rev().find_map(|line| line.split_once(&mark))?;
    let (_thread, reason) = rest.split_once(": ")?;
    is_soon_after(time, asked).then(|| reason.replace(char::is_control, "\u{fffd}"))
}

/// What the worker said last that ended for good (`exited with fatal code`), where the master, which calls itself `pid`, logged that
/// soon after `ended`.
pub(crate) fn last_words(log: &str, pid: i32, ended: Timestamp) -> Option<String> {
    let mark = format!(" [alert] {pid}#");
    let (time, worker) = log.lines().rev().find_map(|line| {
        let (time, rest) = line.split_once(&mark)?;
        let (_thread, message) = rest.split_once(": ")?;
        let (worker, how) = message.strip_prefix("worker process ")?.split_once(' ')?;
        how.starts_with("exited with fatal code").then_some((time, worker))
    })?;
    let words = log.lines().rev().find_map(|line| {
        let (_, rest) = LEVELS.iter().find_map(|level| line.split_once(&format!(" [{level}] {worker}#")))?;
        Some(rest.split_once(": ")?.1)
    })?;
    is_soon_after(time, ended).then(|| words.replace(char::is_control, "\u{fffd}"))
}

/// How nginx calls what makes a worker end.
const LEVELS: [&str; 3] = ["emerg", "alert", "crit"];

fn is_soon_after(written: &str, moment: Timestamp) -> bool {
    let time =
        DateTime::strptime("%Y/%m/%d %H:%M:%S", written).and_then(|time| Offset::UTC.to_timestamp(time));
    // Whole seconds are written; and the time of the moment is known by another clock, to some milliseconds.
    time.is_ok_and(|time| (time.as_second() - moment.as_second() + 1).rem_euclid(ZONE_STEP) <= REASON_TIMEOUT)
}

/// A reason without what is in quotes, unless it is one of those that hold no secret, and without paths that are not public.
pub(crate) fn without_secrets(reason: &str, is_public: impl Fn(&Path) -> bool) -> String {
    without(reason, HOLDS_NO_SECRET.iter().any(|start| reason.starts_with(start)), is_public)
}

/// The same; whoever asks knows whether what is in quotes may be shown.
pub(crate) fn without(reason: &str, keeps_quotes: bool, is_public: impl Fn(&Path) -> bool) -> String {
    let mut shown = String::new();
    for (index, part) in reason.split('"').enumerate() {
        let is_quoted = index % 2 == 1;
        if index > 0 {
            shown.push('"');
        }
        match is_quoted {
            true if !keeps_quotes => shown.push_str(LEFT_OUT),
            true if part.contains('/') && !is_public(Path::new(part)) => shown.push_str(LEFT_OUT),
            true => shown.push_str(part),
            false => shown.push_str(&without_hidden_paths(part, &is_public)),
        }
    }
    shown
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Timestamp, last_words, reason, without_secrets};

    const LOG: &str = "\
2026/11/25 14:29:55 [emerg] 12#12: unknown directive \"sever\" in /etc/nginx/nginx.conf:3
2026/11/25 14:30:02 [notice] 12#12: signal 1 (SIGHUP) received from 7, reconfiguring
2026/11/25 14:30:03 [emerg] 12#12: host not found in upstream \"api\" in /etc/nginx/conf.d/api.conf:4
2026/11/25 14:30:03 [emerg] 123#123: bind() to 0.0.0.0:80 failed (98: Address already in use)
";

    #[track_caller]
    fn check(pid: i32, asked: &str, expected: Option<&str>) {
        let asked: Timestamp = asked.parse().unwrap();
        assert_eq!(reason(LOG, pid, asked).as_deref(), expected, "{asked}");
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
    fn the_last_words_are_those_of_the_worker_that_ended_for_good() {
        let log = "\
2026/11/25 14:30:02 [alert] 31#31: chdir(\"/srv/cores\") failed (2: No such file or directory)
2026/11/25 14:30:02 [notice] 12#12: signal 17 (SIGCHLD) received from 31
2026/11/25 14:30:02 [alert] 12#12: worker process 31 exited with fatal code 2 and cannot be respawned
";
        let words = |pid, ended: &str| last_words(log, pid, ended.parse().unwrap());
        let expected = Some("chdir(\"/srv/cores\") failed (2: No such file or directory)".to_owned());
        assert_eq!(words(12, "2026-11-25T14:30:02.5Z"), expected);
        assert_eq!(words(13, "2026-11-25T14:30:02.5Z"), None);
        assert_eq!(words(12, "2026-11-25T14:32:02Z"), None);
    }

    #[test]
    fn a_line_that_is_cut_off_at_its_beginning_says_nothing() {
        let asked: Timestamp = "2026-11-25T14:30:02Z".parse().unwrap();
        assert_eq!(reason("25 14:30:03 [emerg] 12#12: unknown directive", 12, asked), None);
        assert_eq!(reason("", 12, asked), None);
    }

    #[test]
    fn of_a_closed_log_only_what_everybody_may_know_is_reported() {
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
