//! As much of HTTP as a test's client needs.

use std::io::{ErrorKind, Read, Write};

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// The header lines as they came, without the status line.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// The value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Sends a GET. HTTP/1.0, so that the answer ends with the connection and is never chunked.
#[track_caller]
pub fn ask(stream: &mut impl Write, path: &str, headers: &[(&str, &str)]) {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n{fields}\r\n").expect("send a request");
}

/// Reads the answer to the end of the connection.
#[track_caller]
pub fn answer(stream: &mut impl Read) -> Response {
    try_answer(stream).unwrap_or_else(|what| panic!("no HTTP answer: {what}"))
}

/// The same where there may be none, for somebody who knows more about why.
///
/// # Errors
/// What there was instead.
#[track_caller]
pub fn try_answer(stream: &mut impl Read) -> Result<Response, String> {
    let mut bytes = Vec::new();
    // A reset after a whole answer is the peer's way of not waiting for our end.
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error.to_string()),
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{text:?}"))?;
    let (status_line, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.unwrap_or_else(|| panic!("no HTTP status: {status_line:?}")),
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
