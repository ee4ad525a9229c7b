//! A pool of keep-alive connections, one per worker thread: connections are driven by the task that uses them.
//!
//! Called by `proxy` (one pool per worker) and by the daemon's health checks. Dropping what [`Pool::send`] gave
//! closes the connection, so an engine always learns that its client has left (SPEC §4.3).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::connect::{self, Stream, Trust};
use super::driven::Connection;
use super::egress::{CONNECT_LIMIT, Egress};
use super::upstream::Upstream;
use crate::telemetry::tasks::Tasks;

/// How often idle connections are looked at: one that its engine has closed must not hold a socket for long.
const SWEEP: Duration = Duration::from_secs(10);

/// Deadlines of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// TCP (and TLS) connect; ENGINES.md §6: 1 s. Through an egress proxy its steps come on top (SPEC §7).
    pub connect_timeout: Duration,
    /// How long an idle connection is kept. Engines close theirs after 5 s (llama.cpp) to 75 s.
    pub idle_timeout: Duration,
    /// Idle connections kept per upstream.
    pub idle_per_upstream: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), idle_timeout: Duration::from_secs(60), idle_per_upstream: 64 }
    }
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent, another engine may be tried.
    #[error("cannot connect to {upstream}: {reason}")]
    Connect {
        /// Where.
        upstream: String,
        /// What the system said.
        reason: String,
    },
    /// The connection broke before the head of the answer.
    #[error("{upstream} closed the connection before it answered: {reason}")]
    BeforeAnswer {
        /// Where.
        upstream: String,
        /// What was seen.
        reason: String,
    },
}

/// Keep-alive connections of one worker. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: PoolConfig,
    egress: Egress,
    trust: Trust,
    tasks: Tasks,
    /// Only this worker's thread takes the lock, so it never waits.
    idle: Mutex<IdleConnections>,
}

#[derive(Debug, Default)]
struct IdleConnections {
    /// Newest last.
    by_upstream: HashMap<Upstream, Vec<Idle>>,
    /// Whether a task looks after them.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// An empty pool whose connections take the way of `egress`; `tasks` owns the task that closes idle ones.
    #[must_use]
    pub fn new(config: PoolConfig, egress: Egress, tasks: Tasks) -> Self {
        Self::trusting(Trust::System, config, egress, tasks)
    }

    /// The same, with certificates of its own choice.
    #[must_use]
    pub fn trusting(trust: Trust, config: PoolConfig, egress: Egress, tasks: Tasks) -> Self {
        Self { shared: Arc::new(Shared { config, egress, trust, tasks, idle: Mutex::default() }) }
    }

    /// How much longer than usual a first answer of this upstream may take, because a proxy is in between.
    #[must_use]
    pub fn allowance(&self, upstream: &Upstream) -> Duration {
        self.shared.egress.allowance(&upstream.host, upstream.reach)
    }

    /// Sends a request and answers when its head has come. The pool sets `Host`; a request whose idle
    /// connection turns out closed before anything was sent is sent again on a new one.
    ///
    /// Dropping the future, or the body before its end, closes the connection: the engine sees the client leave.
    ///
    /// # Errors
    /// See [`SendError`]. There is no deadline for the head: the caller knows how long the engine may think.
    pub async fn send(
        &self,
        upstream: &Upstream,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        request.headers_mut().insert(HOST, upstream.host_header.clone());
        loop {
            let (mut connection, reused) = match self.shared.take_idle(upstream) {
                Some(connection) => (connection, true),
                None => (self.shared.connect(upstream).await?, false),
            };
            match connection.send(request).await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let lease = Lease { connection, upstream: upstream.clone(), shared: self.shared.clone() };
                    return Ok(Response::from_parts(parts, UpstreamBody::new(body, lease)));
                }
                Err(mut error) => match error.take_message() {
                    // The engine closed the idle connection while the request was on its way to it.
                    Some(unsent) if reused => request = unsent,
                    _ => {
                        let reason = describe(&error.into_error());
                        return Err(SendError::BeforeAnswer { upstream: upstream.address(), reason });
                    }
                },
            }
        }
    }

    /// Idle connections kept now, for tests and status.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.idle().by_upstream.values().map(Vec::len).sum()
    }
}

