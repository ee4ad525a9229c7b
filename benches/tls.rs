//! What TLS costs: processor time per full handshake and per request, beside bare hyper and rustls in the same run, with FLM's crypto
//! provider and with ring.
//!
//! `cargo bench --bench tls [-- --quick]`: FLM in modes `dev-selfsigned` and `local-http`, and a baseline that has the same threads, shakes
//! hands with the same kind of key, and answers the same bytes with hyper and nothing else. The baseline with ring is a program of its own
//! (`benches/ring`), built here, so that FLM never has two providers. Visits alternate, so that a busy machine disturbs all alike; told are
//! medians of processor time of the servers' processes, which can be trusted on a shared machine, and their spread. Takes about two
//! minutes. Prints one table (docs/benchmarks.md).
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

mod acceptor;
mod bare;
mod connector;
#[expect(dead_code, reason = "the proxy bench uses the rest")]
mod measure;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use measure::{least, median, spread};
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Rounds of a whole run, and of a short one that shows only that everything works.
const ROUNDS: usize = 15;
const QUICK_ROUNDS: usize = 2;
/// Connections at a time: a server that waits most of the time is charged with what it does by the clock.
const CONNECTIONS: u32 = 16;
/// Full handshakes of one round, one after the other, on each of them.
const HANDSHAKES: u32 = 25;
/// Requests of one visit on each of them, and visits of a round.
const REQUESTS: u32 = 125;
const VISITS: u32 = 16;
/// How long a server may take to say where it listens.
const STARTING: Duration = Duration::from_secs(30);
/// How long one round may take: a bench that hangs is told so.
const ROUND: Duration = Duration::from_secs(60);
/// The promise: FLM costs at most this much more than the baseline with the same provider (issue 5).
const SAME: f64 = 1.15;
/// The same with ring and the same key exchange (issue 8).
const OVER_RING: f64 = 0.75;
/// The same with ring and X25519, FLM having the exchange that resists quantum computers.
const HYBRID_OVER_RING: f64 = 1.15;

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
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        Self::bare(command.arg(if spoken == Spoken::Tls { "baseline-tls" } else { "baseline-clear" }))
    }

    /// The baseline with ring, which is built first where it is not.
    fn ring() -> Self {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ring/Cargo.toml");
        let own = std::env::current_exe().expect("this program");
        // TARGET/release/deps/tls-HASH is this one.
        let target = own.ancestors().nth(3).expect("a target folder").join("ring");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--release", "--locked", "--manifest-path", manifest, "--target-dir"])
            .arg(&target);
        assert!(build.status().expect("runs cargo").success(), "{build:?} failed");
        Self::bare(&mut Command::new(target.join("release/flm-bench-ring")))
    }

    fn bare(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
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

/// Shakes hands many times, some at a time: each handshake is a connection with one request. Answers how many.
async fn shake_hands(connector: &TlsConnector, port: u16) -> u32 {
    let lane = |_| async move {
        for _ in 0..HANDSHAKES {
            let (mut sender, driving) = connected(Some(connector), port).await;
            ask(&mut sender, 1).await;
            drop(sender);
            let _closed = driving.await;
        }
    };
    futures_util::future::join_all((0..CONNECTIONS).map(lane)).await;
    CONNECTIONS * HANDSHAKES
}

type Sender = SendRequest<Empty<Bytes>>;

/// A connection, over TLS when there is a connector, and the task that drives it.
async fn connected(connector: Option<&TlsConnector>, port: u16) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.expect("connects");
    stream.set_nodelay(true).expect("sets it");
    match connector {
        None => driven(stream).await,
        Some(connector) => driven(connector::secure(connector, stream).await.expect("shakes hands")).await,
    }
}

async fn driven(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    (sender, tokio::spawn(connection))
}

async fn ask(sender: &mut Sender, count: u32) {
    for _ in 0..count {
        sender.ready().await.expect("a connection");
        let request = Request::get("/health").header("host", "localhost").header("user-agent", "bench");
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.expect("a body");
    }
}

/// Processor time of a handshake in microseconds, of each visit a figure for each round.
fn measure_handshakes(
    runtime: &tokio::runtime::Runtime,
    rounds: usize,
    visits: &[(&Server, &TlsConnector)],
) -> Vec<Vec<f64>> {
    let mut costs = vec![Vec::with_capacity(rounds); visits.len()];
    // The first round warms up.
    for round in 0..=rounds {
        for ((server, connector), figures) in visits.iter().zip(&mut costs) {
            let before = server.cpu();
            let count = in_time(runtime, shake_hands(connector, server.port));
            if round > 0 {
                figures.push((server.cpu() - before) * 1e6 / f64::from(count));
            }
        }
    }
    costs
}

