//! What an upstream speaks: how it knows the end of a request, and how it answers. As much of each protocol as nginx needs.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use nix::sys::socket::{Shutdown, shutdown};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, version};

use crate::{child, scratch};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in plain text, or whatever is like it.
    Http,
    /// FastCGI.
    FastCgi,
    /// HTTP/2 from the first byte on, as gRPC has it.
    Http2,
    /// HTTP/1.1 over TLS 1.2.
    Tls12,
    /// HTTP/1.1 over TLS 1.3.
    Tls13,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf";
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";

/// Records of FastCGI: the parameters of a request, and its body.
const PARAMS: u8 = 4;
const STDIN: u8 = 5;

/// What HTTP/2 begins with.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// The type of the frame that each side sends first.
const SETTINGS: u8 = 4;

/// A connection to whoever asks.
#[derive(Debug)]
pub(crate) struct Speech {
    socket: Arc<File>,
    tls: Option<Box<ServerConnection>>,
    protocol: Protocol,
    /// Whether anything was read: HTTP/2 begins with its preface.
    has_begun: bool,
    /// Whether what we have said of us was acknowledged, in HTTP/2.
    is_acknowledged: bool,
    /// What the request that was read last is called: a stream of HTTP/2.
    stream: [u8; 4],
}

impl Speech {
    pub(crate) fn new(socket: Arc<File>, protocol: Protocol) -> Self {
        let tls = match protocol {
            Protocol::Tls12 | Protocol::Tls13 => {
                let connection = ServerConnection::new(tls_config(protocol)).expect("a TLS connection");
                Some(Box::new(connection))
            }
            _ => None,
        };
        Self { socket, tls, protocol, has_begun: false, is_acknowledged: false, stream: [0; 4] }
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &File {
        &self.socket
    }

    /// Closes in order: what comes until the peer has closed as well is no reason for a reset.
    pub(crate) fn end(self) -> io::Result<()> {
        shutdown(self.socket.as_raw_fd(), Shutdown::Write)?;
        io::copy(&mut &*self.socket, &mut io::sink()).map(drop)
    }

    /// Takes the socket, without saying goodbye.
    pub(crate) fn into_socket(self) -> Arc<File> {
        self.socket
    }

    /// Does what comes before the first request: the handshake of TLS, or what HTTP/2 begins with.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut &*self.socket)?;
            }
        }
        if self.protocol == Protocol::Http2 && !std::mem::replace(&mut self.has_begun, true) {
            self.read_exact(&mut [0; PREFACE])?;
            // Settings, of which there are none.
            self.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])?;
        }
        Ok(())
    }

    /// Reads a request without its body, or the whole; false at the end of the connection.
    pub(crate) fn read_request(&mut self, is_whole: bool) -> io::Result<bool> {
        let read = match self.protocol {
            Protocol::Http | Protocol::Tls12 | Protocol::Tls13 => return self.read_text(is_whole),
            Protocol::FastCgi => self.read_records(if is_whole { STDIN } else { PARAMS }),
            Protocol::Http2 => self.read_frames(is_whole),
        };
        match read {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_text(&mut self, is_whole: bool) -> io::Result<bool> {
        let (mut request, mut buffer, mut left) = (Vec::new(), [0; 4096], None);
        while left.is_none_or(|left| is_whole && left > 0) {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => match &mut left {
                    Some(left) => *left = usize::saturating_sub(*left, read),
                    None => {
                        request.extend_from_slice(&buffer[..read]);
                        left = body_left(&request);
                    }
                },
                // The peer's end without what TLS says before it.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Of FastCGI, to an empty one of a type.
    fn read_records(&mut self, last: u8) -> io::Result<()> {
        loop {
            let mut header = [0; 8];
            self.read_exact(&mut header)?;
            let length = u16::from_be_bytes([header[4], header[5]]);
            self.read_exact(&mut vec![0; usize::from(length) + usize::from(header[6])])?;
            if header[1] == last && length == 0 {
                return Ok(());
            }
        }
    }

    /// Of HTTP/2, to the end of a stream, or of its headers; and until our settings are acknowledged: else nginx would not keep the
    /// connection.
    fn read_frames(&mut self, is_whole: bool) -> io::Result<()> {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        // The end of a stream, or an acknowledgement.
        const FLAG: u8 = 1;
        self.greet()?;
        let mut has_ended = false;
        while !(has_ended && self.is_acknowledged) {
            let mut header = [0; 9];
            self.read_exact(&mut header)?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            self.read_exact(&mut vec![0; length])?;
            let has_flag = header[4] & FLAG != 0;
            match header[3] {
                HEADERS if has_flag || !is_whole => has_ended = true,
                DATA if has_flag => has_ended = true,
                SETTINGS if has_flag => self.is_acknowledged = true,
                _ => continue,
            }
            if header[3] != SETTINGS {
                self.stream = [header[5], header[6], header[7], header[8]];
            }
        }
        Ok(())
    }

    /// Answers the request that was read last.
    pub(crate) fn answer(&mut self) -> io::Result<()> {
        let answer = match self.protocol {
            Protocol::Http | Protocol::Tls12 | Protocol::Tls13 => ANSWER.to_vec(),
            Protocol::FastCgi => [stdout(b"Status: 200 OK\r\n\r\nok\n"), END_REQUEST.to_vec()].concat(),
            Protocol::Http2 => self.headers(true),
        };
        self.write_all(&answer)
    }

    /// Begins an answer that is not all.
    pub(crate) fn begin_answer(&mut self) -> io::Result<()> {
        let half = match self.protocol {
            Protocol::Http | Protocol::Tls12 | Protocol::Tls13 => HALF.to_vec(),
            Protocol::FastCgi => stdout(b"Status: 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"),
            Protocol::Http2 => self.headers(false),
        };
        self.write_all(&half)
    }

    /// Says that a request is too large.
    pub(crate) fn refuse_body(&mut self) -> io::Result<()> {
        let refusal = match self.protocol {
            Protocol::Http | Protocol::Tls12 | Protocol::Tls13 => TOO_LARGE.to_vec(),
            Protocol::FastCgi => {
                [stdout(b"Status: 413 Too Large\r\n\r\nno\n"), END_REQUEST.to_vec()].concat()
            }
            Protocol::Http2 => self.headers(true),
        };
        self.write_all(&refusal)
    }

    /// Headers with nothing but `:status: 200`.
    fn headers(&self, is_all: bool) -> Vec<u8> {
        let flags = 4 | u8::from(is_all);
        [&[0, 0, 1, 1, flags][..], &self.stream, &[0x88]].concat()
    }

    /// What TLS says before a connection is closed.
    pub(crate) fn say_goodbye(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.send_close_notify();
        tls.write_tls(&mut &*self.socket).map(drop)
    }
}

/// How much of the body is still to come, where the whole head has.
fn body_left(request: &[u8]) -> Option<usize> {
    let head = request.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(length.unwrap_or(0_usize).saturating_sub(request.len() - head))
}

impl Read for Speech {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut &*self.socket).read(buffer),
            None => (&*self.socket).read(buffer),
        }
    }
}

