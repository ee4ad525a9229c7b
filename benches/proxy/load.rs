//! The load client: a fixed number of requests over keep-alive connections, or streams held side by side.
//!
//! Run by the benches as its own process, on one thread of bare tokio. Every answer is read to its end by its framing
//! and counted; an answer that is not 200 is counted as a failure, and the bench then throws the run away.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::{Fault, connector, engine, measure};

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Spoken {
    /// HTTP in clear.
    #[default]
    Clear,
    /// HTTP within TLS.
    Tls,
}

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The address.
    pub(crate) address: SocketAddr,
    /// What is spoken there.
    pub(crate) spoken: Spoken,
    /// The key to send; empty where none is asked for.
    pub(crate) key: String,
}

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) target: SocketAddr,
    /// What is spoken there.
    #[serde(default)]
    pub(crate) spoken: Spoken,
    /// API key; the baseline ignores it.
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
    /// Median time from request to the first chunk of text in microseconds; 0 where nothing was streamed.
    pub(crate) first_token_us: f64,
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
    let secured = (plan.spoken == Spoken::Tls).then(|| connector::connector(None)).transpose()?;
    for _ in 0..plan.connections {
        connections.spawn(connection(plan.target, secured.clone(), Arc::clone(&message), Arc::clone(&left)));
    }
    let mut latencies = Vec::with_capacity(plan.requests);
    let mut first_tokens = Vec::new();
    let (mut events, mut failed, mut reason) = (0, 0, None);
    while let Some(joined) = connections.join_next().await {
        let tally = joined?;
        latencies.extend(tally.latencies);
        first_tokens.extend(tally.first_tokens);
        events += tally.events;
        if let Some(failure) = tally.failure {
            failed += 1;
            reason.get_or_insert(failure);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    first_tokens.sort_unstable();
    Ok(Outcome {
        completed: latencies.len(),
        failed: failed + left.load(Ordering::Relaxed),
        reason,
        events,
        seconds,
        p50_us: percentile(&latencies, 50),
        p99_us: percentile(&latencies, 99),
        first_token_us: percentile(&first_tokens, 50),
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
    first_tokens: Vec<Duration>,
    events: usize,
    failure: Option<String>,
}

async fn connection(
    target: SocketAddr,
    secured: Option<tokio_rustls::TlsConnector>,
    message: Arc<[u8]>,
    left: Arc<AtomicUsize>,
) -> Tally {
    let mut tally = Tally::default();
    let mut link = match Link::connect(target, secured).await {
        Ok(link) => link,
        Err(error) => {
            tally.failure = Some(format!("cannot connect to {target}: {error}"));
            return tally;
        }
    };
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let sent = Instant::now();
        match link.exchange(&message).await {
            Ok(Answer { events, first }) => {
                tally.latencies.push(sent.elapsed());
                tally.first_tokens.extend(first.map(|at| at.duration_since(sent)));
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
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    buffer: Vec<u8>,
    /// How much of the buffer is used up. It is thrown away before more is read: a flood has hundreds of chunks in a buffer,
    /// and moving the rest of them for each would be most of what this client does.
    used: usize,
}

/// What of an answer is told: its chunks of text, and when the first of them was read.
#[derive(Default)]
struct Answer {
    events: usize,
    first: Option<Instant>,
}

impl Link {
    async fn connect(target: SocketAddr, secured: Option<tokio_rustls::TlsConnector>) -> Result<Self, std::io::Error> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let stream = match secured {
            None => Either::Left(stream),
            Some(connector) => Either::Right(Box::new(connector::secure(&connector, stream).await?)),
        };
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1024), used: 0 })
    }

    /// Sends the request and reads the answer to its end.
    async fn exchange(&mut self, message: &[u8]) -> Result<Answer, Fault> {
        self.stream.write_all(message).await?;
        self.stream.flush().await?;
        let head_end = loop {
            if let Some(end) = memmem::find(self.rest(), b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let head = String::from_utf8_lossy(&self.rest()[..head_end]).to_ascii_lowercase();
        self.used += head_end;
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:")).map(str::trim);
        let answer = match length {
            Some(length) => {
                let length: usize = length.parse()?;
                while self.rest().len() < length {
                    self.read().await?;
                }
                self.used += length;
                Answer::default()
            }
            None => self.chunked().await?,
        };
        if !head.starts_with("http/1.1 200") {
            return Err(format!("answered {:?}", head.lines().next().unwrap_or_default()).into());
        }
        Ok(answer)
    }

    /// Reads a chunked body (RFC 9112 §7.1) and counts its events.
    async fn chunked(&mut self) -> Result<Answer, Fault> {
        let mut answer = Answer::default();
        // A proxy may cut anywhere, so the end of what was read is looked at again.
        let mut text: Vec<u8> = Vec::new();
        loop {
            let line_end = loop {
                if let Some(end) = memchr::memchr(b'\r', self.rest()).filter(|end| end + 1 < self.rest().len()) {
                    break end;
                }
                self.read().await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.rest()[..line_end])?.trim(), 16)?;
            let end = line_end + 2 + size + 2;
            while self.rest().len() < end {
                self.read().await?;
            }
            if size == 0 {
                self.used += end;
                return Ok(answer);
            }
            text.extend_from_slice(&self.rest()[line_end + 2..end - 2]);
            answer.events += memmem::find_iter(&text, CHUNK_OF_TEXT).count();
            if answer.first.is_none() && answer.events > 0 {
                answer.first = Some(Instant::now());
            }
            text.drain(..text.len().saturating_sub(CHUNK_OF_TEXT.len() - 1));
            self.used += end;
        }
    }

    /// What was read and is not used up.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    async fn read(&mut self) -> Result<(), Fault> {
        self.buffer.drain(..self.used);
        self.used = 0;
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
    /// Streams one after the other over one connection, of one slice.
    pub(crate) first_tokens: usize,
    /// Paced streams side by side.
    pub(crate) streams: usize,
    /// Chunks of each paced stream, 100 a second.
    pub(crate) paced_chunks: usize,
    /// Streams without pause, and chunks of each.
    pub(crate) stream_flood: (usize, usize),
    /// Streams held open to weigh one, and their chunks, one a second.
    pub(crate) held: (usize, usize),
}

impl Sizes {
    /// Enough for medians to settle.
    pub(crate) const FULL: Self = Self {
        single: 1000,
        flood: 10_000,
        flood_connections: 32,
        first_tokens: 200,
        streams: 64,
        paced_chunks: 200,
        stream_flood: (64, 1000),
        held: (2000, 6),
    };
    /// Shows that everything works; its figures say little.
    pub(crate) const QUICK: Self = Self {
        single: 200,
        flood: 1000,
        flood_connections: 32,
        first_tokens: 20,
        streams: 64,
        paced_chunks: 50,
        stream_flood: (16, 200),
        held: (64, 3),
    };

    /// One JSON answer after the other over one connection.
    pub(crate) fn single(&self, target: &Target) -> Plan {
        plan(target, engine::FAST, 0, 1, self.single)
    }
    /// JSON answers over many connections.
    pub(crate) fn flood(&self, target: &Target) -> Plan {
        plan(target, engine::FAST, 0, self.flood_connections, self.flood)
    }
    /// Short streams one after the other over one connection.
    pub(crate) fn first_tokens(&self, target: &Target) -> Plan {
        plan(target, engine::FAST, 4, 1, self.first_tokens)
    }
    /// Streams at the pace of a quick engine.
    pub(crate) fn paced(&self, target: &Target) -> Plan {
        plan(target, engine::PACED, self.paced_chunks, self.streams, self.streams)
    }
    /// Streams as fast as they go.
    pub(crate) fn stream_flood(&self, target: &Target) -> Plan {
        plan(target, engine::FAST, self.stream_flood.1, self.stream_flood.0, self.stream_flood.0)
    }
    /// Streams that hardly move.
    pub(crate) fn held(&self, target: &Target) -> Plan {
        plan(target, engine::HELD, self.held.1, self.held.0, self.held.0)
    }
}

fn plan(target: &Target, model: &str, chunks: usize, connections: usize, requests: usize) -> Plan {
    let Target { address, spoken, key } = target.clone();
    Plan { target: address, spoken, key, model: model.to_owned(), chunks, connections, requests }
}

/// Starts a load client: this executable, in its role `client`.
pub(crate) fn spawn_client(plan: &Plan) -> Result<Child, Fault> {
    let plan = serde_json::to_string(plan)?;
    Ok(Command::new(std::env::current_exe()?).args(["client", &plan]).stdout(Stdio::piped()).spawn()?)
}

/// Waits for a load client's end and reads what it found.
pub(crate) fn outcome_of(mut client: Child) -> Result<Outcome, Fault> {
    let mut text = String::new();
    client.stdout.take().ok_or("no stdout")?.read_to_string(&mut text)?;
    client.wait()?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("the load client ended without an outcome: {error}"))?)
}

