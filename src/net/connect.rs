//! Opens connections to upstreams: the way that [`super::egress`] decides, and TLS on top where the upstream wants it.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::egress::{DialError, Egress};
use super::socket::Socket;
use super::upstream::{Scheme, Upstream};

/// What bytes go over: TCP, or TLS over it.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// An open connection.
pub type Stream = Box<dyn Transport>;

/// Dials an upstream. A straight connection has no deadline here.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(egress: &Egress, upstream: &Upstream, trust: &Trust) -> Result<Stream, DialError> {
    let tcp = egress.open(&upstream.host, upstream.port, upstream.reach).await?;
    match upstream.scheme {
        Scheme::Http => Ok(Box::new(Socket::new(tcp))),
        Scheme::Https => Ok(Box::new(agree(tcp, &upstream.host, trust).await.map_err(DialError::Tls)?)),
    }
}

/// Whose certificate is accepted.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// One for the host's name that leads to one of the system's roots.
    #[default]
    System,
    /// Exactly this one, whatever it says: the other side is this very process.
    Pinned(Arc<ClientConfig>),
    /// One for the host's name that leads to one of the operator's own roots.
    Roots(Arc<ClientConfig>),
}

impl Trust {
    /// Trusts the one certificate with this SHA-256 of its DER form. That the other side holds its key is still proved.
    ///
    /// # Errors
    /// When the provider knows no version of TLS.
    pub fn pinned(sha256: [u8; 32]) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = OneCertificate { sha256, algorithms: provider.signature_verification_algorithms };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self::Pinned(Arc::new(config)))
    }

    /// Trusts the roots in this PEM text, and no others.
    ///
    /// # Errors
    /// When there is no certificate in it, or one that cannot be a root.
    pub fn roots(pem: &[u8]) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(pem) {
            roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        if roots.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it"));
        }
        trusting(roots).map(|config| Self::Roots(Arc::new(config)))
    }
}

/// Accepts one certificate.
#[derive(Debug)]
struct OneCertificate {
    sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Sha256::digest(end_entity.as_ref())[..] == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Speaks TLS over an open connection, to the host of that name. Without a deadline of its own.
///
/// # Errors
/// When the name cannot be in a certificate, or the certificate is not trusted, or the other side does not speak TLS.
pub async fn secure(tcp: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    agree(tcp, host, &Trust::System).await
}

async fn agree(tcp: TcpStream, host: &str, trust: &Trust) -> io::Result<TlsStream<TcpStream>> {
    let config = match trust {
        Trust::System => tls_config().await?,
        Trust::Pinned(config) | Trust::Roots(config) => config.clone(),
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host name cannot be in a certificate"))?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// The system's trusted roots, read once, off the runtime.
async fn tls_config() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
    CONFIG
        .get_or_try_init(|| async {
            let config = tokio::task::spawn_blocking(build_tls_config).await.map_err(io::Error::other)??;
            Ok(Arc::new(config))
        })
        .await
        .cloned()
}

fn build_tls_config() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a trusted root could not be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(io::Error::other("the system has no trusted root certificates (install ca-certificates)"));
    }
    trusting(roots)
}

fn trusting(roots: RootCertStore) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
