//! What a flood of wrong keys costs a client with a right one: its latency beside its own in the same run, its failures, and
//! the daemon's memory (SPEC §5.3, §5.7; SECURITY.md, case 3).
//!
//! `cargo bench --bench flood [-- --quick] [--blocking]` starts the real daemon on a home of its own, public, in front of a fast fake engine. A
//! client that is no trusted address chats over one connection, while wrong keys come
//!
//! - from 100 loopback addresses that nobody has seen, 1,000 a second, ten times: until each of them is blocked, and after it, each
//!   beside the calm before it (issue 8; `--blocking` takes this part alone);
//! - from 200 loopback addresses, 1,000 a second, until each of them is blocked and after it;
//! - from 200 others, as fast as they are answered over 400 connections;
//! - from 200 others, a thousand that name a key's public id and have a right checksum, which costs an Argon2 run each;
//! - from a million addresses that a trusted proxy names, as fast as they are answered over 400 connections, a million times. That
//!   takes some seventeen minutes: refusals leave each worker at a pace (ADR 22). Judged by memory and failures; its latency is told.
//!
//! The attackers' threads run only when nothing else wants a core, since real ones would not use this machine's. Bounded: some
//! twenty-two minutes at most, loopback only. Figures: docs/benchmarks.md.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench measures real time, and a failed measurement ends it"
)]

#[path = "proxy/engine.rs"]
mod engine;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/home.rs"]
mod home;
#[expect(dead_code, reason = "other benches use the rest")]
#[path = "measure.rs"]
mod measure;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/terminal.rs"]
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use home::{Home, PATIENCE};

/// What the shared fake engine's functions fail with.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Addresses that attack in each part, 127.0.P.1 and on.
const ATTACKERS: u8 = 200;
/// Addresses that attack where blocking is looked at.
const FRESH: u8 = 100;
/// Connections of those that attack at a pace of their own, each from its share of the addresses.
const FEW: u16 = 4;
/// Connections of those that send as fast as they are answered: two of each address.
const MANY: u16 = 400;
/// Stack of a thread that attacks.
const STACK: usize = 128 << 10;
/// Wrong keys per second of the paced part (SECURITY.md, case 3).
const PER_SECOND: u32 = 1000;
/// The good client asks this often, so that it measures latency and not throughput.
const PACE: Duration = Duration::from_millis(2);
/// Where the good client sits: an address like any other.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// A proxy that the daemon trusts to name its clients.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
/// Everything that the daemon is asked is over within this time, or the measurement has failed.
const MILLION_AT_MOST: Duration = Duration::from_secs(1200);
/// What a client's p99 may be of its calm one while few addresses attack (issue 8).
const CALM: f64 = 1.1;
/// Growth of resident memory that is allowed, in MiB.
const MEMORY: f64 = 20.0;
/// What the runs of Argon2 may take beyond that as long as they last: two of 19 MiB.
const HASHING: f64 = 38.0;

/// How much is measured.
struct Sizes {
    /// Of the part that looks at blocking: calm, and then attack, for so long each.
    blocking: (u8, Duration),
    rounds: u8,
    span: Duration,
    named: u64,
}

impl Sizes {
    const FULL: Self =
        Self { blocking: (10, Duration::from_secs(5)), rounds: 3, span: Duration::from_secs(10), named: 1_000_000 };
    /// To see whether it works; its figures mean little.
    const QUICK: Self =
        Self { blocking: (1, Duration::from_secs(2)), rounds: 1, span: Duration::from_secs(2), named: 20_000 };
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["engine"] => {
            engine::run().expect("an engine");
            ExitCode::SUCCESS
        }
        [] => measure(&Sizes::FULL, Parts::All),
        ["--quick"] => measure(&Sizes::QUICK, Parts::All),
        ["--blocking"] => measure(&Sizes::FULL, Parts::Blocking),
        ["--quick", "--blocking"] => measure(&Sizes::QUICK, Parts::Blocking),
        other => panic!("unknown arguments {other:?}; usage: cargo bench --bench flood [-- --quick] [--blocking]"),
    }
}

/// Which parts are measured.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    All,
    Blocking,
}