/// Runs the load client to its end.
pub(crate) fn drive_client(plan: &Plan) -> Result<Outcome, Fault> {
    outcome_of(spawn_client(plan)?)
}

/// A run of a load client, and the CPU time that the program in front of it used meanwhile.
pub(crate) struct Run {
    /// Seconds.
    pub(crate) cpu_seconds: f64,
    /// What the client found.
    pub(crate) outcome: Outcome,
}

impl Run {
    /// CPU time of the program in µs for each of so many steps.
    #[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
    pub(crate) fn cpu_us_per(&self, count: usize) -> f64 {
        self.cpu_seconds * 1e6 / count.max(1) as f64
    }

    /// The same for each request.
    pub(crate) fn cpu_us_per_request(&self) -> f64 {
        self.cpu_us_per(self.outcome.completed)
    }
}

/// Runs a plan and tells what the program used meanwhile. A run with a failed request measures nothing.
pub(crate) fn measured(pid: u32, plan: &Plan) -> Result<Run, Fault> {
    let before = measure::cpu_of_tree(pid)?;
    let outcome = drive_client(plan)?;
    let cpu_seconds = measure::cpu_of_tree(pid)? - before;
    if outcome.failed > 0 {
        return Err(format!("{} of {} requests failed: {:?}", outcome.failed, plan.requests, outcome.reason).into());
    }
    if outcome.events != plan.requests * plan.chunks {
        return Err(format!("{} of {} chunks came through", outcome.events, plan.requests * plan.chunks).into());
    }
    Ok(Run { cpu_seconds, outcome })
}
