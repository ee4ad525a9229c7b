//! Serves one client connection: first byte, HTTP/1.1 or HTTP/2, deadlines, graceful end (SPEC §4.6, §4.7).
//!
//! hyper's own header timer cannot tell a slow head (10 s) from an idle keep-alive (75 s), so the stream under it
//! keeps time: [`Activity`] says what the connection is doing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::client_address::ProxyProtocol;
use super::connection_limits::Permit;
use super::door::Door;
use super::exchange::Peer;
use super::limits::ProxyLimits;
use super::preface::PrefaceInTime;
use super::rules::{self, Misdeed};
use super::service::Open;
use super::watched::{Watch, Watched};
use super::worker::Worker;
use super::{pipeline, proxy_protocol};
use crate::telemetry::tasks::{Tasks, until_cancelled};
use crate::tls::resolver::Application;
use crate::types::address::canonical;

/// Requests that one HTTP/2 connection may run at once (SECURITY.md §H: 64 leaves floods without room).
const HTTP2_STREAMS: u32 = 64;
/// Largest head in HTTP/2 (SECURITY.md §H, CONTINUATION flood).
const HTTP2_HEAD: u32 = 32 << 10;
/// A silent HTTP/2 peer is asked whether it lives, and has as long to answer.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// What a connection is doing, as far as its deadlines go.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Heads that were complete so far.
    requests: AtomicU32,
    /// Answers that are written or dropped.
    answers: AtomicU32,
    /// When the last answer ended, milliseconds since it was opened.
    idle_since: AtomicU64,
    /// A head began and did not end in time.
    held_open: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            held_open: AtomicBool::new(false),
        }
    }

    /// A request's head is complete.
    fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer is written or dropped.
    pub(super) fn answered(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(since, Ordering::Relaxed);
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    fn busy(&self) -> bool {
        self.requests() != self.answers.load(Ordering::Relaxed)
    }

    fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }
}

/// An accepted connection on its way to a worker.
pub(super) struct Incoming {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) permit: Permit,
    /// What is spoken on the port that it came to.
    pub(super) door: Arc<Door>,
    /// Counts it for its listener.
    pub(super) open: Open,
    /// Fires when the listener stops: finish what runs, take no more.
    pub(super) draining: CancellationToken,
    /// Fires when the time for that is over.
    pub(super) killed: CancellationToken,
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Arc<Worker>, incoming: Incoming) {
    let Incoming { stream, peer, permit, door, open, draining, killed } = incoming;
    let _open = worker.shard.connection_opened();
    let result = until_cancelled(&killed, run(worker, stream, peer, door, &draining)).await;
    if let Some(Err(error)) = result {
        // Clients break off all the time: worth nothing but a debug line.
        tracing::debug!(%peer, %error, "a connection ended");
    }
    drop((permit, open));
}

