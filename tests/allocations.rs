//! How many blocks of memory a request takes (ADR 25): a real proxy in this process, of which every allocation is counted.
//!
//! Client and engine are threads that read into buffers of their own and take nothing for a request, so that what is counted is the
//! proxy's. One test in a program of its own: another one beside it would be counted too. Figures: docs/performance.md.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by panicking, and this one tells its figures with --nocapture"
)]

#[expect(dead_code, reason = "the tests of the proxy use the rest")]
#[path = "support/started.rs"]
mod started;

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flm::net::egress::Egress;
use flm::net::media_fetch::MediaFetcher;
use flm::net::pool::{Pool, PoolConfig};
use flm::proxy::limits::ProxyLimits;
use flm::telemetry::tasks::Tasks;
use flm::types::clock::Clock;
use flm::types::key::KeyLimits;
use flm::types::policy::SecurityPolicy;
use memchr::memmem;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::started::{Started, add_key, register};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// More than the newest rows that are kept, so that each new one takes the place of an old one.
const FILLING: usize = 1_200;
/// Requests of one round, and before the first one. What the proxy does by the clock falls into some rounds and not into others: the
/// least of them counts.
const REQUESTS: usize = 100;
const ROUNDS: usize = 5;
/// Chunks of the short and of the long stream, whose difference tells what one more costs.
const SHORT: usize = 2;
const LONG: usize = 12;
/// How long a read waits before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

const POLICY: &str = r#"{"address_rate":{"per_minute":1000000,"burst":1000000},"resources":{"mode":"off"}}"#;

/// What is asked, and how many blocks it may take: what was measured and nothing more, since whoever adds one shall see it here. A
/// wrong key takes one more if it waits for its turn (ADR 22), which is a matter of time.
const LIMITS: [(&str, usize); 5] =
    [("whole answer", 25), ("stream of two chunks", 42), ("GET /health", 9), ("unknown path", 22), ("wrong key", 19)];
/// Blocks that ten chunks more take, each of which comes by itself.
const TEN_CHUNKS: usize = 20;

#[test]
fn given_a_warm_proxy_then_no_request_takes_more_blocks_of_memory_than_is_written_here() {
    let taken = Arc::new(AtomicUsize::new(0));
    let engine = engine(&taken);
    // The listener and the collector of rows run here, the workers on threads of their own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let started = Started::start(None, Clock::system(), ProxyLimits::default(), MediaFetcher::by(Egress::direct()));
    // Thousands of requests of one address are counted as any, and not refused.
    started.shared.guard.set_policy(SecurityPolicy::parse(POLICY).expect("a policy"));
    let limits = KeyLimits { requests_per_minute: 1_000_000, burst: 1_000_000, ..KeyLimits::default() };
    let (_, key) = add_key(&started.shared, "counted", limits);
    runtime.block_on(async {
        let client = Pool::new(PoolConfig::default(), Egress::direct(), Tasks::new());
        register(&started.shared, &client, "fake", "openai", format!("http://{engine}"), None).await;
    });
    let address = started.service.status().addresses[0].strip_prefix("http://").expect("a URL").parse();
    let mut client = Client::to(address.expect("an address"), taken);

    let asked = [
        (chat(&key, 0), 0, "200"),
        (chat(&key, SHORT), SHORT, "200"),
        (get("/health", &key), 0, "200"),
        (get("/v1/nowhere", &key), 0, "404"),
        (get("/v1/models", "wrong"), 0, "401"),
    ];
    client.ask(FILLING, &asked[0].0, asked[0].1, asked[0].2);
    let mut found = Vec::new();
    for ((name, limit), (request, chunks, status)) in LIMITS.into_iter().zip(&asked) {
        found.push((name, client.count(request, *chunks, status), limit));
    }
    let long = client.count(&chat(&key, LONG), LONG, "200");
    found.push(("ten chunks more", long.saturating_sub(found[1].1), TEN_CHUNKS));
    started.workers.end();
    println!("blocks a request, in hundredths: {found:?}");
    let over: Vec<_> = found.iter().filter(|(_, least, limit)| (least + 50) / 100 > *limit).collect();
    assert!(over.is_empty(), "what, hundredths of blocks, blocks that it may take: {over:?}");
}

