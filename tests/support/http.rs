//! As much of HTTP as a test's client needs.

#![expect(unsafe_code, reason = "nix does not know this request of ioctl(2)")]

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::wait::{self, SOON, patient};

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
    let has_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = if has_host { "" } else { "Host: localhost\r\n" };
    write!(stream, "GET {path} HTTP/1.0\r\n{host}{fields}\r\n").expect("send a request");
}

/// GET `path` at a unix socket.
#[track_caller]
#[must_use]
pub fn get_at(socket: &Path, path: &str) -> Response {
    let mut stream = UnixStream::connect(socket)
        .unwrap_or_else(|error| panic!("connect to {}: {error}", socket.display()));
    stream.set_read_timeout(Some(patient(SOON))).expect("limit the wait for an answer");
    ask(&mut stream, path, &[]);
    answer(&mut stream)
}

/// A request of which half was sent. The worker that has it keeps it, also when it is an old one by then, and connects to an
/// upstream only after the rest.
#[derive(Debug)]
pub struct Half(UnixStream);

impl Half {
    /// Sends the first half, and returns when the proxy has read it.
    #[track_caller]
    #[must_use]
    pub fn begin(mut stream: UnixStream, path: &str) -> Self {
        write!(stream, "GET {path} HTTP/1.0\r\n").expect("send half a request");
        wait::until_true("the proxy to read half a request", SOON, || unread(&stream) == 0);
        Self(stream)
    }

    /// Sends the rest, and gives the answer.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Response {
        self.0.write_all(b"Host: test\r\n\r\n").expect("send the rest of a request");
        answer(&mut self.0)
    }
}

/// How many bytes of what was sent the peer has not read yet.
fn unread(stream: &UnixStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes an int to where the last argument points.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(done, 0, "ask for what is unread: {}", io::Error::last_os_error());
    bytes
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