/// What a part of the measurement found.
struct Part {
    name: String,
    good: Good,
    attacks: u64,
    seconds: f64,
    /// Most that was resident above what was before, in MiB.
    grown: f64,
}

fn measure(sizes: &Sizes, which: Parts) -> ExitCode {
    let engine = Engine::start();
    let daemon = Daemon::start(engine.port);
    // Warm: the key is verified once, pools and tables are there.
    drop(good(&daemon, Duration::from_secs(2), None));
    let blocked_in_time = blocking(&daemon, sizes.blocking);
    if which == Parts::Blocking {
        return if blocked_in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut quiet = Good::default();
    let mut parts = Vec::new();
    for (number, name) in ["1,000 a second", "as fast as they can"].into_iter().enumerate() {
        let paced = number == 0;
        let mut whole: Option<Part> = None;
        for round in 0..sizes.rounds {
            quiet.add(good(&daemon, sizes.span, None));
            let net = 1 + round + if paced { 0 } else { 50 };
            let connections = if paced { FEW } else { MANY };
            let part = flooded(&daemon, name, connections, Some(sizes.span), |thread, over, sent| {
                let pace = paced.then(|| Duration::from_secs(1) * u32::from(FEW) / PER_SECOND);
                let share = Share { net, addresses: ATTACKERS, thread, of: connections, pace, most: u64::MAX };
                from_loopback(daemon.port, &share, (over, sent), &mut unknown_key, &|_address| {});
            });
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.add(part),
            }
        }
        parts.extend(whole);
    }
    let id = &daemon.key[4..12];
    parts.push(flooded(&daemon, "1,000 keys whose id exists", FEW, Some(PATIENCE), |thread, over, sent| {
        let mut key = |number: u64| known_id(id, number);
        let most = 1000 / u64::from(FEW);
        let share = Share { net: 101, addresses: ATTACKERS, thread, of: FEW, pace: None, most };
        from_loopback(daemon.port, &share, (over, sent), &mut key, &|_address| {});
    }));
    let million = "a million addresses behind a proxy";
    parts.push(flooded(&daemon, million, MANY, Some(MILLION_AT_MOST), |thread, over, sent| {
        named(daemon.port, thread, sizes.named, over, sent);
    }));
    let met = report(sizes, &quiet, &parts) && blocked_in_time;
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// 1,000 wrong keys a second from 100 addresses: before all of them are blocked, and after. Tells whether all was within limits.
fn blocking(daemon: &Daemon, (rounds, span): (u8, Duration)) -> bool {
    let mut phases = [Good::default(), Good::default(), Good::default()];
    let mut ratios = [Vec::new(), Vec::new()];
    let mut seconds = Vec::new();
    for round in 0..rounds {
        let calm = good(daemon, span, None);
        let (refused, began) = (Mutex::new(BTreeSet::new()), Instant::now());
        let all_blocked = OnceLock::new();
        let part = flooded(daemon, "100 addresses", FEW, Some(span), |thread, over, sent| {
            let pace = Some(Duration::from_secs(1) * u32::from(FEW) / PER_SECOND);
            let share = Share { net: 150 + round, addresses: FRESH, thread, of: FEW, pace, most: u64::MAX };
            from_loopback(daemon.port, &share, (over, sent), &mut unknown_key, &|address| {
                let mut refused = refused.lock().expect("no attacker panics");
                refused.insert(address);
                if refused.len() == usize::from(FRESH) {
                    let _set_before = all_blocked.set(began.elapsed());
                }
            });
        });
        // Where some address is not within the span, all of it counts as before.
        let all_blocked = all_blocked.get().copied().unwrap_or(span);
        let (before, after) = part.good.split(all_blocked);
        for (ratios, phase) in ratios.iter_mut().zip([&before, &after]) {
            ratios.push(phase.percentile(99) / calm.percentile(99));
        }
        for (phase, found) in phases.iter_mut().zip([calm, before, after]) {
            phase.add(found);
        }
        seconds.push(all_blocked.as_secs_f64());
    }
    let calm = phases[0].percentile(99);
    let mut out = std::io::stdout();
    let mut all = phases[0].failures() == 0;
    writeln!(
        out,
        "1,000 wrong keys a second from {FRESH} addresses, {rounds} rounds; all blocked after {:.2} s (median); \
         calm: {} requests, p50 {:.0} µs, p99 {calm:.0} µs",
        measure::median(&seconds),
        phases[0].latencies.len(),
        phases[0].percentile(50),
    )
    .expect("prints");
    for ((name, phase), ratios) in ["before all are blocked", "after"].into_iter().zip(&phases[1..]).zip(&ratios) {
        let own = measure::median(ratios);
        let met = own <= CALM && phase.failures() == 0;
        all &= met;
        writeln!(
            out,
            "{name}: {} requests, p50 {:.0} µs, p99 {:.0} µs, {:.2}x of all together, {own:.2}x median of the rounds' own \
             (limit {CALM}), failed {:?}: {}",
            phase.latencies.len(),
            phase.percentile(50),
            phase.percentile(99),
            phase.percentile(99) / calm,
            phase.failed,
            if met { "met" } else { "MISSED" },
        )
        .expect("prints");
    }
    all
}

fn report(sizes: &Sizes, quiet: &Good, parts: &[Part]) -> bool {
    let calm = quiet.percentile(99);
    let mut out = std::io::stdout();
    let mut all = quiet.failures() == 0;
    writeln!(
        out,
        "in quiet: {} requests, p50 {:.0} µs, p99 {calm:.0} µs, failed {:?}",
        quiet.latencies.len(),
        quiet.percentile(50),
        quiet.failed
    )
    .expect("prints");
    for Part { name, good, attacks, seconds, grown } in parts {
        let storm = good.percentile(99);
        let is_million = name.starts_with("a million");
        let (enough, quick) = (!is_million || *attacks >= sizes.named, is_million || storm <= 2.0 * calm);
        let memory = MEMORY + if name.contains("id exists") { HASHING } else { 0.0 };
        let met = good.failures() == 0 && quick && *grown < memory && enough;
        all &= met;
        writeln!(
            out,
            "{name}: {attacks} wrong keys in {seconds:.1} s; {} requests, p50 {:.0} µs, p99 {storm:.0} µs, {:.2}x ({}), \
             failed {:?} (limit none); memory grew by {grown:.1} MiB (limit {memory}): {}",
            good.latencies.len(),
            good.percentile(50),
            storm / calm,
            if is_million { "no limit" } else { "limit 2x" },
            good.failed,
            if met { "met" } else { "MISSED" },
        )
        .expect("prints");
    }
    all
}

/// Has this thread use only the processor's time that nobody else wants (`SCHED_IDLE`, sched(7)): who attacks does not sit on the
/// attacked machine. A low priority alone is not enough: such a thread still keeps a core for its whole slice of 3 ms. Threads that
/// it starts are like it (`pthread_attr_setinheritsched`).
fn step_aside() {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
    let number = thread.file_name().expect("a thread's number");
    let changed = Command::new("chrt").args(["--idle", "--pid", "0"]).arg(number).status();
    assert!(changed.expect("chrt of util-linux").success(), "the thread's scheduling stays as it is");
}

/// Runs attackers beside the good client, until `span` is over or the attackers have sent what they wanted.
fn flooded(
    daemon: &Daemon,
    name: &str,
    connections: u16,
    span: Option<Duration>,
    attack: impl Fn(u16, &AtomicBool, &AtomicU64) + Sync,
) -> Part {
    let (over, sent, at_work) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(u64::from(connections)));
    let before = daemon.resident();
    let began = Instant::now();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            step_aside();
            std::thread::scope(|attackers| {
                for thread in 0..connections {
                    let (over, sent, at_work, attack) = (&over, &sent, &at_work, &attack);
                    let attacker = move || {
                        attack(thread, over, sent);
                        at_work.fetch_sub(1, Ordering::Relaxed);
                    };
                    let builder = std::thread::Builder::new().stack_size(STACK);
                    builder.spawn_scoped(attackers, attacker).expect("a thread");
                }
            });
        });
        let watcher = threads.spawn(|| {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                most = most.max(daemon.resident());
                std::thread::sleep(Duration::from_millis(200));
            }
            most
        });
        let good = good(daemon, span.unwrap_or(MILLION_AT_MOST), Some(&at_work));
        over.store(true, Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64();
        let grown = watcher.join().expect("watches") - before;
        Part { name: name.to_owned(), good, attacks: sent.load(Ordering::Relaxed), seconds, grown }
    })
}

