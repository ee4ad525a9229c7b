//! Listeners with TLS: handshakes, the plain port beside, deadlines, certificates that are swapped (SPEC §6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::proxy::service::Encryption;
use flm::storage::SecurityStore;
use flm::tls::authority::Authority;
use flm::tls::certificate::Certificate;
use flm::tls::challenges::Challenges;
use flm::tls::machine::Machine;
use flm::tls::resolver::Resolver;
use flm::types::audit::{AuditKind, Severity};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::KeyLimits;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, NamedGroup, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Proxy;
use crate::fake_engine::PATIENCE;

/// A proxy with TLS and the authority that vouches for it.
struct Encrypted {
    proxy: Proxy,
    authority: Authority,
    challenges: Arc<Challenges>,
    _folder: tempfile::TempDir,
}

impl Encrypted {
    /// One whose TLS port is still closed.
    async fn without_certificate(limits: ProxyLimits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = (folder.path().join("security.db"), folder.path().join("keys/security.key"));
        let store = SecurityStore::open(&paths.0, &paths.1).expect("opens");
        let authority = Authority::make(&store, &Machine::loopback_only(), &[], now()).await.expect("an authority");
        let challenges = Arc::new(Challenges::default());
        let encryption =
            Encryption { resolver: Resolver::new().expect("TLS"), challenges: challenges.clone(), names: Vec::new() };
        let proxy = Proxy::listening(Some(encryption), Clock::system(), limits, KeyLimits::default());
        Self { proxy, authority, challenges, _folder: folder }
    }

    async fn with(limits: ProxyLimits) -> Self {
        let encrypted = Self::without_certificate(limits).await;
        encrypted.serve_new();
        encrypted
    }

    async fn start() -> Self {
        Self::with(ProxyLimits::default()).await
    }

    /// Serves a certificate that was not served before; answers its fingerprint.
    fn serve_new(&self) -> String {
        let issued = self.authority.issue(vec!["localhost".into(), "127.0.0.1".into()], now()).expect("issues");
        let issued = issued.issued;
        let key = issued.key.expose().as_bytes();
        let certificate = Certificate::from_pem(issued.chain.as_bytes(), key, now()).expect("fits");
        let fingerprint = certificate.view.fingerprint.clone();
        self.proxy.service.open_tls(certificate).expect("opens");
        fingerprint
    }

    fn address(&self) -> SocketAddr {
        let port = self.proxy.service.status().config.https_port.expect("a TLS port");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn plain(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.proxy.service.status().config.port))
    }

    async fn connect(
        &self,
        name: &str,
        protocols: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.root_pem().as_bytes()).expect("PEM");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let tcp = TcpStream::connect(self.address()).await?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        tokio::time::timeout(PATIENCE, shaken).await.expect("in time")
    }

    async fn open(&self) -> TlsStream<TcpStream> {
        self.connect("localhost", &[b"http/1.1"], rustls::ALL_VERSIONS).await.expect("a handshake")
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are checked by the client against the real clock")]
fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    UnixMillis(i64::try_from(since.as_millis()).expect("fits"))
}

/// Sends a request and reads the whole answer to it; the connection stays open.
async fn ask<S>(stream: &mut S, request: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    let whole = async {
        loop {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.expect("reads");
            answer.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                assert!(read > 0, "closed: {text:?}");
                continue;
            };
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
            let length: usize = length.map_or(0, |length| length.trim().parse().expect("a number"));
            if body.len() >= length {
                return text;
            }
            assert!(read > 0, "closed: {text:?}");
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("in time")
}

/// What a client of either version gets that knows all suites, in whatever order.
const CHEAPEST: [CipherSuite; 2] =
    [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn both_versions_and_protocols_are_spoken_and_the_exchange_resists_quantum_computers() {
    let encrypted = Encrypted::start().await;
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let mut stream = encrypted.connect("127.0.0.1", &[b"http/1.1"], versions).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(versions[0].version));
        let suite = stream.get_ref().1.negotiated_cipher_suite().expect("a suite").suite();
        assert!(CHEAPEST.contains(&suite), "the client puts AES-256 first, and gets {suite:?}");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(ask(&mut stream, HEALTH).await.starts_with("HTTP/1.1 200"));
    }
    let mut silent = encrypted.connect("localhost", &[], rustls::ALL_VERSIONS).await.expect("a handshake");
    assert!(ask(&mut silent, HEALTH).await.starts_with("HTTP/1.1 200"), "without ALPN it is HTTP/1.1");

    let stream = encrypted.connect("localhost", &[b"h2", b"http/1.1"], rustls::ALL_VERSIONS).await.expect("shakes");
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let group = session.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("HTTP/2");
    let driving = flm::telemetry::tasks::Tasks::new();
    driving.spawn("client", async move { drop(connection.await) });
    let uri = format!("https://{}/v1/models", encrypted.address());
    let request = http::Request::get(uri).header("authorization", format!("Bearer {}", encrypted.proxy.key));
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
    assert_eq!(answer.expect("an answer").status(), 200);
}

