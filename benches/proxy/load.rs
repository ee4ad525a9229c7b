//! The load client: a fixed number of requests over keep-alive connections, or streams held side by side.
//!
//! Run by the bench as its own process, on one thread of bare tokio. Every answer is read to its end by its framing
//! and counted; an answer that is not 200 is counted as a failure, and the bench then throws the run away.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Fault, engine, measure};

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) target: SocketAddr,
    /// API key; the baseline and nginx ignore it.
    pub(crate) key: String,
    /// The fake engine's model, which chooses its pace.
    pub(crate) model: String,
    /// Chunks per stream; 0 asks for one JSON answer.
    pub(crate) chunks: usize,
    /// Connections side by side.
    pub(crate) connections: usize,
    /// Requests in all.
    pub(crate) requests: usize,
}

/// What came back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Answers with status 200 that were read to their end.
    pub(crate) completed: usize,
    /// The rest, with the first one's reason.
    pub(crate) failed: usize,
    /// Why the first failure failed.
    pub(crate) reason: Option<String>,
    /// Server-sent events with a chunk of text (the end mark and the usage chunk left out).
    pub(crate) events: usize,
    /// Seconds from the first request to the last byte.
    pub(crate) seconds: f64,
    /// Median time from request to last byte in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of it.
    pub(crate) p99_us: f64,
    /// CPU seconds of the client itself.
    pub(crate) own_cpu: f64,
}

/// Runs a plan and writes its outcome as JSON to stdout.
pub(crate) fn run(plan: Plan) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(drive(plan))?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    Ok(())
}

async fn drive(plan: Plan) -> Result<Outcome, Fault> {
    let plan = Arc::new(plan);
    let message: Arc<[u8]> = request(&plan).into();
    let left = Arc::new(AtomicUsize::new(plan.requests));
    let started = Instant::now();
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..plan.connections {
        connections.spawn(connection(plan.target, Arc::clone(&message), Arc::clone(&left)));
    }
    let mut latencies = Vec::with_capacity(plan.requests);
    let (mut events, mut failed, mut reason) = (0, 0, None);
    while let Some(joined) = connections.join_next().await {
        let tally = joined?;
        latencies.extend(tally.latencies);
        events += tally.events;
        if let Some(failure) = tally.failure {
            failed += 1;
            reason.get_or_insert(failure);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Ok(Outcome {
        completed: latencies.len(),
        failed: failed + left.load(Ordering::Relaxed),
        reason,
        events,
        seconds,
        p50_us: percentile(&latencies, 50),
        p99_us: percentile(&latencies, 99),
        own_cpu: measure::cpu_seconds(std::process::id())?,
    })
}

fn request(plan: &Plan) -> Vec<u8> {
    let stream = plan.chunks > 0;
    let body = serde_json::json!({
        "model": plan.model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Say something about foxes, dogs and the pangrams that they appear in."},
        ],
        "max_tokens": if stream { plan.chunks } else { 16 },
        "temperature": 0.7,
        "stream": stream,
    })
    .to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nuser-agent: OpenAI/Python 2.0.0\r\n\
         accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        plan.target,
        plan.key,
        body.len()
    )
    .into_bytes()
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    events: usize,
    failure: Option<String>,
}

async fn connection(target: SocketAddr, message: Arc<[u8]>, left: Arc<AtomicUsize>) -> Tally {
    let mut tally = Tally::default();
    let mut link = match Link::connect(target).await {
        Ok(link) => link,
        Err(error) => {
            tally.failure = Some(format!("cannot connect to {target}: {error}"));
            return tally;
        }
    };
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let sent = Instant::now();
        match link.exchange(&message).await {
            Ok(events) => {
                tally.latencies.push(sent.elapsed());
                tally.events += events;
            }
            Err(error) => {
                tally.failure = Some(error.to_string());
                return tally;
            }
        }
    }
    tally
}

