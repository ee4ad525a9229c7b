//! A pool of keep-alive connections, one per worker thread: connections are driven on the thread that uses them.
//!
//! Called by `proxy` (one pool per worker) and by the daemon's health checks. Dropping what [`Pool::send`] gave
//! closes the connection, so an engine always learns that its client has left (SPEC §4.3).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{self, Stream};
use super::upstream::Upstream;
use crate::telemetry::tasks::Tasks;

/// Deadlines of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// TCP (and TLS) connect; ENGINES.md §6: 1 s.
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
    tasks: Tasks,
    /// Idle connections by upstream, newest last. Only this worker's thread takes the lock, so it never waits.
    idle: Mutex<HashMap<Upstream, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection and the task that drives it; dropping it ends both.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Ends a driver that still reads an answer nobody wants; an ended one does not mind.
        self.driver.abort();
    }
}

impl Pool {
    /// An empty pool whose connection tasks `tasks` owns.
    #[must_use]
    pub fn new(config: PoolConfig, tasks: Tasks) -> Self {
        Self { shared: Arc::new(Shared { config, tasks, idle: Mutex::new(HashMap::new()) }) }
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
            match connection.sender.try_send_request(request).await {
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
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }
}

impl Shared {
    fn take_idle(&self, upstream: &Upstream) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(upstream)?;
        while let Some(Idle { connection, since }) = list.pop() {
            if connection.sender.is_ready() && since.elapsed() < self.config.idle_timeout {
                return Some(connection);
            }
        }
        None
    }

    fn give_back(&self, upstream: &Upstream, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match idle.get_mut(upstream) {
            Some(list) => list,
            None => idle.entry(upstream.clone()).or_default(),
        };
        // The oldest stand first; what has run out goes as newer ones come.
        let over = list.iter().take_while(|idle| now.duration_since(idle.since) >= self.config.idle_timeout).count();
        list.drain(..over);
        if list.len() < self.config.idle_per_upstream {
            list.push(Idle { connection, since: now });
        }
    }

    async fn connect(&self, upstream: &Upstream) -> Result<Connection, SendError> {
        let failed = |reason: String| SendError::Connect { upstream: upstream.address(), reason };
        let handshake = async {
            match connect::dial(upstream).await.map_err(|error| error.to_string())? {
                Stream::Plain(stream) => self.drive(TokioIo::new(stream)).await,
                Stream::Tls(stream) => self.drive(TokioIo::new(stream)).await,
            }
        };
        match tokio::time::timeout(self.config.connect_timeout, handshake).await {
            Ok(result) => result.map_err(failed),
            Err(_elapsed) => Err(failed(format!("no connection within {:?}", self.config.connect_timeout))),
        }
    }

    async fn drive<S>(&self, io: S) -> Result<Connection, String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(|error| describe(&error))?;
        let task = self.tasks.spawn_until_end("upstream connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(reason = %describe(&error), "an upstream connection ended");
            }
        });
        Ok(Connection { sender, driver: task.abort_handle() })
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
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
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
