//! TLS, with certificates of clients where they are asked for.

use std::{io, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    files::Files,
    web_config::{ClientAuth, TlsSection, Unusable, Version},
};
use crate::config_file::why_unreadable;

/// How connections are accepted.
#[derive(Clone)]
pub(super) struct Tls {
    remote: TlsAcceptor,
    /// Where a certificate is required, somebody on this host can connect without one, to ask for health and readiness alone.
    local: TlsAcceptor,
    pub(super) requires_certificate: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads what the section names; paths are relative to `directory`.
    pub(super) fn load(section: &TlsSection, directory: &Path, files: &mut Files) -> Result<Self, Unusable> {
        let config = |auth, files: &mut Files| server_config(section, auth, directory, files);
        let remote = TlsAcceptor::from(Arc::new(config(section.client_auth_type, files)?));
        let requires_certificate = section.client_auth_type == ClientAuth::Required;
        let local = if requires_certificate {
            Arc::new(config(ClientAuth::IfGiven, files)?).into()
        } else {
            remote.clone()
        };
        Ok(Self { remote, local, requires_certificate })
    }

    /// The handshake. The caller limits its time.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        is_local: bool,
    ) -> io::Result<TlsStream<S>> {
        if is_local { &self.local } else { &self.remote }.accept(stream).await
    }
}

fn server_config(
    section: &TlsSection,
    auth: ClientAuth,
    directory: &Path,
    files: &mut Files,
) -> Result<ServerConfig, Unusable> {
    let provider = Arc::new(ring::default_provider());
    let mut read = |name: &Path| {
        let path = directory.join(name);
        let bytes = files.read(&path).map_err(|error| Unusable::new(&path, why_unreadable(&error)))?;
        Ok::<_, Unusable>((path, bytes))
    };
    let (cert_path, pem) = read(&section.cert_file)?;
    let chain = certificates(&cert_path, &pem)?;
    let (key_path, pem) = read(&section.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let why = if is_encrypted(&pem) {
            "the key is encrypted, and nobody is here to say its passphrase; `openssl pkey` writes it without"
                .to_owned()
        } else {
            format!("no private key (PEM) in it: {error}")
        };
        Unusable::new(&key_path, why)
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(section))
        .map_err(|error| Unusable::new(&cert_path, error.to_string()))?;
    let builder = match &section.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let (path, pem) = read(name)?;
            builder.with_client_cert_verifier(verifier(&path, &pem, auth, provider)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let hint = match error {
            rustls::Error::InconsistentKeys(_) => "",
            _ => KEYS,
        };
        Unusable::new(&key_path, format!("{error} (with the certificate in {}){hint}", cert_path.display()))
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A client whose certificate is not accepted any more must not go on with an earlier session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Both forms in which OpenSSL writes a key that takes a passphrase.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// What a server can sign with.
const KEYS: &str = "; a key can be of RSA (2048 to 4096 bits), ECDSA (P-256, P-384) or Ed25519";

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let unusable = |why| Unusable::new(path, why);
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(unusable("no certificate (PEM) in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(format!("no certificate (PEM): {error}"))),
    }
}

fn verifier(
    path: &Path,
    pem: &[u8],
    auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Unusable> {
    let unusable = |error: &dyn std::error::Error| Unusable::new(path, error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if auth == ClientAuth::Required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| unusable(&error))
}

fn versions(section: &TlsSection) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
    let (min, max) = (section.min_version, section.max_version);
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, known)| known).collect()
}