/// A keep-alive connection and what was read from it beyond the last answer.
struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    async fn connect(target: SocketAddr) -> Result<Self, std::io::Error> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// Sends the request, reads the answer to its end, answers the number of text chunks in it.
    async fn exchange(&mut self, message: &[u8]) -> Result<usize, Fault> {
        self.stream.write_all(message).await?;
        let head_end = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).to_ascii_lowercase();
        self.buffer.drain(..head_end);
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:")).map(str::trim);
        let events = match length {
            Some(length) => {
                let length: usize = length.parse()?;
                while self.buffer.len() < length {
                    self.read().await?;
                }
                self.buffer.drain(..length);
                0
            }
            None => self.chunked().await?,
        };
        if !head.starts_with("http/1.1 200") {
            return Err(format!("answered {:?}", head.lines().next().unwrap_or_default()).into());
        }
        Ok(events)
    }

    /// Reads a chunked body (RFC 9112 §7.1) and counts its events.
    async fn chunked(&mut self) -> Result<usize, Fault> {
        let mut events = 0;
        // A proxy may cut anywhere, so the end of what was read is looked at again.
        let mut text: Vec<u8> = Vec::new();
        loop {
            let line_end = loop {
                if let Some(end) = memmem::find(&self.buffer, b"\r\n") {
                    break end;
                }
                self.read().await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..line_end])?.trim(), 16)?;
            let end = line_end + 2 + size + 2;
            while self.buffer.len() < end {
                self.read().await?;
            }
            if size == 0 {
                self.buffer.drain(..end);
                return Ok(events);
            }
            text.extend_from_slice(&self.buffer[line_end + 2..end - 2]);
            events += memmem::find_iter(&text, CHUNK_OF_TEXT).count();
            text.drain(..text.len().saturating_sub(CHUNK_OF_TEXT.len() - 1));
            self.buffer.drain(..end);
        }
    }

    async fn read(&mut self) -> Result<(), Fault> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the connection was closed within an answer".into());
        }
        Ok(())
    }
}

/// What a chunk of text has and no other event: the fake engine writes it so, and a proxy passes it on.
const CHUNK_OF_TEXT: &[u8] = br#""delta":{"content""#;

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

/// The plans of one visit to a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Requests at one connection, of one slice.
    pub(crate) single: usize,
    /// Requests of the flood, of one slice.
    pub(crate) flood: usize,
    /// Connections of the flood.
    pub(crate) flood_connections: usize,
    /// Paced streams side by side.
    pub(crate) streams: usize,
    /// Chunks of each paced stream, 100 a second.
    pub(crate) paced_chunks: usize,
    /// Streams without pause, and chunks of each.
    pub(crate) stream_flood: (usize, usize),
    /// Streams held open to weigh one.
    pub(crate) held: usize,
}

impl Sizes {
    /// Enough for medians to settle.
    pub(crate) const FULL: Self = Self {
        single: 1000,
        flood: 10_000,
        flood_connections: 32,
        streams: 64,
        paced_chunks: 300,
        stream_flood: (64, 1000),
        held: 256,
    };
    /// Shows that everything works; its figures say little.
    pub(crate) const QUICK: Self = Self {
        single: 200,
        flood: 1000,
        flood_connections: 32,
        streams: 64,
        paced_chunks: 50,
        stream_flood: (16, 200),
        held: 64,
    };

    /// One JSON answer after the other over one connection.
    pub(crate) fn single(&self, target: SocketAddr, key: &str) -> Plan {
        plan(target, key, engine::FAST, 0, 1, self.single)
    }
    /// JSON answers over many connections.
    pub(crate) fn flood(&self, target: SocketAddr, key: &str) -> Plan {
        plan(target, key, engine::FAST, 0, self.flood_connections, self.flood)
    }
    /// Streams at the pace of a quick engine.
    pub(crate) fn paced(&self, target: SocketAddr, key: &str) -> Plan {
        plan(target, key, engine::PACED, self.paced_chunks, self.streams, self.streams)
    }
    /// Streams as fast as they go.
    pub(crate) fn stream_flood(&self, target: SocketAddr, key: &str) -> Plan {
        plan(target, key, engine::FAST, self.stream_flood.1, self.stream_flood.0, self.stream_flood.0)
    }
    /// Streams that hardly move.
    pub(crate) fn held(&self, target: SocketAddr, key: &str) -> Plan {
        plan(target, key, engine::HELD, 3, self.held, self.held)
    }
}

fn plan(target: SocketAddr, key: &str, model: &str, chunks: usize, connections: usize, requests: usize) -> Plan {
    Plan { target, key: key.to_owned(), model: model.to_owned(), chunks, connections, requests }
}
