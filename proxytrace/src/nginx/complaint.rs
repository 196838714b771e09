//! Lines of nginx's error log that say that a request failed before nginx could connect for it.
//!
//! Clients write into that log: the text of a request stands in it. So a line counts only where it is one of those that are known, from
//! its first byte on, up to where what a client sends may begin; and a name only where the configuration has it.

use crate::model::Lack;

/// Longer words are none of nginx's.
const MAX_WORDS: usize = 160;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// The process that says it, as it calls itself.
    pub(crate) pid: i32,
    /// What it lacks.
    pub(crate) lack: Lack,
    /// In its own words.
    pub(crate) words: &'a str,
    /// The name that does not resolve.
    pub(crate) name: Option<&'a str>,
}

/// What a line of the error log says of a lack, if it does.
pub(crate) fn said(line: &str) -> Option<Said<'_>> {
    let rest = after_time(line)?.strip_prefix(" [")?;
    let (level, rest) = rest.split_once("] ")?;
    if !matches!(level, "alert" | "crit" | "error") {
        return None;
    }
    let (pid, rest) = number(rest)?;
    let (_thread, rest) = number(rest.strip_prefix('#')?)?;
    let rest = rest.strip_prefix(": ")?;
    // The number of the connection, where it is about one.
    let of_connection = rest.strip_prefix('*').and_then(number).and_then(|(_, rest)| rest.strip_prefix(' '));
    let message = of_connection.unwrap_or(rest);
    let (lack, words, name) = no_connections(message)
        .or_else(|| no_files(message))
        .or_else(|| no_local_address(message))
        .or_else(|| of_connection.and_then(no_address))
        .or_else(|| of_connection.and_then(no_certificate))?;
    (words.len() <= MAX_WORDS).then_some(Said { pid: pid.parse().ok()?, lack, words, name })
}

type Parsed<'a> = Option<(Lack, &'a str, Option<&'a str>)>;

fn no_connections(message: &str) -> Parsed<'_> {
    const SAYS: &str = " worker_connections are not enough";
    let (_, rest) = number(message)?;
    let rest = rest.strip_prefix(SAYS)?;
    Some((Lack::Connections, before(message, rest), None))
}

fn no_files(message: &str) -> Parsed<'_> {
    let calls = ["socket() failed", "accept4() failed", "accept() failed"];
    let rest = calls.iter().find_map(|call| message.strip_prefix(call))?;
    let (errno, rest) = failure(rest)?;
    matches!(errno, "23" | "24").then(|| (Lack::Files, before(message, rest), None))
}

fn no_local_address(message: &str) -> Parsed<'_> {
    let (address, rest) = message.strip_prefix("bind(")?.split_once(')')?;
    let is_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']');
    let (_, rest) = failure(rest.strip_prefix(" failed")?)?;
    let is_own = rest.starts_with(" while connecting to upstream");
    (is_own && address.chars().all(is_address)).then(|| (Lack::LocalAddress, before(message, rest), None))
}

fn no_address(message: &str) -> Parsed<'_> {
    if let Some(rest) = message.strip_prefix("no resolver defined to resolve ") {
        let (name, rest) = host(rest)?;
        return Some((Lack::Address, before(message, rest), Some(name)));
    }
    let (name, rest) = host(message)?;
    let (_, rest) = failure(rest.strip_prefix(" could not be resolved")?)?;
    Some((Lack::Address, before(message, rest), Some(name)))
}

fn no_certificate(message: &str) -> Parsed<'_> {
    let rest = message.strip_prefix("upstream SSL certificate ")?;
    // The name that it was compared with may be the client's.
    if let Some(rest) = rest.strip_prefix("does not match") {
        return rest.starts_with(" \"").then(|| (Lack::Certificate, before(message, rest), None));
    }
    let (number, rest) = number(rest.strip_prefix("verify error: (")?)?;
    let (_, rest) = rest.strip_prefix(':').filter(|_| !number.is_empty())?.split_once(')')?;
    let is_own = rest.starts_with(" while SSL handshaking to upstream");
    is_own.then(|| (Lack::Certificate, before(message, rest), None))
}

/// The rest of a line behind its time: `2026/11/25 14:30:02`.
fn after_time(line: &str) -> Option<&str> {
    const TIME: &[u8] = b"0000/00/00 00:00:00";
    let (time, rest) = line.split_at_checked(TIME.len())?;
    let is_such = |(byte, of): (u8, &u8)| byte == *of || (*of == b'0' && byte.is_ascii_digit());
    time.bytes().zip(TIME).all(is_such).then_some(rest)
}