/// Processor time of a request in microseconds, of each server a figure for each round. A round is many short visits to all servers in
/// turn over connections that stay: where threads happen to run, and what else the machine does, is then the same for all. What a
/// server does by the clock is charged to it also while others are visited.
fn measure_requests(
    runtime: &tokio::runtime::Runtime,
    rounds: usize,
    servers: &[(&Server, Option<&TlsConnector>)],
) -> Vec<Vec<f64>> {
    let mut clients: Vec<Vec<Sender>> = servers
        .iter()
        .map(|(server, connector)| {
            let connections = (0..CONNECTIONS).map(|_| connected(*connector, server.port));
            let connections = in_time(runtime, futures_util::future::join_all(connections));
            connections.into_iter().map(|(sender, _driving)| sender).collect()
        })
        .collect();
    let mut costs = vec![Vec::with_capacity(rounds); servers.len()];
    // The first round warms up.
    for round in 0..=rounds {
        let before: Vec<f64> = servers.iter().map(|(server, _)| server.cpu()).collect();
        for _visit in 0..VISITS {
            for senders in &mut clients {
                in_time(
                    runtime,
                    futures_util::future::join_all(senders.iter_mut().map(|sender| ask(sender, REQUESTS))),
                );
            }
        }
        if round > 0 {
            for (((server, _), before), figures) in servers.iter().zip(before).zip(&mut costs) {
                figures.push((server.cpu() - before) * 1e6 / f64::from(VISITS * CONNECTIONS * REQUESTS));
            }
        }
    }
    costs
}

fn in_time<T>(runtime: &tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(ROUND, work).await.expect("work that ends in time") })
}

/// FLM beside a baseline, judged by the ratio of medians unless nothing was promised.
fn print_row(name: &str, base: &[f64], flm: &[f64], limit: Option<f64>) {
    let ratio = median(flm) / median(base);
    let own: Vec<f64> = flm.iter().zip(base).map(|(flm, base)| flm / base).collect();
    let verdict = match limit {
        None => String::new(),
        Some(limit) if ratio <= limit => format!("{limit}: met"),
        Some(limit) => format!("{limit}: MISSED"),
    };
    println!(
        "| {name} | {} | {} | {ratio:.2} | {:.2} | {:.2} | {verdict} |",
        spread(base),
        spread(flm),
        median(&own),
        least(flm) / least(base)
    );
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rounds = match words.first().map(String::as_str) {
        Some("baseline-tls") => {
            let acceptor = acceptor::acceptor(rustls::crypto::aws_lc_rs::default_provider()).expect("an acceptor");
            return bare::serve(Some(&acceptor));
        }
        Some("baseline-clear") => return bare::serve(None),
        _ if words.iter().any(|word| word == "--quick") => QUICK_ROUNDS,
        _ => ROUNDS,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (bare, ring, flm) = (Server::baseline(Spoken::Tls), Server::ring(), Server::flm(Spoken::Tls));
    let (bare_clear, flm_clear) = (Server::baseline(Spoken::Clear), Server::flm(Spoken::Clear));
    let handshakes = |group: &'static dyn SupportedKxGroup| connector::connector(Some(group)).expect("a connector");
    let (hybrid, classic, nist) =
        (handshakes(kx_group::X25519MLKEM768), handshakes(kx_group::X25519), handshakes(kx_group::SECP256R1));
    let shaken = [
        (&bare, &hybrid),
        (&flm, &hybrid),
        (&bare, &classic),
        (&ring, &classic),
        (&flm, &classic),
        (&bare, &nist),
        (&ring, &nist),
        (&flm, &nist),
    ];
    let shaken = measure_handshakes(&runtime, rounds, &shaken);
    let secured = connector::connector(None).expect("a connector");
    let asked = [(&bare, Some(&secured)), (&flm, Some(&secured)), (&bare_clear, None), (&flm_clear, None)];
    let asked = measure_requests(&runtime, rounds, &asked);

    println!("CPU µs, median (least–most) of {rounds} rounds; TLS 1.3, ECDSA P-256, {CONNECTIONS} at a time\n");
    println!("| | hyper + rustls | flm | ratio of medians | median of the rounds' ratios | of the least | limit |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    for (name, base, flm, limit) in [
        ("handshake, X25519MLKEM768, baseline aws-lc-rs", 0, 1, SAME),
        ("handshake, X25519, baseline aws-lc-rs", 2, 4, SAME),
        ("handshake, X25519MLKEM768, baseline ring with X25519", 3, 1, HYBRID_OVER_RING),
        ("handshake, X25519, baseline ring", 3, 4, OVER_RING),
        ("handshake, P-256, baseline ring", 6, 7, OVER_RING),
    ] {
        print_row(name, &shaken[base], &shaken[flm], Some(limit));
    }
    // What the providers alone make of it.
    print_row("handshake, X25519, aws-lc-rs as flm beside ring, both bare", &shaken[3], &shaken[2], None);
    print_row("handshake, P-256, aws-lc-rs as flm beside ring, both bare", &shaken[6], &shaken[5], None);
    print_row("request over TLS, 16 connections", &asked[0], &asked[1], Some(SAME));
    print_row("request in clear, 16 connections", &asked[2], &asked[3], None);
}