async fn run(
    worker: Arc<Worker>,
    stream: std::net::TcpStream,
    address: SocketAddr,
    door: Arc<Door>,
    draining: &CancellationToken,
) -> Ended {
    let mut stream = TcpStream::from_std(stream)?;
    let limits = worker.shared.limits.load_full();
    let tasks = worker.tasks.clone();
    let proxies = &limits.trusted_proxies;
    let announced = proxies.protocol == ProxyProtocol::Required && proxies.trusts(address.ip());
    let beginning = async {
        let client = if announced { proxy_protocol::read(&mut stream).await? } else { None };
        io::Result::Ok((client, first_bytes(&stream).await?))
    };
    // A listener that stops does not wait for somebody who has said nothing.
    let (client, first) = tokio::select! {
        first = tokio::time::timeout(limits.first_byte, beginning) => first??,
        () = draining.cancelled() => return Ok(()),
    };
    // A proxy that is trusted holds nothing open by itself: whoever does stands behind it.
    let own_doing = announced || !proxies.trusts(address.ip());
    let address = client.unwrap_or_else(|| canonical(address.ip()));
    let culprit = own_doing.then_some(address);
    let peer = Arc::new(Peer { worker, address, door });
    if let Door::Encrypted { resolver, .. } = peer.door.as_ref() {
        // Each way is boxed but the one in clear, HTTP/1.1, which would carry the states of the others else: a stream that is
        // held open keeps its task's memory.
        let accept = Box::pin(resolver.accept(stream));
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(limits.handshake, accept) => shaken??,
            () = draining.cancelled() => return Ok(()),
        };
        return match shaken {
            (stream, Application::Http2) => Box::pin(http2(stream, peer, culprit, &limits, tasks, draining)).await,
            (stream, Application::Http1) => Box::pin(http1(stream, peer, culprit, &limits, draining)).await,
        };
    }
    // HTTP/2 begins with `PRI * HTTP/2.0` (RFC 9113 §3.4), which comes in one piece from every client that means it.
    if &first == b"PRI " {
        Box::pin(http2(stream, peer, culprit, &limits, tasks, draining)).await
    } else {
        http1(stream, peer, culprit, &limits, draining).await
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Serves HTTP/2; a preface that does not come in time is held against `culprit`.
async fn http2<S>(
    stream: S,
    peer: Arc<Peer>,
    culprit: Option<IpAddr>,
    limits: &ProxyLimits,
    tasks: Tasks,
    draining: &CancellationToken,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = peer.worker.shared.clone();
    let service = service_fn(move |request| {
        let peer = peer.clone();
        async move { Ok::<_, std::convert::Infallible>(pipeline::serve(peer, request).await) }
    });
    let mut builder = http2::Builder::new(TaskPerStream(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    let overdue = Arc::new(AtomicBool::new(false));
    let stream = Watched::new(stream, PrefaceInTime::new(limits.head, overdue.clone()));
    let ended = drive(builder.serve_connection(TokioIo::new(stream), service), draining).await;
    if let (Some(client), true) = (culprit, overdue.load(Ordering::Relaxed)) {
        rules::connection(&shared, client, Misdeed::HeldOpen);
    }
    Ok(ended?)
}

/// Serves HTTP/1.1; what the other side does wrong on the way is held against `culprit`.
async fn http1<S>(
    stream: S,
    peer: Arc<Peer>,
    culprit: Option<IpAddr>,
    limits: &ProxyLimits,
    draining: &CancellationToken,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let timed = Watched::new(stream, HeadInTime::new(activity.clone(), limits));
    let (seen, shared) = (activity.clone(), peer.worker.shared.clone());
    let service = service_fn(move |request| {
        activity.request();
        let (peer, activity) = (peer.clone(), activity.clone());
        async move {
            let response = pipeline::serve(peer, request).await;
            Ok::<_, std::convert::Infallible>(response.map(|body| body.telling(activity)))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        // HeadInTime keeps the deadlines.
        .header_read_timeout(None)
        .max_buf_size(limits.head_bytes.max(8 << 10));
    let ended = drive(builder.serve_connection(TokioIo::new(timed), service), draining).await;
    let misdeed = match &ended {
        _ if seen.held_open.load(Ordering::Relaxed) => Some(Misdeed::HeldOpen),
        Err(error) if error.is_parse() => Some(Misdeed::RefusedHead),
        Ok(()) | Err(_) => None,
    };
    if let (Some(client), Some(misdeed)) = (culprit, misdeed) {
        rules::connection(&shared, client, misdeed);
    }
    Ok(ended?)
}

/// Looks at the first bytes without taking them.
async fn first_bytes(stream: &TcpStream) -> io::Result<[u8; 4]> {
    let mut first = [0; 4];
    stream.peek(&mut first).await?;
    Ok(first)
}

/// Runs a connection; when the listener stops, lets it finish what it has begun.
async fn drive<C: GracefulConnection>(connection: C, draining: &CancellationToken) -> Result<(), C::Error> {
    tokio::pin!(connection);
    if let Some(result) = until_cancelled(draining, connection.as_mut()).await {
        return result;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// hyper runs every HTTP/2 request as a task of its own: on this worker's thread.
#[derive(Debug, Clone)]
struct TaskPerStream(Tasks);

impl<F> hyper::rt::Executor<F> for TaskPerStream
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn_until_end("http2 request", future);
    }
}

/// Ends a stream whose head or next request does not come in time.
struct HeadInTime {
    activity: Arc<Activity>,
    head: Duration,
    idle: Duration,
    /// The head that is being read: which one, and when it must be complete.
    reading: Option<(u32, Instant)>,
    timer: Pin<Box<Sleep>>,
}

impl HeadInTime {
    fn new(activity: Arc<Activity>, limits: &ProxyLimits) -> Self {
        let deadline = Instant::now() + limits.head;
        Self {
            activity,
            head: limits.head,
            idle: limits.keep_alive_idle,
            // The first byte is there already: the first head has begun.
            reading: Some((0, deadline)),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
        }
    }

    /// When the connection must have gone on; `None` while a request is being answered.
    fn deadline(&self) -> Option<Instant> {
        if self.activity.busy() {
            return None;
        }
        match self.reading {
            Some((number, deadline)) if number == self.activity.requests() => Some(deadline),
            _ => Some(self.activity.idle_since() + self.idle),
        }
    }
}

impl Watch for HeadInTime {
    fn came(&mut self, bytes: usize) {
        let number = self.activity.requests();
        let begun = self.reading.is_some_and(|(reading, _)| reading == number);
        if bytes > 0 && !begun && !self.activity.busy() {
            self.reading = Some((number, Instant::now() + self.head));
        }
    }

    /// hyper does not read again when an answer ends, because a read is waiting already: so the timer is kept
    /// running while a request is answered, and looks again when it fires. It is not set anew for every request.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.deadline();
            if let Some(deadline) = deadline
                && self.timer.deadline() > deadline
            {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            match deadline {
                Some(deadline) if now >= deadline => {
                    let reading = self.reading.is_some_and(|(number, _)| number == self.activity.requests());
                    self.activity.held_open.store(reading, Ordering::Relaxed);
                    return Poll::Ready(());
                }
                Some(deadline) => self.timer.as_mut().reset(deadline),
                None => {
                    let later = now + self.idle;
                    self.timer.as_mut().reset(later);
                }
            }
        }
    }
}