impl Shared {
    fn take_idle(&self, upstream: &Upstream) -> Option<Connection> {
        let mut idle = self.idle();
        let list = idle.by_upstream.get_mut(upstream)?;
        while let Some(Idle { mut connection, since }) = list.pop() {
            if since.elapsed() < self.config.idle_timeout && connection.rest() {
                return Some(connection);
            }
        }
        None
    }

    fn give_back(self: &Arc<Self>, upstream: &Upstream, mut connection: Connection) {
        if !connection.rest() {
            return;
        }
        let mut idle = self.idle();
        let list = match idle.by_upstream.get_mut(upstream) {
            Some(list) => list,
            None => idle.by_upstream.entry(upstream.clone()).or_default(),
        };
        if list.len() < self.config.idle_per_upstream {
            list.push(Idle { connection, since: Instant::now() });
            if !std::mem::replace(&mut idle.swept, true) {
                self.tasks.spawn_until_end("idle upstream connections", self.clone().sweep());
            }
        }
    }

    /// Closes connections that idled too long, or that the engine has closed, as long as there are any.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.config.idle_timeout.min(SWEEP)).await;
            let mut idle = self.idle();
            idle.by_upstream.retain(|_, list| {
                list.retain_mut(|idle| idle.since.elapsed() < self.config.idle_timeout && idle.connection.rest());
                !list.is_empty()
            });
            if idle.by_upstream.is_empty() {
                idle.swept = false;
                return;
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, upstream: &Upstream) -> Result<Connection, SendError> {
        let failed = |reason: String| SendError::Connect { upstream: upstream.address(), reason };
        let handshake = async {
            match connect::dial(&self.egress, upstream, &self.trust).await.map_err(|error| error.to_string())? {
                Stream::Plain(stream) => Connection::handshake(TokioIo::new(stream)).await,
                Stream::Tls(stream) => Connection::handshake(TokioIo::new(stream)).await,
            }
            .map_err(|error| describe(&error))
        };
        let patience = match self.egress.allowance(&upstream.host, upstream.reach) {
            Duration::ZERO => self.config.connect_timeout,
            // TLS over several relays takes seconds of its own.
            allowance => allowance + CONNECT_LIMIT,
        };
        match tokio::time::timeout(patience, handshake).await {
            Ok(result) => result.map_err(failed),
            Err(_elapsed) => Err(failed(format!("no connection within {patience:?}"))),
        }
    }
}

/// The error with its causes: hyper keeps the interesting part in the source.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A connection on loan to a body.
#[derive(Debug)]
struct Lease {
    connection: Connection,
    upstream: Upstream,
    shared: Arc<Shared>,
}

/// The body of an engine's answer; gives its connection back to the pool when read to the end.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    /// Gone once the end was read.
    lease: Option<Lease>,
}

