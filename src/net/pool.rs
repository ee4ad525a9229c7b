//! A pool of keep-alive connections, one per worker thread: connections are driven by the task that uses them.
//!
//! Called by `proxy` (one pool per worker) and by the daemon's health checks. Dropping what [`Pool::send`] gave
//! closes the connection, so an engine always learns that its client has left (SPEC §4.3).

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::connect::{self, Trust};
use super::connection::{Begun, Connection, Heard, Unanswered};
use super::egress::{CONNECT_LIMIT, Egress};
use super::message::{self, Fields, MessageFault, Outgoing};
use super::upstream::Upstream;
use crate::telemetry::tasks::Tasks;

/// How often idle connections are looked at: one that its engine has closed must not hold a socket for long.
const SWEEP: Duration = Duration::from_secs(10);

/// How often a straight connection is tried that is not there in time. A burst can fill the backlog of an engine, whose
/// system then drops the first packet; it is sent again after a second (RFC 6298 §2), when the deadline has passed.
const CONNECT_TRIES: u32 = 2;

/// Deadlines of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// TCP (and TLS) connect; ENGINES.md §6: 1 s. What is not there by then is tried once more. Through an egress proxy its
    /// steps come on top (SPEC §7).
    pub connect_timeout: Duration,
    /// How long an idle connection is kept, give or take ten seconds. Engines close theirs after 5 s (llama.cpp) to 75 s.
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

/// An answer whose head has come.
#[derive(Debug)]
pub struct Answered {
    /// Status, never an interim one.
    pub status: StatusCode,
    /// Fields of the head.
    pub fields: Fields,
    /// The body, as it comes.
    pub body: UpstreamBody,
}

/// Whether a request may reach its upstream twice. An idle connection can turn out closed when the request is on its way: nobody
/// knows then whether it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// When its method means the same twice as once (RFC 9110 §9.2.2).
    ByMethod,
    /// It changes nothing, whatever its method: a model is asked.
    Harmless,
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
    lanes: Mutex<Lanes>,
}

#[derive(Debug, Default)]
struct Lanes {
    /// Few: looking through them is cheaper than hashing what an upstream is.
    lanes: Vec<Arc<Lane>>,
    /// Whether a task looks after them.
    swept: bool,
}

/// The way to one upstream.
#[derive(Debug)]
struct Lane {
    upstream: Upstream,
    /// Newest last. Only this worker's thread takes the lock.
    idle: Mutex<Vec<Idle>>,
}

/// A connection that idles. Its time is counted by those who look after it: a request asks no clock.
#[derive(Debug)]
struct Idle {
    /// Boxed: it goes from hand to hand, and would be copied by each.
    connection: Box<Connection>,
    /// How often it was looked at since it began to idle.
    sweeps: u32,
}

impl Lane {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection that can be used.
    fn take(&self) -> Option<Box<Connection>> {
        let mut idle = self.idle();
        while let Some(Idle { mut connection, .. }) = idle.pop() {
            if connection.rest() {
                return Some(connection);
            }
        }
        None
    }
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
        Self { shared: Arc::new(Shared { config, egress, trust, tasks, lanes: Mutex::default() }) }
    }

    /// How much longer than usual a first answer of this upstream may take, because a proxy is in between.
    #[must_use]
    pub fn allowance(&self, upstream: &Upstream) -> Duration {
        self.shared.egress.allowance(&upstream.host, upstream.reach)
    }

    /// Sends a request and answers when the head of its answer has come. `Host` and the length are set here. A request whose idle
    /// connection turns out closed before a byte of the answer is sent once more on a new one, where `repeat` lets it.
    ///
    /// Dropping the future, or the body before its end, closes the connection: the engine sees the client leave.
    ///
    /// # Errors
    /// See [`SendError`]. There is no deadline for the head: the caller knows how long the engine may think.
    pub async fn send(&self, upstream: &Upstream, request: Outgoing, repeat: Repeat) -> Result<Answered, SendError> {
        let broken =
            |fault: MessageFault| SendError::BeforeAnswer { upstream: upstream.address(), reason: fault.to_string() };
        let head = message::write_request(&request, &upstream.host_header).map_err(broken)?;
        let Outgoing { method, body, .. } = request;
        let lane = self.shared.lane(upstream);
        let mut idle = lane.take();
        loop {
            let reused = idle.is_some();
            let mut connection = match idle.take() {
                Some(connection) => connection,
                // Boxed: it is rare, and every request would carry the states of a handshake else.
                None => Box::pin(self.shared.connect(upstream)).await?,
            };
            match connection.send(&method, &head, &body).await {
                Ok(Begun { status, fields }) => {
                    let lease = Lease { connection, lane, shared: self.shared.clone() };
                    return Ok(Answered { status, fields, body: UpstreamBody::new(lease) });
                }
                // On a new connection this time: the others may have been closed with this one.
                Err(Unanswered { heard: Heard::Nothing, .. }) if reused && repeat.allows(&method) => {}
                Err(Unanswered { fault, .. }) => return Err(broken(fault)),
            }
        }
    }

    /// Idle connections kept now, for tests and status.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.lanes().lanes.iter().map(|lane| lane.idle().len()).sum()
    }
}

impl Repeat {
    fn allows(self, method: &Method) -> bool {
        match self {
            Self::ByMethod => method.is_idempotent(),
            Self::Harmless => true,
        }
    }
}

impl Shared {
    fn lane(&self, upstream: &Upstream) -> Arc<Lane> {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.lanes.iter().find(|lane| lane.upstream == *upstream) {
            return lane.clone();
        }
        let lane = Arc::new(Lane { upstream: upstream.clone(), idle: Mutex::default() });
        lanes.lanes.push(lane.clone());
        lane
    }