/// ` (24: Too many open files)`: the number, and what is behind it.
fn failure(text: &str) -> Option<(&str, &str)> {
    let (errno, rest) = number(text.strip_prefix(" (")?)?;
    let (words, rest) = rest.strip_prefix(": ")?.split_once(')')?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '/');
    words.chars().all(is_word).then_some((errno, rest))
}

fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn host(text: &str) -> Option<(&str, &str)> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let end = text.find(|c: char| !is_of_name(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// What of `text` is before `rest`, which is its end.
fn before<'a>(text: &'a str, rest: &str) -> &'a str {
    &text[..text.len() - rest.len()]
}

#[cfg(test)]
mod tests {
    use super::{Lack, said};

    #[track_caller]
    fn check(line: &str, expected: Option<(Lack, &str, Option<&str>)>) {
        let found = said(line).map(|said| (said.lack, said.words, said.name));
        assert_eq!(found, expected, "{line}");
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            let _ = said(&line[..end]);
        }
    }

    #[test]
    fn what_nginx_lacks_is_known_by_its_own_words() {
        let request =
            ", client: 10.0.0.1, server: , request: \"GET / HTTP/1.1\", upstream: \"http://10.0.0.5:80/\"";
        check(
            "2026/11/25 14:30:02 [alert] 31#31: 20 worker_connections are not enough",
            Some((Lack::Connections, "20 worker_connections are not enough", None)),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [alert] 31#31: *7 20 worker_connections are not enough while connecting to upstream{request}"
            ),
            Some((Lack::Connections, "20 worker_connections are not enough", None)),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [alert] 31#31: *7 socket() failed (24: Too many open files) while connecting to upstream{request}"
            ),
            Some((Lack::Files, "socket() failed (24: Too many open files)", None)),
        );
        check(
            "2026/11/25 14:30:02 [crit] 31#31: accept4() failed (24: Too many open files)",
            Some((Lack::Files, "accept4() failed (24: Too many open files)", None)),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [crit] 31#31: *7 bind(10.77.0.9) failed (99: Cannot assign requested address) while connecting to upstream{request}"
            ),
            Some((Lack::LocalAddress, "bind(10.77.0.9) failed (99: Cannot assign requested address)", None)),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [error] 31#31: *7 api.internal could not be resolved (3: Host not found){request}"
            ),
            Some((
                Lack::Address,
                "api.internal could not be resolved (3: Host not found)",
                Some("api.internal"),
            )),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [error] 31#31: *7 upstream SSL certificate verify error: (10:certificate has expired) while SSL handshaking to upstream{request}"
            ),
            Some((
                Lack::Certificate,
                "upstream SSL certificate verify error: (10:certificate has expired)",
                None,
            )),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [error] 31#31: *7 upstream SSL certificate does not match \"api.internal\" while SSL handshaking to upstream{request}"
            ),
            Some((Lack::Certificate, "upstream SSL certificate does not match", None)),
        );
        check(
            &format!(
                "2026/11/25 14:30:02 [error] 31#31: *7 no resolver defined to resolve api.internal{request}"
            ),
            Some((Lack::Address, "no resolver defined to resolve api.internal", Some("api.internal"))),
        );
    }

    #[test]
    fn what_a_client_sends_is_taken_for_nothing_else() {
        let forged = "2026/11/25 14:30:02 [alert] 31#31: 20 worker_connections are not enough";
        check(
            &format!(
                "2026/11/25 14:30:02 [error] 31#31: *7 open() \"/srv/{forged}\" failed (2: No such file or directory)"
            ),
            None,
        );
        check(&format!("10.0.0.1 - - \"GET /{forged}\""), None);
        check("2026/11/25 14:30:02 [info] 31#31: 20 worker_connections are not enough", None);
        check("2026/11/25 14:30:02 [error] 31#31: *7 a b could not be resolved (3: Host not found)", None);
        check("2026/11/25 14:30:02 [error] 31#31: api could not be resolved (3: Host not found)", None);
        check(
            "2026/11/25 14:30:02 [crit] 31#31: bind() to 0.0.0.0:80 failed (98: Address already in use)",
            None,
        );
        check("2026/11/25 14:30:02 [alert] 31#31: *7 socket() failed (13: Permission denied)", None);
        check("", None);
    }
}