impl UpstreamBody {
    fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self { incoming, lease: Some(lease) };
        if body.incoming.is_end_stream() {
            body.ended();
        }
        body
    }

    fn ended(&mut self) {
        if let Some(Lease { connection, upstream, shared }) = self.lease.take() {
            shared.give_back(&upstream, connection);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, lease } = &mut *self;
        let frame = ready!(match lease {
            Some(lease) => lease.connection.poll_frame(incoming, cx),
            // Everything was read.
            None => Pin::new(incoming).poll_frame(cx),
        });
        match &frame {
            None => self.ended(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.ended(),
            // A broken body closes its connection.
            Some(Err(_)) => self.lease = None,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn listener() -> (TcpListener, Upstream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        (listener, Upstream::parse(&format!("http://{address}")).expect("a URL"))
    }

    /// Reads one request without a body.
    async fn read_head(stream: &mut TcpStream) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.expect("reads"), 1, "the client closed");
            seen.push(byte[0]);
        }
    }

    fn request() -> Request<Full<Bytes>> {
        Request::get("/").body(Full::default()).expect("a request")
    }

    async fn text(response: Response<UpstreamBody>) -> String {
        let bytes = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("in time");
        String::from_utf8(bytes.expect("reads").to_bytes().to_vec()).expect("UTF-8")
    }

    #[tokio::test]
    async fn a_connection_is_used_again_until_the_engine_closes_it() {
        let (listener, upstream) = listener().await;
        let pool = Pool::new(PoolConfig::default(), Egress::direct(), Tasks::new());
        let tasks = Tasks::new();
        let (close, closes) = tokio::sync::oneshot::channel::<()>();
        let engine = tasks.spawn("engine", async move {
            let (mut first, _) = listener.accept().await.expect("accepts");
            for _ in 0..2 {
                read_head(&mut first).await;
                first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst").await.expect("writes");
            }
            // Without a warning, while the pool keeps it.
            closes.await.expect("told");
            drop(first);
            let (mut second, _) = listener.accept().await.expect("accepts");
            read_head(&mut second).await;
            second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond").await.expect("writes");
            second
        });
        for expected in ["first", "first"] {
            assert_eq!(text(pool.send(&upstream, request()).await.expect("answers")).await, expected);
            assert_eq!(pool.idle(), 1);
        }
        close.send(()).expect("the engine waits");
        let answer = match pool.send(&upstream, request()).await {
            // It was sent in the moment in which the engine closed: nobody can know whether it was read.
            Err(SendError::BeforeAnswer { .. }) => pool.send(&upstream, request()).await,
            other => other,
        };
        assert_eq!(text(answer.expect("answers")).await, "second");
        drop(engine.await.expect("joins"));
    }

    #[tokio::test]
    async fn a_reader_is_woken_for_every_piece_and_for_a_broken_end() {
        let (listener, upstream) = listener().await;
        let pool = Pool::new(PoolConfig::default(), Egress::direct(), Tasks::new());
        let tasks = Tasks::new();
        let (next, mut wanted) = tokio::sync::mpsc::channel(1);
        let engine = tasks.spawn("engine", async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.expect("writes");
            // One at a time: the reader has gone to sleep before each of them.
            while let Some(()) = wanted.recv().await {
                stream.write_all(b"1\r\nx\r\n").await.expect("writes");
            }
        });
        let mut body = pool.send(&upstream, request()).await.expect("answers").into_body();
        for _ in 0..20 {
            let frame = tokio::time::timeout(PATIENCE, async { tokio::join!(body.frame(), next.send(())).0 });
            let frame = frame.await.expect("woken in time").expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), "x");
        }
        drop(next);
        let end = tokio::time::timeout(PATIENCE, body.frame()).await.expect("woken in time");
        assert!(end.expect("something").is_err(), "the engine left without the last chunk");
        drop(body);
        assert_eq!(pool.idle(), 0);
        engine.await.expect("joins");
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_to_its_end_closes_the_connection() {
        let (listener, upstream) = listener().await;
        let pool = Pool::new(PoolConfig::default(), Egress::direct(), Tasks::new());
        let tasks = Tasks::new();
        let engine = tasks.spawn("engine", async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.expect("writes");
            stream.read(&mut [0]).await
        });
        drop(pool.send(&upstream, request()).await.expect("answers"));
        let seen = tokio::time::timeout(PATIENCE, engine).await.expect("in time").expect("joins");
        assert!(matches!(seen, Ok(0) | Err(_)), "the engine sees the client leave");
    }

    #[tokio::test]
    async fn connections_that_idle_too_long_are_closed_without_another_request() {
        let (listener, upstream) = listener().await;
        let config = PoolConfig { idle_timeout: Duration::from_millis(20), ..PoolConfig::default() };
        let pool = Pool::new(config, Egress::direct(), Tasks::new());
        let tasks = Tasks::new();
        let engine = tasks.spawn("engine", async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("writes");
            stream.read(&mut [0]).await.expect("reads")
        });
        assert_eq!(text(pool.send(&upstream, request()).await.expect("answers")).await, "ok");
        assert_eq!(tokio::time::timeout(PATIENCE, engine).await.expect("closed in time").expect("joins"), 0);
        assert_eq!(pool.idle(), 0);
    }
}