#[tokio::test]
async fn other_protocols_and_names_of_others_end_in_the_handshake() {
    let encrypted = Encrypted::start().await;
    let alien = encrypted.connect("localhost", &[b"spdy/3"], rustls::ALL_VERSIONS).await;
    assert!(alien.expect_err("no protocol in common").to_string().contains("NoApplicationProtocol"));
    let other = encrypted.connect("evil.example", &[], rustls::ALL_VERSIONS).await;
    assert!(other.expect_err("not its name").to_string().contains("not valid for name"));
}

#[tokio::test]
async fn before_the_first_certificate_the_tls_port_is_closed_and_the_plain_one_only_shows_the_way() {
    let encrypted = Encrypted::without_certificate(ProxyLimits::default()).await;
    let refused = TcpStream::connect(encrypted.address()).await.expect_err("closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let mut plain = TcpStream::connect(encrypted.plain()).await.expect("connects");
    let answer = ask(&mut plain, HEALTH).await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    encrypted.serve_new();
    assert!(ask(&mut encrypted.open().await, HEALTH).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_no_answer_of_the_api() {
    let encrypted = Encrypted::start().await;
    let mut stream = TcpStream::connect(encrypted.address()).await.expect("connects");
    stream.write_all(HEALTH.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(closed.is_err() || !answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[tokio::test]
async fn on_the_plain_port_browsers_are_sent_on_and_api_clients_are_told_where_to_go() {
    let encrypted = Encrypted::start().await;
    let base = format!("https://localhost:{}", encrypted.address().port());
    let mut plain = TcpStream::connect(encrypted.plain()).await.expect("connects");
    let page = "GET /some/page?x=1 HTTP/1.1\r\nhost: localhost\r\naccept: text/html,*/*\r\n\r\n";
    let sent_on = ask(&mut plain, page).await;
    assert!(sent_on.starts_with("HTTP/1.1 308"), "{sent_on}");
    assert!(sent_on.contains(&format!("location: {base}/some/page?x=1\r\n")), "{sent_on}");

    let call = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: 2\r\n\r\n{{}}",
        encrypted.proxy.key
    );
    let mut plain = TcpStream::connect(encrypted.plain()).await.expect("connects");
    let told = ask(&mut plain, &call).await;
    assert!(told.starts_with("HTTP/1.1 426") && told.contains("x-should-retry: false"), "{told}");
    let body: serde_json::Value = serde_json::from_str(told.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    assert_eq!(body["error"]["code"], "https_required");
    assert!(body["error"]["message"].as_str().expect("text").contains(&base), "{body}");

    let events = encrypted.proxy.audited.take();
    let flagged = events.iter().find(|event| event.kind == AuditKind::KeyInClear).expect("flagged");
    assert_eq!(flagged.severity, Severity::High);
    assert!(flagged.details.contains(encrypted.proxy.key_id.as_str()), "{}", flagged.details);
    assert!(!format!("{events:?}").contains(&encrypted.proxy.key), "the key itself stands nowhere");
}

#[tokio::test]
async fn a_certificate_authority_that_checks_a_name_is_answered_under_any_name() {
    let encrypted = Encrypted::start().await;
    let open = encrypted.challenges.open("t0ken", "t0ken.thumb");
    let request = "GET /.well-known/acme-challenge/t0ken HTTP/1.1\r\nhost: models.example.org\r\n\r\n";
    let mut plain = TcpStream::connect(encrypted.plain()).await.expect("connects");
    let answer = ask(&mut plain, request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nt0ken.thumb"), "{answer}");
    drop(open);
    assert!(ask(&mut plain, request).await.starts_with("HTTP/1.1 421"), "over is over");
}

#[tokio::test]
async fn metrics_tell_when_the_certificate_of_each_tls_port_ends() {
    let encrypted = Encrypted::start().await;
    let mut stream = encrypted.open().await;
    let page = ask(&mut stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let series = format!("flm_certificate_expires_timestamp_seconds{{port=\"{}\"}} ", encrypted.address().port());
    let end = page.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{page}"));
    let end: f64 = end.parse().expect("a number");
    let der = stream.get_ref().1.peer_certificates().expect("a chain")[0].clone();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far from 2^52")]
    let shown = certificate.validity().not_after.timestamp() as f64;
    assert!((end - shown).abs() < 1.0, "{end} and {shown}");
}

#[tokio::test]
async fn a_certificate_is_swapped_under_an_open_connection() {
    let encrypted = Encrypted::without_certificate(ProxyLimits::default()).await;
    let first = encrypted.serve_new();
    let served = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().expect("a chain")[0].clone();
    let mut old = encrypted.open().await;
    assert!(ask(&mut old, HEALTH).await.starts_with("HTTP/1.1 200"));
    let second = encrypted.serve_new();
    assert_ne!(first, second);
    let mut new = encrypted.open().await;
    assert_ne!(served(&old), served(&new));
    for stream in [&mut old, &mut new] {
        assert!(ask(stream, HEALTH).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn swaps_under_load_drop_no_request() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 60;
    const SWAPS: usize = 25;
    let encrypted = Encrypted::without_certificate(ProxyLimits::default()).await;
    encrypted.serve_new();
    // It is about swaps, and not about how often one address may call.
    encrypted.proxy.shared.guard.set_policy(crate::no_address_limits());
    let answered = std::sync::atomic::AtomicUsize::new(0);
    let client = |keeps: bool| {
        let (encrypted, answered) = (&encrypted, &answered);
        async move {
            let mut open = encrypted.open().await;
            for _ in 0..REQUESTS {
                if !keeps {
                    open = encrypted.open().await;
                }
                let answer = ask(&mut open, HEALTH).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    };
    // Half of them keep their connection over all swaps, half make a new one for each request.
    let clients = futures_util::future::join_all((0..CLIENTS).map(|number| client(number % 2 == 0)));
    let swapping = async {
        for swap in 1..=SWAPS {
            // Spread over the whole run.
            while answered.load(std::sync::atomic::Ordering::Relaxed) < swap * CLIENTS * REQUESTS / (SWAPS + 1) {
                tokio::task::yield_now().await;
            }
            encrypted.serve_new();
        }
    };
    tokio::join!(clients, swapping);
    assert_eq!(answered.into_inner(), CLIENTS * REQUESTS);
}

#[tokio::test]
async fn silent_and_half_hearted_peers_of_the_tls_port_are_closed_by_their_deadlines() {
    let limits = ProxyLimits {
        first_byte: Duration::from_millis(100),
        handshake: Duration::from_millis(200),
        head: Duration::from_millis(200),
        ..ProxyLimits::default()
    };
    let encrypted = Encrypted::with(limits).await;
    let silent = TcpStream::connect(encrypted.address()).await.expect("connects");
    let mut half_hello = TcpStream::connect(encrypted.address()).await.expect("connects");
    // The head of a handshake record that never comes (RFC 8446 §5.1).
    half_hello.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("writes");
    for (name, mut stream) in [("silent", silent), ("half a hello", half_hello)] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{name}");
    }
    for (name, protocol) in [("HTTP/1.1", &b"http/1.1"[..]), ("HTTP/2", b"h2")] {
        let mut stream = encrypted.connect("localhost", &[protocol], rustls::ALL_VERSIONS).await.expect("shakes");
        stream.write_all(if protocol == b"h2" { b"PRI * HT" } else { b"GET /heal" }).await.expect("writes");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{name}");
    }
    assert!(ask(&mut encrypted.open().await, HEALTH).await.starts_with("HTTP/1.1 200"), "others are served");
}
