//! What TLS costs: processor time per full handshake and per request, beside bare hyper and rustls in the same run.
//!
//! `cargo bench --bench tls`: FLM in modes `dev-selfsigned` and `local-http`, and a baseline that has the same threads, shakes hands
//! with the same provider and kind of key, and answers the same bytes with hyper and nothing else. Rounds alternate, so that a
//! busy machine disturbs both alike; told are medians of processor time of the servers' processes, which can be trusted on a
//! shared machine, and their spread. Takes about a minute. Prints one table (docs/benchmarks.md).
//!
//! A handshake is a connection with one request, so that it is known to have counted. A request is `GET /health`: FLM's listener,
//! screens and accounts without an engine behind them; what an engine adds is the proxy bench's business. The
//! same request in clear is told beside it.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a bench prints its result, ends by panicking and owns no tasks"
)]

#[expect(dead_code, reason = "the proxy bench uses the rest")]
mod measure;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ROUNDS: usize = 15;
/// Connections at a time: a server that waits most of the time is charged with what it does by the clock.
const CONNECTIONS: u32 = 16;
/// Full handshakes of one round, one after the other, on each of them.
const HANDSHAKES: u32 = 25;
/// Requests of one round on each of them: enough that what FLM does by the clock (the request log is written) falls into every round.
const REQUESTS: u32 = 2000;
/// How long a server may take to say where it listens.
const STARTING: Duration = Duration::from_secs(30);
/// How long one round may take: a bench that hangs is told so.
const ROUND: Duration = Duration::from_secs(60);
/// The promise: FLM costs at most this much more than the baseline (issue 5).
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

/// What is spoken on a server's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Tls,
    Clear,
}

impl Server {
    fn baseline(spoken: Spoken) -> Self {
        let program = std::env::current_exe().expect("this program");
        let word = if spoken == Spoken::Tls { "baseline-tls" } else { "baseline-clear" };
        let mut child = Command::new(program).arg(word).stdout(Stdio::piped()).spawn().expect("starts itself");
        let line = first_line(&mut child);
        Self { child, port: line.trim().parse().expect("a port"), home: None }
    }

    fn flm(spoken: Spoken) -> Self {
        let home = tempfile::Builder::new().prefix("flm-bench-").tempdir_in("/tmp").expect("a folder");
        // One client of one address does what no client may: the policy of the bench counts nobody.
        let policy = home.path().join("policy.json");
        let lenient = r#"{"address_rate":{"mode":"off"},"address_in_flight":{"mode":"off"},"rules":{"request_burst":{"mode":"off"}}}"#;
        let mut file = flm::config::files::open_private(&policy).expect("makes");
        file.write_all(lenient.as_bytes()).expect("writes");
        let mut set = flm_command(home.path());
        set.args(["security", "policy", "set", "--json"]).arg(&policy);
        assert!(set.stdout(Stdio::null()).status().expect("runs flm").success(), "the policy was refused");
        let (mode, port) = match spoken {
            Spoken::Tls => ("dev-selfsigned", "https_port"),
            Spoken::Clear => ("local-http", "port"),
        };
        let mut command = flm_command(home.path());
        command.args(["proxy", "start", "--no-daemon", "--mode", mode, "--port", "0", "--format", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts flm");
        let answer: serde_json::Value = serde_json::from_str(&first_line(&mut child)).expect("JSON");
        let port = answer["data"]["listeners"][0]["config"][port].as_u64().expect("a port");
        Self { child, port: u16::try_from(port).expect("a port"), home: Some(home) }
    }

    fn cpu(&self) -> f64 {
        measure::cpu_seconds(self.child.id()).expect("reads /proc")
    }
}

fn flm_command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flm"));
    command
        .env("FLM_HOME", home)
        .env("FLM_ENGINE_DETECT_AT_START", "false")
        .env("FLM_LOG_LEVEL", "error")
        .stdin(Stdio::null());
    command
}

/// The first line that a server writes; a server that writes none in time is killed, which ends the reading.
fn first_line(child: &mut Child) -> String {
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let _nobody_waits = sender.send(read.map(|_| line));
        // What is written later is read and dropped, so that the server never waits for a full pipe.
        let _ended = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    match receiver.recv_timeout(STARTING) {
        Ok(line) => line.expect("reads"),
        Err(_late) => {
            let _gone = child.kill();
            panic!("a server did not start within {} s", STARTING.as_secs());
        }
    }
}

/// hyper and rustls, and nothing else, in the shape of FLM (ADR 4): one acceptor hands each connection to the thread with the fewest.
/// Ends with its parent's signal.
fn baseline(spoken: Spoken) {
    let acceptor = (spoken == Spoken::Tls).then(acceptor);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut lanes = Vec::new();
    for _ in 0..workers {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::net::TcpStream>(1024);
        let (load, acceptor) = (Arc::new(AtomicUsize::new(0)), acceptor.clone());
        lanes.push((sender, load.clone()));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                while let Some(stream) = receiver.recv().await {
                    let stream = TcpStream::from_std(stream).expect("a stream of this runtime");
                    let (load, acceptor) = (load.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        if let Some(acceptor) = acceptor {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream).await;
                            }
                        } else {
                            answer(stream).await;
                        }
                        load.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            });
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listens");
        println!("{}", listener.local_addr().expect("an address").port());
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("sets it");
            let (lane, load) = lanes.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed)).expect("a worker");
            load.fetch_add(1, Ordering::Relaxed);
            lane.send(stream.into_std().expect("a stream")).await.expect("a worker");
        }
    });
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = hyper::service::service_fn(|_request| async {
        let answer = Response::builder().header("content-type", "application/json");
        answer.body(Full::new(Bytes::from_static(b"{\"status\":\"ok\"}"))).map_err(|_| "no answer")
    });
    let _left = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// What rustls does by itself, with FLM's provider, kind of key, versions and protocols.