impl Write for Speech {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut &*self.socket).write(bytes),
            None => (&*self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut &*self.socket).flush(),
            None => (&*self.socket).flush(),
        }
    }
}

/// A record of what an application answers. Request 1, as nginx calls each.
fn stdout(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short answer").to_be_bytes();
    [&[1, 6, 0, 1, length[0], length[1], 0, 0][..], content].concat()
}

/// The record that ends an answer.
const END_REQUEST: &[u8] = &[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The same for all servers of this process: sessions are resumed at any of them.
fn tls_config(protocol: Protocol) -> Arc<ServerConfig> {
    static CONFIGS: OnceLock<[Arc<ServerConfig>; 2]> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| {
        let (certificate, key) = certificate();
        let config = |version: &'static SupportedProtocolVersion| {
            let builder = ServerConfig::builder_with_protocol_versions(&[version]).with_no_client_auth();
            let config = builder.with_single_cert(vec![certificate.clone()], key.clone_key());
            Arc::new(config.expect("a configuration of TLS"))
        };
        [config(&version::TLS12), config(&version::TLS13)]
    });
    Arc::clone(&configs[usize::from(protocol == Protocol::Tls13)])
}

/// Signed by itself.
fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let directory = scratch::directory();
    let path = |name: &str| directory.path().join(name);
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=upstream", "-keyout"]).arg(path("key"));
    child::run(openssl.arg("-out").arg(path("certificate")));
    let certificate = CertificateDer::from_pem_file(path("certificate")).expect("a certificate");
    (certificate, PrivateKeyDer::from_pem_file(path("key")).expect("its key"))
}
