//! What a flood of wrong keys costs a client with a right one: its latency beside its own in the same run, its failures, and
//! the daemon's memory (SPEC §5.3, §5.7; SECURITY.md, case 3).
//!
//! `cargo bench --bench flood` starts the real daemon on a home of its own, public, and attacks it from 200 loopback
//! addresses for some seconds. Bounded: a few seconds, a few connections, loopback only. Figures: docs/benchmarks.md.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench measures real time, and a failed measurement ends it"
)]

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/home.rs"]
mod home;
#[expect(dead_code, reason = "other benches use the rest")]
#[path = "measure.rs"]
mod measure;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/terminal.rs"]
mod terminal;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use home::{Home, PATIENCE};

/// How long each part is measured.
const SPAN: Duration = Duration::from_secs(6);
/// Addresses that attack, 127.0.1.1 and on.
const ATTACKERS: u8 = 200;
/// Threads that attack, each from its share of the addresses: as many as a small machine can bear beside the daemon.
const THREADS: u8 = 4;
/// The good client asks this often, so that it measures latency and not throughput.
const PACE: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let home = Home::new();
    home.start_proxy();
    home.answer(&["config", "set", "guard.exposure", "public"]);
    let key = home.create_key("good");
    home.answer(&["api-keys", "edit", &key[4..12], "--rpm", "0"]);
    let port = home.proxy_port().expect("a listener");
    let pid = home.owner().expect("a daemon");
    // Warm: the key is verified once, pools and tables are there.
    drop(good(port, &key, Duration::from_secs(1)));
    let quiet = good(port, &key, SPAN);
    let before = resident(pid);
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let flooded = std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (over, sent) = (&over, &sent);
            threads.spawn(move || attack(port, thread, over, sent));
        }
        let flooded = good(port, &key, SPAN);
        over.store(true, Ordering::Relaxed);
        flooded
    });
    let grown = resident(pid) - before;
    let (calm, storm) = (percentile(&quiet.0), percentile(&flooded.0));
    let attacks = sent.load(Ordering::Relaxed);
    let mut out = std::io::stdout();
    let failures = quiet.1 + flooded.1;
    let rows = [
        format!("attacking requests: {attacks} from {ATTACKERS} addresses in {} s", SPAN.as_secs()),
        format!(
            "good requests: {} in quiet, {} in the flood, {failures} failed (limit 0)",
            quiet.0.len(),
            flooded.0.len()
        ),
        format!("p99 in quiet {calm:.0} µs, in the flood {storm:.0} µs: {:.2}x (limit 2x)", storm / calm),
        format!("resident memory grew by {grown:.1} MiB (limit 20)"),
    ];
    for row in rows {
        writeln!(out, "{row}").expect("prints");
    }
    if failures == 0 && storm <= 2.0 * calm && grown < 20.0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn resident(pid: u32) -> f64 {
    measure::resident_of_tree(pid).expect("reads /proc") / 1024.0
}

/// Latencies in microseconds of a client that keeps its connection, and how many requests failed.
fn good(port: u16, key: &str, span: Duration) -> (Vec<f64>, u64) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    stream.set_nodelay(true).expect("sets");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    let (mut latencies, mut failures, mut buffer) = (Vec::new(), 0, vec![0; 16 << 10]);
    let began = Instant::now();
    while began.elapsed() < span {
        let at = Instant::now();
        stream.write_all(request.as_bytes()).expect("sends");
        // The answer comes in one piece.
        let count = stream.read(&mut buffer).expect("an answer");
        latencies.push(at.elapsed().as_secs_f64() * 1e6);
        failures += u64::from(!buffer[..count].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(PACE);
    }
    (latencies, failures)
}

/// Wrong keys from one address after the other, each with a right checksum's length and a new secret.
fn attack(port: u16, thread: u8, over: &AtomicBool, sent: &AtomicU64) {
    let mut number = u64::from(thread);
    let share: Vec<u8> = (1..=ATTACKERS).filter(|address| address % THREADS == thread).collect();
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        for address in &share {
            number += u64::from(THREADS);
            let Ok(mut stream) = connect(Ipv4Addr::new(127, 0, 1, *address), port) else { continue };
            let request = format!(
                "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8.9.1\r\n\
                 authorization: Bearer flm_Ab12Cd34_{number:043}abcdef\r\n\r\n"
            );
            // A refused address is closed before it has said everything; that counts as an attack all the same.
            for _ in 0..4 {
                if stream.write_all(request.as_bytes()).is_err()
                    || stream.read(&mut buffer).is_ok_and(|count| count == 0)
                {
                    break;
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn connect(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// The 99th percentile.
fn percentile(latencies: &[f64]) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}