impl Part {
    /// Another round of the same.
    fn add(&mut self, other: Self) {
        self.good.add(other.good);
        self.attacks += other.attacks;
        self.seconds += other.seconds;
        self.grown += other.grown;
    }
}

/// What the good client saw.
#[derive(Default)]
struct Good {
    /// Microseconds.
    latencies: Vec<f64>,
    /// When each of them was asked, from the first on.
    at: Vec<Duration>,
    /// Requests that were not answered with 200, by what came.
    failed: BTreeMap<String, u64>,
}

impl Good {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.at.extend(other.at);
        for (what, count) in other.failed {
            *self.failed.entry(what).or_default() += count;
        }
    }

    /// What was asked before that time, and the rest; what failed counts to the rest.
    fn split(self, boundary: Duration) -> (Self, Self) {
        let (mut before, mut after) = (Self::default(), Self { failed: self.failed, ..Self::default() });
        for (at, latency) in self.at.into_iter().zip(self.latencies) {
            let half = if at < boundary { &mut before } else { &mut after };
            half.at.push(at);
            half.latencies.push(latency);
        }
        (before, after)
    }

    fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

/// A client that keeps its connection and chats, for so long or until nobody attacks any more.
fn good(daemon: &Daemon, span: Duration, at_work: Option<&AtomicU64>) -> Good {
    let body = format!(r#"{{"model":"{}","messages":[{{"role":"user","content":"Hello"}}]}}"#, engine::FAST);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nuser-agent: OpenAI/Python 1.52.0\r\n\
         authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        daemon.key,
        body.len()
    );
    let mut good = Good::default();
    let mut connection = None;
    let began = Instant::now();
    while began.elapsed() < span && at_work.is_none_or(|threads| threads.load(Ordering::Relaxed) > 0) {
        let at = Instant::now();
        let told = match &mut connection {
            Some(connection) => Connection::ask(connection, request.as_bytes()),
            None => Connection::open(CLIENT, daemon.port)
                .and_then(|opened| connection.insert(opened).ask(request.as_bytes())),
        };
        match told {
            Ok(200) => {
                good.latencies.push(at.elapsed().as_secs_f64() * 1e6);
                good.at.push(at - began);
            }
            Ok(status) => *good.failed.entry(status.to_string()).or_default() += 1,
            Err(error) => {
                *good.failed.entry(error.to_string()).or_default() += 1;
                connection = None;
            }
        }
        std::thread::sleep(PACE);
    }
    good
}

