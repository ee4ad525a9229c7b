//! Opens connections: TCP, and TLS on top where the upstream wants it.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::upstream::{Scheme, Upstream};

/// An open connection.
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Dials an upstream. Without a deadline of its own.
pub async fn dial(upstream: &Upstream) -> io::Result<Stream> {
    let tcp = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
    // Heads and bodies are written whole: waiting for more would only delay them.
    tcp.set_nodelay(true)?;
    match upstream.scheme {
        Scheme::Http => Ok(Stream::Plain(tcp)),
        Scheme::Https => Ok(Stream::Tls(Box::new(secure(tcp, &upstream.host).await?))),
    }
}

/// Speaks TLS over an open connection, to the host of that name. Without a deadline of its own.
///
/// # Errors
/// When the name cannot be in a certificate, or the certificate is not trusted, or the other side does not speak TLS.
pub async fn secure(tcp: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host name cannot be in a certificate"))?;
    TlsConnector::from(tls_config().await?).connect(name, tcp).await
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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