/// A request with its answer for an OpenAI client, streamed if there are chunks.
fn chat(key: &str, chunks: usize) -> Vec<u8> {
    let stream = chunks > 0;
    let body = format!(
        r#"{{"model":"fake","messages":[{{"role":"user","content":"Say something about foxes."}}],"max_tokens":{},"stream":{stream}}}"#,
        chunks.max(1)
    );
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nuser-agent: OpenAI/Python 2.0.0\r\n\
         accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn get(path: &str, key: &str) -> Vec<u8> {
    let head = "host: 127.0.0.1\r\nuser-agent: OpenAI/Python 2.0.0\r\naccept: application/json";
    format!("GET {path} HTTP/1.1\r\n{head}\r\nauthorization: Bearer {key}\r\n\r\n").into_bytes()
}

/// One connection of a client that keeps it.
struct Client {
    stream: TcpStream,
    buffer: [u8; 16_384],
    /// Chunks that this client has got: the engine sends the next one after that, so that each comes by itself.
    taken: Arc<AtomicUsize>,
}

impl Client {
    fn to(address: SocketAddr, taken: Arc<AtomicUsize>) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("sends at once");
        stream.set_read_timeout(Some(PATIENCE)).expect("waits so long");
        Self { stream, buffer: [0; 16_384], taken }
    }

    /// Blocks that one request takes, in hundredths: the least of some rounds.
    fn count(&mut self, request: &[u8], chunks: usize, status: &str) -> usize {
        self.ask(REQUESTS, request, chunks, status);
        let mut least = usize::MAX;
        for _ in 0..ROUNDS {
            let before = COUNTED.stats();
            self.ask(REQUESTS, request, chunks, status);
            let taken = COUNTED.stats() - before;
            least = least.min(taken.allocations + taken.reallocations);
        }
        least * 100 / REQUESTS
    }

    /// Asks so often, one after the other.
    fn ask(&mut self, times: usize, request: &[u8], chunks: usize, status: &str) {
        for _ in 0..times {
            self.exchange(request, chunks, status);
        }
    }

    fn exchange(&mut self, request: &[u8], chunks: usize, status: &str) {
        self.taken.store(0, Ordering::Release);
        self.stream.write_all(request).expect("sends");
        let (mut filled, mut told) = (0, 0);
        loop {
            let count = self.stream.read(&mut self.buffer[filled..]).expect("an answer in time");
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer[..filled]));
            filled += count;
            let answer = &self.buffer[..filled];
            let chunk = br#""delta":{"content""#;
            let got = memmem::find_iter(answer, chunk).count();
            if got > told {
                told = got;
                self.taken.store(got, Ordering::Release);
            }
            let Some(head) = memmem::find(answer, b"\r\n\r\n") else { continue };
            let is_whole = match number_after(&answer[..head], b"content-length: ") {
                Some(length) => filled == head + 4 + length,
                None => answer.ends_with(b"\r\n0\r\n\r\n"),
            };
            if is_whole {
                assert_eq!(std::str::from_utf8(&answer[9..12]), Ok(status), "{}", String::from_utf8_lossy(answer));
                assert_eq!(got, chunks, "chunks of {}", String::from_utf8_lossy(answer));
                return;
            }
        }
    }
}

/// An engine of one model; what it answers is written before it is asked.
fn engine(taken: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
    let address = listener.local_addr().expect("an address");
    let taken = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, taken) = (stream.expect("a connection"), taken.clone());
            std::thread::spawn(move || serve(stream, &taken));
        }
    });
    address
}

fn serve(mut stream: TcpStream, taken: &AtomicUsize) {
    stream.set_nodelay(true).expect("sends at once");
    let [models, whole] = [
        r#"{"object":"list","data":[{"id":"fake","object":"model","created":1700000000,"owned_by":"test"}]}"#,
        concat!(
            r#"{"id":"1","object":"chat.completion","created":1700000000,"model":"fake","choices":[{"index":0,"message":"#,
            r#"{"role":"assistant","content":"A quick one."},"finish_reason":"stop"}],"#,
            r#""usage":{"prompt_tokens":12,"completion_tokens":4,"total_tokens":16}}"#
        ),
    ]
    .map(|json| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}", json.len())
    });
    let chunk = event(concat!(
        r#"{"id":"1","object":"chat.completion.chunk","created":1700000000,"model":"fake","#,
        r#""choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#
    ));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = head.to_owned() + &chunk;
    let done = event("[DONE]") + "0\r\n\r\n";
    let mut buffer = [0; 16_384];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).unwrap_or(0);
        if count == 0 {
            return;
        }
        filled += count;
        let asked = &buffer[..filled];
        let Some(head) = memmem::find(asked, b"\r\n\r\n") else { continue };
        if filled < head + 4 + number_after(&asked[..head], b"content-length: ").unwrap_or(0) {
            continue;
        }
        if asked.starts_with(b"GET /v1/models ") {
            send(&mut stream, &models);
        } else if memmem::find(asked, br#""stream":true"#).is_some() {
            send(&mut stream, &first);
            let last = number_after(asked, br#""max_tokens":"#).unwrap_or(1);
            for number in 1..=last {
                while taken.load(Ordering::Acquire) < number {
                    std::thread::yield_now();
                }
                send(&mut stream, if number == last { &done } else { &chunk });
            }
        } else if asked.starts_with(b"POST ") {
            send(&mut stream, &whole);
        } else {
            send(&mut stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
        filled = 0;
    }
}

/// One server-sent event in one HTTP chunk.
fn event(data: &str) -> String {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + "data: \n\n".len())
}

fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap_or_else(|gone| panic!("the proxy left: {gone}"));
}

fn number_after(text: &[u8], name: &[u8]) -> Option<usize> {
    let rest = &text[memmem::find(text, name)? + name.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number, digit| Some(number.unwrap_or(0) * 10 + usize::from(digit - b'0')))
}