    fn give_back(self: &Arc<Self>, lane: &Lane, connection: Box<Connection>) {
        if !connection.is_reusable() {
            return;
        }
        let mut idle = lane.idle();
        if idle.len() < self.config.idle_per_upstream {
            idle.push(Idle { connection, sweeps: 0 });
            drop(idle);
            if !std::mem::replace(&mut self.lanes().swept, true) {
                self.tasks.spawn_until_end("idle upstream connections", self.clone().sweep());
            }
        }
    }

    /// Closes connections that idled too long, or that the engine has closed, as long as there are any.
    async fn sweep(self: Arc<Self>) {
        let pause = self.config.idle_timeout.min(SWEEP);
        let most = u32::try_from(self.config.idle_timeout.as_millis() / pause.as_millis().max(1)).unwrap_or(u32::MAX);
        loop {
            tokio::time::sleep(pause).await;
            let mut lanes = self.lanes();
            lanes.lanes.retain(|lane| {
                let mut idle = lane.idle();
                idle.retain_mut(|idle| {
                    idle.sweeps += 1;
                    idle.sweeps <= most && idle.connection.rest()
                });
                // Whoever has a lane at hand will give a connection back to it.
                !idle.is_empty() || Arc::strong_count(lane) > 1
            });
            if lanes.lanes.is_empty() {
                lanes.swept = false;
                return;
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, upstream: &Upstream) -> Result<Box<Connection>, SendError> {
        let failed = |reason: String| SendError::Connect { upstream: upstream.address(), reason };
        let (patience, tries) = match self.egress.allowance(&upstream.host, upstream.reach) {
            Duration::ZERO => (self.config.connect_timeout, CONNECT_TRIES),
            // TLS over several relays takes seconds of its own.
            allowance => (allowance + CONNECT_LIMIT, 1),
        };
        for _ in 0..tries {
            match tokio::time::timeout(patience, connect::dial(&self.egress, upstream, &self.trust)).await {
                Ok(Ok(stream)) => return Ok(Box::new(Connection::new(stream))),
                Ok(Err(error)) => return Err(failed(error.to_string())),
                Err(_elapsed) => {}
            }
        }
        Err(failed(format!("no connection within {:?}", patience * tries)))
    }
}

/// A connection on loan to a body.
#[derive(Debug)]
struct Lease {
    connection: Box<Connection>,
    lane: Arc<Lane>,
    shared: Arc<Shared>,
}

/// The body of an engine's answer; gives its connection back to the pool as soon as its end has come.
#[derive(Debug)]
pub struct UpstreamBody(State);

#[derive(Debug)]
enum State {
    /// More is to come, or a fault is to be told.
    Coming(Lease),
    /// All of it has come; empty when it was given too.
    Come(Bytes),
}

impl UpstreamBody {
    fn new(lease: Lease) -> Self {
        let mut body = Self(State::Coming(lease));
        body.settle();
        body
    }

    /// Lets the connection go as soon as nothing has to be read from it.
    fn settle(&mut self) {
        let State::Coming(lease) = &mut self.0 else { return };
        if !lease.connection.has_come() {
            return;
        }
        let arrived = lease.connection.take_arrived();
        if let State::Coming(Lease { connection, lane, shared }) = std::mem::replace(&mut self.0, State::Come(arrived))
        {
            shared.give_back(&lane, connection);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = MessageFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, MessageFault>>> {
        let lease = match &mut self.0 {
            State::Come(rest) if rest.is_empty() => return Poll::Ready(None),
            State::Come(rest) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(rest))))),
            State::Coming(lease) => lease,
        };
        match ready!(lease.connection.poll_body(cx)) {
            Some(Ok(data)) => {
                self.settle();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // A broken body closes its connection.
            Some(Err(fault)) => {
                self.0 = State::Come(Bytes::new());
                Poll::Ready(Some(Err(fault)))
            }
            None => {
                self.settle();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Coming(lease) => lease.connection.has_ended(),
            State::Come(rest) => rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.0 {
            State::Coming(lease) => lease.connection.left(),
            State::Come(rest) => Some(rest.len() as u64),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
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

    fn request() -> Outgoing {
        Outgoing { method: Method::GET, target: "/".into(), fields: Vec::new(), body: Bytes::new() }
    }

    async fn text(answered: Answered) -> String {
        let bytes = tokio::time::timeout(PATIENCE, answered.body.collect()).await.expect("in time");
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
            assert_eq!(text(pool.send(&upstream, request(), Repeat::ByMethod).await.expect("answers")).await, expected);
            assert_eq!(pool.idle(), 1);
        }
        close.send(()).expect("the engine waits");
        let answer = match pool.send(&upstream, request(), Repeat::ByMethod).await {
            // It was sent in the moment in which the engine closed: nobody can know whether it was read.
            Err(SendError::BeforeAnswer { .. }) => pool.send(&upstream, request(), Repeat::ByMethod).await,
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
        let mut body = pool.send(&upstream, request(), Repeat::ByMethod).await.expect("answers").body;
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
        drop(pool.send(&upstream, request(), Repeat::ByMethod).await.expect("answers"));
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
        assert_eq!(text(pool.send(&upstream, request(), Repeat::ByMethod).await.expect("answers")).await, "ok");
        assert_eq!(tokio::time::timeout(PATIENCE, engine).await.expect("closed in time").expect("joins"), 0);
        assert_eq!(pool.idle(), 0);
    }
}