/// What one thread of an attack does.
struct Share {
    /// Its addresses are of 127.0.N.0.
    net: u8,
    /// How many addresses attack.
    addresses: u8,
    /// Which of how many threads it is.
    thread: u16,
    of: u16,
    /// Time from one wrong key to the next, if not as fast as it is answered.
    pace: Option<Duration>,
    most: u64,
}

/// Wrong keys from the thread's share of the addresses, one after the other, four over each connection. An address that is answered with
/// anything but 401, or not at all, is told.
fn from_loopback(
    port: u16,
    share: &Share,
    (over, sent): (&AtomicBool, &AtomicU64),
    key: &mut dyn FnMut(u64) -> String,
    refused: &dyn Fn(u8),
) {
    let Share { net, addresses, thread, of, pace, most } = *share;
    let mut number = u64::from(net) << 40 | u64::from(thread) << 24;
    let mut own = 0;
    let began = Instant::now();
    let shares = of.min(addresses.into());
    let own_addresses = (1..=addresses).filter(|address| u16::from(*address) % shares == thread % shares);
    for address in own_addresses.cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut connection) = Connection::open(Ipv4Addr::new(127, 0, net, address), port) else { continue };
        for _ in 0..4 {
            if let Some(pace) = pace {
                let due = pace * u32::try_from(own).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            if over.load(Ordering::Relaxed) || own >= most {
                return;
            }
            number += 1;
            // A refused address may be closed before it has said everything.
            match connection.ask(wrong(&key(number), "").as_bytes()) {
                Ok(401) => {}
                Ok(_) => refused(address),
                Err(_) => {
                    refused(address);
                    break;
                }
            }
            own += 1;
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Wrong keys, each from an address that nobody has seen before, half of them IPv6 of a /48 of their own.
fn named(port: u16, thread: u16, in_all: u64, over: &AtomicBool, sent: &AtomicU64) {
    let mut connection = None;
    let mut number = u64::from(thread);
    while number < in_all && !over.load(Ordering::Relaxed) {
        let address: IpAddr = if number.is_multiple_of(2) {
            Ipv4Addr::from_bits(11 << 24 | u32::try_from(number).expect("fits")).into()
        } else {
            Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(number) << 80 | 1).into()
        };
        let request = wrong(&unknown_key(number), &format!("x-forwarded-for: {address}\r\n"));
        let told = match &mut connection {
            Some(connection) => Connection::ask(connection, request.as_bytes()),
            None => Connection::open(PROXY, port).and_then(|opened| connection.insert(opened).ask(request.as_bytes())),
        };
        if told.is_err() {
            connection = None;
            continue;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        number += u64::from(MANY);
    }
}

fn wrong(key: &str, more: &str) -> String {
    format!(
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8.9.1\r\nauthorization: Bearer {key}\r\n{more}\r\n"
    )
}

/// A key of no id that exists, and whose checksum is wrong.
fn unknown_key(number: u64) -> String {
    format!("flm_Ab12Cd34_{number:043}abcdef")
}

/// A wrong key that looks right until it is hashed: a public id that exists, and a checksum that holds (SPEC §5.1).
fn known_id(id: &str, number: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let body = format!("flm_{id}_{number:043}");
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut checksum = ['0'; 6];
    for digit in checksum.iter_mut().rev() {
        *digit = char::from(DIGITS[(rest % 62) as usize]);
        rest /= 62;
    }
    body + &checksum.iter().collect::<String>()
}

/// A connection whose answers are told apart by their length.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(from: Ipv4Addr, port: u16) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request, reads its answer to the end and tells the status.
    fn ask(&mut self, request: &[u8]) -> std::io::Result<u16> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut piece = [0; 4096];
        loop {
            let count = match self.stream.read(&mut piece) {
                // The machine stood still for a moment: a read with a timeout tells of it (signal(7)).
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&piece[..count]);
            let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
                .ok_or(std::io::ErrorKind::InvalidData)?;
            if self.buffer.len() >= end + 4 + length {
                let status = head.get(9..12).and_then(|status| status.parse().ok());
                return status.ok_or_else(|| std::io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// The fake engine, a process of its own; ended with its handle.
struct Engine {
    child: Child,
    port: u16,
}

impl Engine {
    fn start() -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut child = Command::new(own).arg("engine").stdout(Stdio::piped()).spawn().expect("an engine");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("a port");
        Self { child, port }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The daemon under attack.
struct Daemon {
    _home: Home,
    port: u16,
    pid: u32,
    key: String,
}

impl Daemon {
    fn start(engine: u16) -> Self {
        let home = Home::new();
        home.start_proxy();
        home.answer(&["config", "set", "guard.exposure", "public"]);
        home.answer(&["config", "set", "trusted_proxies", &format!("{PROXY}/32")]);
        // The good client is faster than a person: its rate is not what is measured. The rest of the policy is as shipped.
        let policy = home.path().join("policy.json");
        std::fs::write(&policy, r#"{"address_rate":{"per_minute":1000000,"burst":1000000}}"#).expect("writes");
        home.answer(&["security", "policy", "set", "--json", policy.to_str().expect("UTF-8")]);
        home.add_engine("openai", "bench", engine);
        home.answer(&["models", "refresh"]);
        let created = home.answer(&["api-keys", "create", "--label", "good", "--rpm", "0"]);
        let key = created["key"].as_str().expect("a key").to_owned();
        let (port, pid) = (home.proxy_port().expect("a listener"), home.owner().expect("a daemon"));
        Self { _home: home, port, pid, key }
    }

    /// MiB.
    fn resident(&self) -> f64 {
        measure::resident_of_tree(self.pid).expect("reads /proc") / 1024.0
    }
}
