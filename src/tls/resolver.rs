//! [`Resolver`]: the certificate of one listener, and the handshake with it.
//!
//! Given to `proxy` per listener, filled by `daemon`. The certificate is swapped while handshakes go on: open streams
//! have theirs already. Whatever name a client asks for, it gets the one certificate that there is, or the one for names
//! where there are two: clients that call an address send no name at all. Must never answer without a certificate.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use super::error::TlsError;
use crate::net::socket::Socket;
use crate::types::certificate::CertificateView;

/// Bytes that a client and this side exchange in secret.
pub type ServerStream = tokio_rustls::server::TlsStream<Socket>;

/// Certificate and handshake of a listener.
pub struct Resolver {
    served: Arc<Served>,
    acceptor: TlsAcceptor,
}

/// The protocol that client and listener agreed on (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// HTTP/1.1, or nothing was said.
    Http1,
    /// HTTP/2.
    Http2,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("certificate", &self.certificate()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Served(ArcSwapOption<Certificate>);

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.0.load();
        let certificate = served.as_ref()?;
        let by_name = certificate.by_name.as_ref().filter(|_| hello.server_name().is_some());
        Some(by_name.unwrap_or(&certificate.certified).clone())
    }
}

/// Suites that are chosen before the others. AES-128 and SHA-256 are what TLS 1.3 obliges everybody to have (RFC 8446 §9.1) and
/// browsers and Go put first. Processors of today hash SHA-256 in hardware and SHA-384 not: with it a
/// handshake costs a seventh more (docs/benchmarks.md).
const FIRST: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// Algorithms of this side. With `prefer-post-quantum` X25519MLKEM768 stands first among the key exchanges.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !FIRST.contains(&suite.suite()));
    provider
}

impl Resolver {
    /// A resolver without a certificate: handshakes fail until there is one.
    ///
    /// # Errors
    /// When the provider lacks a protocol version, which would be a fault of the build.
    pub fn new() -> Result<Arc<Self>, TlsError> {
        let served = Arc::new(Served::default());
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| TlsError::Setup(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // The order of `provider` decides: most clients put AES-256 first without meaning anything by it.
        config.ignore_client_order = true;
        Ok(Arc::new(Self { served, acceptor: TlsAcceptor::from(Arc::new(config)) }))
    }

    /// Serves this certificate from the next handshake on.
    pub fn serve(&self, certificate: Certificate) {
        self.served.0.store(Some(Arc::new(certificate)));
    }

    /// What is served now.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateView> {
        self.served.0.load().as_ref().map(|certificate| certificate.view.clone())
    }

    /// Shakes hands. Without a deadline of its own.
    ///
    /// # Errors
    /// When the peer leaves, does not speak TLS, or agrees to nothing that this side offers.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(ServerStream, Application)> {
        let stream = self.acceptor.accept(Socket::new(stream)).await?;
        let application = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Application::Http2,
            _ => Application::Http1,
        };
        Ok((stream, application))
    }
}
