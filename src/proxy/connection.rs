//! Serves one client connection: first byte, HTTP/1.1 or HTTP/2, deadlines, graceful end (SPEC §4.6, §4.7).
//!
//! hyper's own header timer cannot tell a slow head (10 s) from an idle keep-alive (75 s), so the stream under it
//! keeps time: [`Activity`] says what the connection is doing.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::answer::AnswerBody;
use super::client_address::ProxyProtocol;
use super::connection_limits::{ConnectionLimits, Permit};
use super::door::Door;
use super::exchange::{AddressBy, Peer};
use super::frames::{Conduct, FramesInTime, Observed};
use super::framing::{FramedTwice, HeadLines};
use super::limits::ProxyLimits;
use super::rules::{self, Misdeed};
use super::service::Open;
use super::watched::{TooMuch, Watch, Watched};
use super::worker::Worker;
use super::{pipeline, proxy_protocol};
use crate::net::socket::Socket;
use crate::telemetry::tasks::{Tasks, until_cancelled};
use crate::tls::resolver::{Application, Resolver};
use crate::types::address::canonical;

/// Header lines of one head: hyper's own limit, ten times what any client sends (SECURITY.md §H).
const HEADERS: usize = 100;
/// Requests that one HTTP/2 connection may run at once (SECURITY.md §H: 64 leaves floods without room).
const HTTP2_STREAMS: u32 = 64;
/// Largest head in HTTP/2 (SECURITY.md §H, CONTINUATION flood).
const HTTP2_HEAD: u32 = 32 << 10;
/// Streams that a client reset before they were looked at: h2's own limit, which ends rapid resets (CVE-2023-44487).
const HTTP2_RESETS: usize = 20;
/// Streams of one connection that the client made the server reset by faults of its own: hyper's limit (RUSTSEC-2024-0003).
const HTTP2_ERRORS: usize = 1024;
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
    /// A head told a length and a coding of its body.
    framed_twice: AtomicBool,
    /// An answer went to the holder of a valid key.
    known: AtomicBool,
    /// Whole answers that wait to be written, and when that began or one of them was, milliseconds since it was opened.
    unsent: AtomicU32,
    unsent_since: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            held_open: AtomicBool::new(false),
            framed_twice: AtomicBool::new(false),
            known: AtomicBool::new(false),
            unsent: AtomicU32::new(0),
            unsent_since: AtomicU64::new(0),
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request's head is complete.
    fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer is written or dropped.
    pub(super) fn answered(&self) {
        self.idle_since.store(self.milliseconds(), Ordering::Relaxed);
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Whoever holds the connection has a valid key.
    pub(super) fn known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// A whole answer waits to be written; an HTTP/2 client may give it no room.
    pub(super) fn waits(&self) {
        if self.unsent.fetch_add(1, Ordering::Relaxed) == 0 {
            self.unsent_since.store(self.milliseconds(), Ordering::Relaxed);
        }
    }

    /// It waits no more.
    pub(super) fn waited(&self) {
        self.unsent.fetch_sub(1, Ordering::Relaxed);
        self.unsent_since.store(self.milliseconds(), Ordering::Relaxed);
    }

    /// Since when whole answers wait and none is written; `None` while none waits.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.unsent_since.load(Ordering::Relaxed));
        (self.unsent.load(Ordering::Relaxed) > 0).then(|| self.opened + since)
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn busy(&self) -> bool {
        self.requests() != self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn idle_since(&self) -> Instant {
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
    // Its parts stay where they are: moved out, each would have a second place in a task that is kept as long as a stream is.
    let (_open, peer) = (worker.shard.connection_opened(), incoming.peer);
    let result =
        until_cancelled(&incoming.killed, run(worker, incoming.stream, peer, incoming.door, &incoming.draining)).await;
    if let Some(Err(error)) = result {
        // Clients break off all the time: worth nothing but a debug line.
        tracing::debug!(%peer, %error, "a connection ended");
    }
    drop((incoming.permit, incoming.open));
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
        let spoken = match door.as_ref() {
            // Without a look, which costs a call: the handshake tells.
            Door::Encrypted { resolver, .. } => {
                stream.readable().await?;
                Spoken::Encrypted(resolver.clone())
            }
            Door::Clear | Door::Signpost { .. } => Spoken::InClear(protocol(&stream).await?),
        };
        io::Result::Ok((client, spoken))
    };
    // A listener that stops does not wait for somebody who has said nothing.
    let (client, spoken) = tokio::select! {
        began = tokio::time::timeout(limits.first_byte, beginning) => began??,
        () = draining.cancelled() => return Ok(()),
    };
    // A proxy that is trusted holds nothing open by itself: whoever does stands behind it.
    let culprit = if announced || !proxies.trusts(address.ip()) { Culprit::Peer } else { Culprit::Unknown };
    let told = if announced { AddressBy::ProxyProtocol } else { AddressBy::Socket };
    let address = client.unwrap_or_else(|| canonical(address.ip()));
    let peer = Peer::new(worker, address, told, door, draining.clone());
    // HTTP/2 and handshakes are boxed: HTTP/1.1 would carry their states else, and a stream that is held open keeps its task's
    // memory.
    match spoken {
        Spoken::Encrypted(resolver) => {
            let accept = Box::pin(resolver.accept(stream));
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(limits.handshake, accept) => shaken??,
                () = draining.cancelled() => return Ok(()),
            };
            match shaken {
                (stream, Application::Http2) => Box::pin(http2(stream, peer, culprit, &limits, tasks, draining)).await,
                (stream, Application::Http1) => http1(stream, peer, culprit, &limits, draining).await,
            }
        }
        Spoken::InClear(Application::Http2) => {
            Box::pin(http2(Socket::new(stream), peer, culprit, &limits, tasks, draining)).await
        }
        Spoken::InClear(Application::Http1) => http1(Socket::new(stream), peer, culprit, &limits, draining).await,
    }
}

