//! What TLS costs: processor time per full handshake and per request, beside bare hyper and rustls in the same run.
//!
//! `cargo bench --bench tls [-- handshakes|requests]`: FLM in mode `dev-selfsigned`, and a baseline that shakes hands with the same
//! provider and kind of key and answers the same bytes with hyper and nothing else. Rounds alternate, so that a busy machine
//! disturbs both alike; told are medians of processor time of the servers' processes, which can be trusted on a shared machine.
//!
//! A request is `GET /health`: FLM's listener, screens and accounts without an engine behind them. What an engine adds is the proxy bench's
//! business.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench prints its result, ends by panicking and owns no tasks"
)]

#[expect(dead_code, reason = "the proxy bench uses the rest")]
mod measure;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ROUNDS: usize = 7;
const HANDSHAKES: u32 = 300;
const REQUESTS: u32 = 4_000;
/// The promise: FLM costs at most this much more than the baseline.
const TARGET: f64 = 1.15;

/// A server under measurement.
struct Server {
    child: Child,
    port: u16,
    home: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        drop(self.home.take());
    }
}

impl Server {
    fn baseline() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program).arg("baseline").stdout(Stdio::piped()).spawn().expect("starts itself");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("reads");
        Self { child, port: line.trim().parse().expect("a port"), home: None }
    }

    fn flm() -> Self {
        let home = tempfile::Builder::new().prefix("flm-bench-").tempdir_in("/tmp").expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flm"));
        command
            .args(["proxy", "start", "--no-daemon", "--mode", "dev-selfsigned", "--port", "0", "--format", "json"])
            .env("FLM_HOME", home.path())
            .env("FLM_ENGINE_DETECT_AT_START", "false")
            .env("FLM_LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("starts flm");
        // One client of one address does what no client may: the policy of the bench counts nobody.
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("reads");
        let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let port = answer["data"]["listeners"][0]["config"]["https_port"].as_u64().expect("a port");
        let policy = home.path().join("policy.json");
        let lenient = r#"{"address_rate":{"mode":"off"},"address_in_flight":{"mode":"off"},"rules":{"request_burst":{"mode":"off"}}}"#;
        let mut file = flm::config::files::open_private(&policy).expect("makes");
        file.write_all(lenient.as_bytes()).expect("writes");
        let set = Command::new(env!("CARGO_BIN_EXE_flm"))
            .args(["security", "policy", "set", "--json"])
            .arg(&policy)
            .env("FLM_HOME", home.path())
            .stdout(Stdio::null())
            .status();
        assert!(set.expect("runs flm").success(), "the policy was refused");
        Self { child, port: u16::try_from(port).expect("a port"), home: Some(home) }
    }

    fn cpu(&self) -> f64 {
        measure::cpu_seconds(self.child.id()).expect("reads /proc")
    }
}

/// hyper and rustls, and nothing else; ends with its parent's signal.
async fn baseline() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    let chain = vec![params.self_signed(&key).expect("a certificate").der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listens");
    println!("{}", listener.local_addr().expect("an address").port());
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if stream.set_nodelay(true).is_err() {
                return;
            }
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|_request| async {
                let answer = Response::builder().header("content-type", "application/json");
                answer.body(Full::new(Bytes::from_static(b"{\"status\":\"ok\"}"))).map_err(|_| "no answer")
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _left = served.await;
        });
    }
}

/// Both servers sign for themselves.
#[derive(Debug)]
struct Anyone(rustls::crypto::WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A client that resumes nothing: each handshake is a full one.
fn connector() -> TlsConnector {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let verifier = Anyone(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn open(connector: &TlsConnector, port: u16) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.expect("connects");
    stream.set_nodelay(true).expect("sets it");
    connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await.expect("shakes hands")
}

/// One request on each of many connections: what a handshake costs, with a request to see that it counted.
async fn handshakes(connector: &TlsConnector, port: u16) -> u32 {
    for _ in 0..HANDSHAKES {
        requests_on(connector, port, 1).await;
    }
    HANDSHAKES
}

/// Many requests on one connection.
async fn requests(connector: &TlsConnector, port: u16) -> u32 {
    requests_on(connector, port, REQUESTS).await;
    REQUESTS
}

async fn requests_on(connector: &TlsConnector, port: u16, count: u32) {
    let stream = TokioIo::new(open(connector, port).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
    let driving = tokio::spawn(connection);
    for _ in 0..count {
        let request = Request::get("/health").header("host", "localhost").header("user-agent", "bench");
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.expect("a body");
    }
    drop(sender);
    let _closed = driving.await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if words.first().is_some_and(|word| word == "baseline") {
        runtime.block_on(baseline());
    }
    let (baseline, flm, connector) = (Server::baseline(), Server::flm(), connector());
    for kind in ["handshakes", "requests"] {
        if words.first().is_some_and(|word| word != kind) {
            continue;
        }
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=ROUNDS {
            for (server, costs) in [(&baseline, &mut bare), (&flm, &mut ours)] {
                let before = server.cpu();
                let count = runtime.block_on(async {
                    if kind == "handshakes" {
                        handshakes(&connector, server.port).await
                    } else {
                        requests(&connector, server.port).await
                    }
                });
                if round > 0 {
                    costs.push((server.cpu() - before) * 1e6 / f64::from(count));
                }
            }
        }
        let (bare, ours) = (median(bare), median(ours));
        let verdict = if ours / bare <= TARGET { "met" } else { "missed" };
        println!("{kind}: bare {bare:.1} us, flm {ours:.1} us, {:.2} times (target {TARGET}: {verdict})", ours / bare);
    }
}
