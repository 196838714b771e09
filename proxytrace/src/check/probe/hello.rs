//! What is said first on a connection, by the scheme that is spoken there, and whether an answer is one.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::declared::Route;

/// What HTTP/2 begins with (RFC 9113, section 3.4), and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// FastCGI 1.0: a record of version 1 and type 9, FCGI_GET_VALUES of no request, that asks for FCGI_MPXS_CONNS.
const FASTCGI: &[u8] = b"\x01\x09\0\0\0\x11\0\0\x0f\0FCGI_MPXS_CONNS";
/// The head of a frame of HTTP/2.
const FRAME_HEAD: usize = 9;

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Tls { is_http2: bool },
    Http2,
    FastCgi,
}

/// Why it is not well there.
pub(super) struct Unwell {
    /// As findings and ends of connections are called.
    pub(super) outcome: &'static str,
    pub(super) meaning: String,
}

impl Hello {
    /// `None` where nothing can be said that asks for nothing.
    pub(super) fn of(route: &Route) -> Option<Self> {
        match route.directive.as_str() {
            directive if route.is_tls => Some(Self::Tls { is_http2: directive == "grpc_pass" }),
            // Variables may hold the scheme.
            "grpc_pass" if !route.target.text.starts_with('$') => Some(Self::Http2),
            "fastcgi_pass" => Some(Self::FastCgi),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tls { .. } => "TLS",
            Self::Http2 => "HTTP/2",
            Self::FastCgi => "FastCGI",
        }
    }

    fn words(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Tls { is_http2 } => client_hello(is_http2),
            Self::Http2 => Ok(HTTP2.to_vec()),
            Self::FastCgi => Ok(FASTCGI.to_vec()),
        }
    }

    /// Whether bytes are the beginning of an answer; `None` where more of them are needed.
    fn is_answer(self, bytes: &[u8]) -> Option<bool> {
        match (self, bytes) {
            (_, []) => None,
            // A handshake, or an alert: whoever refuses what was offered speaks TLS too.
            (Self::Tls { .. }, [kind, rest @ ..]) => match (kind, rest.first()) {
                (0x15 | 0x16, None) => None,
                (0x15 | 0x16, Some(major)) => Some(*major == 3),
                _ => Some(false),
            },
            (Self::Http2, bytes) if bytes.starts_with(b"HTTP") => Some(false),
            (Self::Http2, bytes) if bytes.len() < FRAME_HEAD => None,
            // Settings come first, on the stream that is the connection.
            (Self::Http2, bytes) => Some(bytes[3] == 4 && bytes[5..FRAME_HEAD] == [0; 4]),
            (Self::FastCgi, [version, ..]) => Some(*version == 1),
        }
    }
}

/// Says what comes first, and waits for the beginning of an answer.
pub(super) async fn say<S>(hello: Option<Hello>, mut stream: S, within: Duration) -> Result<(), Unwell>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(hello) = hello else { return Ok(()) };
    let name = hello.name();
    let unwell = |outcome, meaning| Err(Unwell { outcome, meaning });
    let told = async {
        stream.write_all(&hello.words()?).await?;
        let (mut bytes, mut more) = (Vec::new(), [0; 256]);
        loop {
            match stream.read(&mut more).await? {
                0 => return Ok(None),
                count => bytes.extend_from_slice(&more[..count]),
            }
            if let Some(is_answer) = hello.is_answer(&bytes) {
                return io::Result::Ok(Some(is_answer));
            }
        }
    };
    match timeout(within, told).await {
        Ok(Ok(Some(true))) => Ok(()),
        Ok(Ok(Some(false))) => {
            unwell("wrong_service", format!("something answers there, and does not speak {name}"))
        }
        // Not every FastCGI server knows the question, and a busy one answers later.
        _ if hello == Hello::FastCgi => Ok(()),
        Ok(Ok(None)) => {
            unwell("closed_before_response", format!("the connection is closed at the first words of {name}"))
        }
        Ok(Err(_)) => {
            unwell("reset_before_response", format!("the connection is reset at the first words of {name}"))
        }
        Err(_) => unwell(
            "no_response",
            format!("the connection is taken, and the first words of {name} get no answer"),
        ),
    }
}

/// The first words of TLS 1.2 and 1.3, without a name, as nginx says them where nothing is set.
fn client_hello(is_http2: bool) -> io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    // Nothing is verified: the handshake ends with its first answer.
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    if is_http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    let nobody = ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
    let mut connection = ClientConnection::new(Arc::new(config), nobody).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Hello, client_hello};

    #[test]
    fn an_answer_is_told_from_what_is_none() {
        let check = |hello: Hello, bytes: &[u8], expected: Option<bool>| {
            assert_eq!(hello.is_answer(bytes), expected, "{hello:?}: {bytes:?}");
        };
        let tls = Hello::Tls { is_http2: false };
        check(tls, b"\x16\x03\x03\0\x40", Some(true));
        check(tls, b"\x15\x03\x01\0\x02\x02\x28", Some(true));
        check(tls, b"\x16", None);
        check(tls, b"HTTP/1.1 400 Bad Request", Some(false));
        check(Hello::Http2, b"\0\0\x12\x04\0\0\0\0\0\0\x03", Some(true));
        check(Hello::Http2, b"\0\0\x12", None);
        check(Hello::Http2, b"HTTP/1.1 505", Some(false));
        check(Hello::Http2, b"\x15\x03\x01\0\x02\x02\x28\0\0", Some(false));
        check(Hello::FastCgi, b"\x01\x0a\0\0", Some(true));
        check(Hello::FastCgi, b"HTTP/1.0", Some(false));
        check(Hello::FastCgi, b"", None);
    }

    #[test]
    fn the_first_words_of_tls_name_nobody() {
        let hello = client_hello(true).unwrap();
        assert!(hello.starts_with(&[0x16, 0x03, 0x01]), "{hello:?}");
        assert!(hello.windows(3).any(|bytes| bytes == b"\x02h2"), "{hello:?}");
        assert!(!hello.windows(7).any(|bytes| bytes == b"0.0.0.0"), "{hello:?}");
    }
}