/// What a client that said its first byte speaks.
enum Spoken {
    /// TLS: what is in it, its handshake tells.
    Encrypted(Arc<Resolver>),
    /// One of these, in clear.
    InClear(Application),
}

/// Who did what a connection did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Culprit {
    /// Its other side.
    Peer,
    /// Somebody behind a proxy that is trusted: who, only the heads of requests tell.
    Unknown,
}

fn hold_against(peer: &Peer, culprit: Culprit, misdeed: Option<Misdeed>) {
    if let (Culprit::Peer, Some(misdeed)) = (culprit, misdeed) {
        let standing = peer.standing(peer.address, &HeaderMap::new());
        rules::connection(&peer.worker.shared, peer.address, standing, misdeed);
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Serves HTTP/2; what the other side does wrong on the way is held against `culprit`.
async fn http2<S>(
    stream: S,
    peer: Peer,
    culprit: Culprit,
    limits: &ProxyLimits,
    tasks: Tasks,
    draining: &CancellationToken,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let (observed, ending) = (Arc::new(Observed::default()), draining.child_token());
    let peer = Arc::new(peer.over_http2(ending.clone()));
    let rest = Rest::new(activity.clone(), limits, peer.worker.shared.connections.clone());
    let watch = FramesInTime::new(limits, activity.clone(), rest, observed.clone(), ending.clone());
    let served = peer.clone();
    let service = service_fn(move |request| {
        activity.request();
        let (peer, answering) = (served.clone(), Answering(Some(activity.clone())));
        async move {
            let response = pipeline::serve(peer, request).await;
            Ok::<_, std::convert::Infallible>(answering.with(response))
        }
    });
    let mut builder = http2::Builder::new(TaskPerStream(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD)
        .max_pending_accept_reset_streams(HTTP2_RESETS)
        .max_local_error_reset_streams(HTTP2_ERRORS)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    let stream = Watched::new(stream, watch, limits.keep_alive_idle);
    let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = drive(connection, &ending).await;
    let misdeed = match observed.conduct() {
        Conduct::HeldOpen => Some(Misdeed::HeldOpen),
        Conduct::Flood => Some(Misdeed::Flood),
        Conduct::Fair => ended.as_ref().err().filter(|error| h2_was_flooded(error)).map(|_| Misdeed::Flood),
    };
    hold_against(&peer, culprit, misdeed);
    Ok(ended?)
}

/// Whether h2 ended a connection for a flood: of resets, CONTINUATION or empty DATA. Its error has no type here, and says so in
/// the words of its reason (RFC 9113 §7, `ENHANCE_YOUR_CALM`).
fn h2_was_flooded(error: &hyper::Error) -> bool {
    let words = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    words.starts_with("connection error detected") && words.contains("excessive load")
}

/// A request of HTTP/2 that is being answered; one whose stream was reset is dropped with this.
struct Answering(Option<Arc<Activity>>);

impl Answering {
    fn with(mut self, response: http::Response<AnswerBody>) -> http::Response<AnswerBody> {
        match self.0.take() {
            Some(activity) => response.map(|body| body.telling_what_waits(activity)),
            None => response,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(activity) = &self.0 {
            activity.answered();
        }
    }
}

/// Serves HTTP/1.1; what the other side does wrong on the way is held against `culprit`.
///
/// No `async fn`: what such a one is given keeps a place of its own in the task beside the one that it is moved to.
fn http1<S>(
    stream: S,
    peer: Peer,
    culprit: Culprit,
    limits: &ProxyLimits,
    draining: &CancellationToken,
) -> impl Future<Output = Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (activity, peer) = (Arc::new(Activity::new()), Arc::new(peer));
    let (seen, served) = (activity.clone(), peer.clone());
    let rest = Rest::new(activity.clone(), limits, peer.worker.shared.connections.clone());
    let timed = Watched::new(stream, HeadInTime::new(activity.clone(), limits, rest), limits.keep_alive_idle);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        activity.request();
        if activity.framed_twice.load(Ordering::Relaxed) {
            request.extensions_mut().insert(FramedTwice);
        }
        let (peer, activity) = (served.clone(), activity.clone());
        async move {
            let response = pipeline::serve(peer, request).await;
            Ok::<_, std::convert::Infallible>(response.map(|body| body.telling(activity)))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        // HeadInTime keeps the deadlines.
        .header_read_timeout(None)
        // The buffer's size alone lets through what comes in one piece with the end of its head.
        .max_header_size(limits.head_bytes)
        .max_headers(HEADERS)
        .max_buf_size(limits.head_bytes.max(8 << 10));
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(timed), service));
    async move {
        let ended = drive(connection.as_mut(), draining).await;
        let misdeed = match &ended {
            _ if seen.held_open.load(Ordering::Relaxed) => Some(Misdeed::HeldOpen),
            Err(error) if error.is_parse() => Some(Misdeed::RefusedHead),
            Ok(()) | Err(_) => None,
        };
        hold_against(&peer, culprit, misdeed);
        Ok(ended?)
    }
}

/// Looks at the first bytes without taking them. HTTP/2 begins with `PRI * HTTP/2.0` (RFC 9113 §3.4), which comes in one piece from
/// every client that means it.
async fn protocol(stream: &TcpStream) -> io::Result<Application> {
    let mut first = [0; 4];
    stream.peek(&mut first).await?;
    Ok(if &first == b"PRI " { Application::Http2 } else { Application::Http1 })
}

/// Runs a connection; when the listener stops, lets it finish what it has begun. Pinned by its caller: given by value it would
/// have two places in the task.
async fn drive<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    draining: &CancellationToken,
) -> Result<(), C::Error> {
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

/// How long a connection may rest between requests. When places run short, one whose holder never showed a valid key may not
/// longer than a head may take: a few addresses could hold all there are else, with a request a minute each.
pub(super) struct Rest {
    activity: Arc<Activity>,
    idle: Duration,
    short: Duration,
    connections: Arc<ConnectionLimits>,
    in_all: u32,
}

impl Rest {
    fn new(activity: Arc<Activity>, limits: &ProxyLimits, connections: Arc<ConnectionLimits>) -> Self {
        let (idle, short) = (limits.keep_alive_idle, limits.head.min(limits.keep_alive_idle));
        Self { activity, idle, short, connections, in_all: limits.connections }
    }

    /// When it must have gone on.
    pub(super) fn until(&self) -> Instant {
        let is_stranger = !self.activity.known.load(Ordering::Relaxed);
        let gives_way = is_stranger && self.connections.are_short(self.in_all);
        self.activity.idle_since() + if gives_way { self.short } else { self.idle }
    }

    /// When to look again: what holds now may not hold then.
    pub(super) fn look(&self, now: Instant) -> Instant {
        now + self.short
    }
}

/// Ends a stream whose head or next request does not come in time.
struct HeadInTime {
    activity: Arc<Activity>,
    head: Duration,
    rest: Rest,
    /// The head that is being read: which one, and when it must be complete. That is reckoned when something is missing of it: most come
    /// in one piece.
    reading: Option<(u32, Option<Instant>)>,
    timer: Pin<Box<Sleep>>,
    lines: HeadLines,
}

impl HeadInTime {
    fn new(activity: Arc<Activity>, limits: &ProxyLimits, rest: Rest) -> Self {
        let deadline = Instant::now() + limits.head;
        Self {
            activity,
            head: limits.head,
            rest,
            // The first byte is there already: the first head has begun.
            reading: Some((0, Some(deadline))),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            lines: HeadLines::default(),
        }
    }

    /// When the connection must have gone on; `None` while a request is being answered.
    fn deadline(&mut self) -> Option<Instant> {
        if self.activity.busy() {
            return None;
        }
        let head = self.head;
        match &mut self.reading {
            Some((number, deadline)) if *number == self.activity.requests() => {
                Some(*deadline.get_or_insert_with(|| Instant::now() + head))
            }
            _ => Some(self.rest.until()),
        }
    }
}

impl Watch for HeadInTime {
    fn came(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        let number = self.activity.requests();
        let begun = self.reading.is_some_and(|(reading, _)| reading == number);
        if !bytes.is_empty() && !begun && !self.activity.busy() {
            self.reading = Some((number, None));
        }
        if self.lines.take(bytes) {
            self.activity.framed_twice.store(true, Ordering::Relaxed);
        }
        Ok(())
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
                Some(deadline) => self.timer.as_mut().reset(deadline.min(self.rest.look(now))),
                None => self.timer.as_mut().reset(self.rest.look(now)),
            }
        }
    }
}