fn acceptor() -> TlsAcceptor {
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
    TlsAcceptor::from(Arc::new(config))
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

/// A client that resumes nothing, so that each handshake is a full one, and offers one key exchange only.
fn connector(group: &'static dyn SupportedKxGroup) -> TlsConnector {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![group];
    let verifier = Anyone(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// One kind of work that a server is given.
enum Work {
    /// One request on each of many connections, some at a time.
    Handshakes(TlsConnector),
    /// Many requests on each of some connections; over TLS when there is a connector.
    Requests(Option<TlsConnector>),
}

impl Work {
    /// Does it once; answers how many handshakes or requests that were.
    async fn run(&self, port: u16) -> u32 {
        match self {
            Self::Handshakes(connector) => {
                let lane = |_| async move {
                    for _ in 0..HANDSHAKES {
                        requests_on(Some(connector), port, 1).await;
                    }
                };
                futures_util::future::join_all((0..CONNECTIONS).map(lane)).await;
                CONNECTIONS * HANDSHAKES
            }
            Self::Requests(connector) => {
                let connections = (0..CONNECTIONS).map(|_| requests_on(connector.as_ref(), port, REQUESTS));
                futures_util::future::join_all(connections).await;
                CONNECTIONS * REQUESTS
            }
        }
    }
}

async fn requests_on(connector: Option<&TlsConnector>, port: u16, count: u32) {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.expect("connects");
    stream.set_nodelay(true).expect("sets it");
    let Some(connector) = connector else { return ask(stream, count).await };
    let name = ServerName::try_from("localhost").expect("a name");
    ask(connector.connect(name, stream).await.expect("shakes hands"), count).await;
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, count: u32) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
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

/// Processor time a step of the baseline and of FLM, in microseconds, a figure for each round.
#[derive(Debug, Default)]
struct Costs {
    bare: Vec<f64>,
    flm: Vec<f64>,
}

fn measure(runtime: &tokio::runtime::Runtime, work: &Work, bare: &Server, flm: &Server) -> Costs {
    let mut costs = Costs::default();
    // The first round warms up.
    for round in 0..=ROUNDS {
        for (server, figures) in [(bare, &mut costs.bare), (flm, &mut costs.flm)] {
            let before = server.cpu();
            let count = runtime.block_on(async {
                tokio::time::timeout(ROUND, work.run(server.port)).await.expect("a round that ends in time")
            });
            if round > 0 {
                figures.push((server.cpu() - before) * 1e6 / f64::from(count));
            }
        }
    }
    costs
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median, least and most.
fn spread(values: &[f64]) -> String {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.1} ({:.1}–{most:.1})", median(values), least(values))
}

fn print_row(name: &str, costs: &Costs) {
    let ratio = median(&costs.flm) / median(&costs.bare);
    let verdict = if ratio <= TARGET { "met" } else { "missed" };
    let best = least(&costs.flm) / least(&costs.bare);
    println!("| {name} | {} | {} | {ratio:.2}: {verdict} | {best:.2} |", spread(&costs.bare), spread(&costs.flm));
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    match words.first().map(String::as_str) {
        Some("baseline-tls") => return baseline(Spoken::Tls),
        Some("baseline-clear") => return baseline(Spoken::Clear),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (bare, flm) = (Server::baseline(Spoken::Tls), Server::flm(Spoken::Tls));
    let (bare_clear, flm_clear) = (Server::baseline(Spoken::Clear), Server::flm(Spoken::Clear));
    let (hybrid, classic) = (connector(kx_group::X25519MLKEM768), connector(kx_group::X25519));

    let with_hybrid = measure(&runtime, &Work::Handshakes(hybrid.clone()), &bare, &flm);
    let with_classic = measure(&runtime, &Work::Handshakes(classic), &bare, &flm);
    let over_tls = measure(&runtime, &Work::Requests(Some(hybrid)), &bare, &flm);
    let in_clear = measure(&runtime, &Work::Requests(None), &bare_clear, &flm_clear);

    println!("CPU µs, median (least–most) of {ROUNDS} rounds; TLS 1.3, ECDSA P-256, aws-lc-rs\n");
    println!(
        "| | hyper + rustls | flm | ratio of medians (limit {TARGET}) | of the least |\n|---|---:|---:|---:|---:|"
    );
    print_row("full handshake, X25519MLKEM768, 16 at a time", &with_hybrid);
    print_row("full handshake, X25519, 16 at a time", &with_classic);
    print_row("request over TLS, 16 connections", &over_tls);
    print_row("request in clear, 16 connections", &in_clear);
}
