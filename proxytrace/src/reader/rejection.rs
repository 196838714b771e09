//! Why nginx did not take a configuration: its own words, from the end of the log that it writes to.
//!
//! `nginx -t` would say the same. But to run it is to run a program of the proxy's, which may be another container's, with
//! our privileges; and what it reads may have been mended meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use jiff::{Timestamp, civil::DateTime, tz::Offset};
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use procfs::process::Process;

/// How much of the end of a log is looked through, in bytes. nginx cuts a line at 2 KiB (ngx_log.h).
const END: u64 = 64 << 10;

/// No more of the master's files are looked at; a log for each of some hundred servers is usual.
const MOST_FILES: usize = 1024;

/// How long after the signal nginx may take to say it, in seconds.
const LATEST: i64 = 60;

/// nginx writes local time, and no offset. All time zones differ from each other by a multiple of that many seconds.
const ZONES: i64 = 15 * 60;

/// What the master `pid` logged as the reason why it did not take the configuration that it was asked for at `asked`.
pub(super) fn logged(pid: u32, asked: Timestamp) -> Option<String> {
    // In a container it knows itself by another id, which is the last here.
    let status = Process::new(pid.cast_signed()).and_then(|process| process.status()).ok()?;
    let own_pid = status.nspid.and_then(|pids| pids.last().copied()).unwrap_or(status.pid);
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let ends = files.flatten().take(MOST_FILES).filter_map(|file| end_of(&file.path()).ok().flatten());
    ends.filter_map(|end| found(&String::from_utf8_lossy(&end), own_pid, asked)).last()
}

/// The end of a regular file, whatever has become of its name.
fn end_of(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut file: File = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut end = Vec::new();
    file.take(END).read_to_end(&mut end)?;
    Ok(Some(end))
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
    use super::{Timestamp, found};

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
}
