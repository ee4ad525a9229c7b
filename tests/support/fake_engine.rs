//! A fake engine on a loopback port: replays recorded answers with their chunk borders, refuses what the real engine
//! would refuse, and can die, stall or send garbage in the middle of an answer.
//!
//! Included by test binaries with `#[path]`. It tells what it was asked and when a client left.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flm::telemetry::tasks::Tasks;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A request as the engine got it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One part of an answer's body.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends bytes as one chunk.
    Send(Bytes),
    /// Waits, as an engine that thinks.
    Wait(Duration),
    /// Waits until somebody lets it go on.
    Until(CancellationToken),
    /// Never goes on: only the client can end it.
    Stall,
    /// Closes the connection in the middle of the body.
    Die,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) steps: Vec<Step>,
    /// Time before the head of the answer.
    pub(crate) thinks: Duration,
}

impl Reply {
    /// A JSON answer.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            steps: vec![Step::Send(Bytes::from(body.to_string()))],
            thinks: Duration::ZERO,
        }
    }

    /// A server-sent event stream of these pieces.
    pub(crate) fn stream(pieces: &[&str]) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        let steps = pieces.iter().map(|piece| Step::Send(Bytes::copy_from_slice(piece.as_bytes()))).collect();
        Self { status: StatusCode::OK, headers, steps, thinks: Duration::ZERO }
    }

    /// A recorded answer, such as `llamacpp/b11434/chat_stream`, with the chunk borders of the recording.
    pub(crate) fn recorded(name: &str) -> Self {
        let file =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/engines").join(format!("{name}.http"));
        let raw = std::fs::read(&file).unwrap_or_else(|fault| panic!("{}: {fault}", file.display()));
        let end = memchr::memmem::find(&raw, b"\r\n\r\n").expect("a head") + 4;
        let head = std::str::from_utf8(&raw[..end]).expect("text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let mut headers = HeaderMap::new();
        let mut chunked = false;
        for line in lines {
            let (name, value) = line.split_once(':').expect("a header");
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            match name.as_str() {
                "transfer-encoding" => chunked = value == "chunked",
                // Framing is this server's; the recordings were made one connection each.
                "content-length" | "connection" | "date" => {}
                _ => {
                    let name: HeaderName = name.parse().expect("a header name");
                    headers.append(name, HeaderValue::from_str(value).expect("a header value"));
                }
            }
        }
        let body = &raw[end..];
        let steps = if chunked { chunks(body) } else { vec![Step::Send(Bytes::copy_from_slice(body))] };
        Self { status: status.parse().expect("a status"), headers, steps, thinks: Duration::ZERO }
    }

    /// The whole body.
    pub(crate) fn body(&self) -> Bytes {
        let parts = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_ref()),
            _ => None,
        });
        Bytes::from(parts.collect::<Vec<_>>().concat())
    }

    /// The first `pieces` pieces, then `end`.
    pub(crate) fn cut_after(mut self, pieces: usize, end: Step) -> Self {
        self.steps.truncate(pieces);
        self.steps.push(end);
        self
    }

    /// Waits before it answers.
    pub(crate) fn after(mut self, thinks: Duration) -> Self {
        self.thinks = thinks;
        self
    }
}

fn chunks(mut body: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(line) = memchr::memmem::find(body, b"\r\n") {
        let size = std::str::from_utf8(&body[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        steps.push(Step::Send(Bytes::copy_from_slice(&body[line + 2..line + 2 + size])));
        body = &body[line + 2 + size + 2..];
    }
    steps
}

type When = Box<dyn Fn(&Asked) -> bool + Send + Sync>;

/// What a fake engine answers: the first rule that fits, else `otherwise`.
pub(crate) struct Script {
    rules: Vec<(Method, String, When, Reply)>,
    otherwise: Reply,
}

impl Script {
    /// A script that gives this answer to what no rule fits.
    pub(crate) fn new(otherwise: Reply) -> Self {
        Self { rules: Vec::new(), otherwise }
    }

    /// Answers GET requests of a path (query ignored).
    pub(crate) fn get(self, path: &str, reply: Reply) -> Self {
        self.when(Method::GET, path, |_| true, reply)
    }

    /// Answers POST requests of a path.
    pub(crate) fn post(self, path: &str, reply: Reply) -> Self {
        self.when(Method::POST, path, |_| true, reply)
    }

    /// Answers POST requests whose JSON body fits.
    pub(crate) fn post_when(
        self,
        path: &str,
        fits: impl Fn(&Value) -> bool + Send + Sync + 'static,
        reply: Reply,
    ) -> Self {
        self.when(Method::POST, path, move |asked| fits(&asked.json()), reply)
    }

    /// Answers requests that fit.
    pub(crate) fn when(
        mut self,
        method: Method,
        path: &str,
        fits: impl Fn(&Asked) -> bool + Send + Sync + 'static,
        reply: Reply,
    ) -> Self {
        self.rules.push((method, path.to_owned(), Box::new(fits), reply));
        self
    }

    /// Answers the first request of a path with the first reply, the next with the next; the last one stays.
    pub(crate) fn in_turn(mut self, method: &Method, path: &str, replies: Vec<Reply>) -> Self {
        let turn = Arc::new(AtomicUsize::new(0));
        let last = replies.len() - 1;
        for (index, reply) in replies.into_iter().enumerate() {
            let turn = turn.clone();
            let its_turn = move |_: &Asked| {
                let next = if index == last { index } else { index + 1 };
                turn.compare_exchange(index, next, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            };
            self = self.when(method.clone(), path, its_turn, reply);
        }
        self
    }

    /// Puts a rule before all others.
    pub(crate) fn first(self, method: Method, path: &str, reply: Reply) -> Self {
        self.first_when(method, path, |_| true, reply)
    }

    /// Puts a rule for requests that fit before all others.
    pub(crate) fn first_when(
        mut self,
        method: Method,
        path: &str,
        fits: impl Fn(&Asked) -> bool + Send + Sync + 'static,
        reply: Reply,
    ) -> Self {
        self.rules.insert(0, (method, path.to_owned(), Box::new(fits), reply));
        self
    }

    fn reply(&self, asked: &Asked) -> &Reply {
        let path = asked.path.split('?').next().unwrap_or_default();
        let fits = |(method, at, when, _): &&(Method, String, When, Reply)| {
            *method == asked.method && at == path && when(asked)
        };
        self.rules.iter().find(fits).map_or(&self.otherwise, |(_, _, _, reply)| reply)
    }
}

/// What the engine saw so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) asked: Vec<Asked>,
    /// Answers that were not read to their end.
    pub(crate) left: usize,
    /// Answers that were.
    pub(crate) completed: usize,
}

/// A running fake engine. Dropping it closes its port and its connections.
pub(crate) struct FakeEngine {
    pub(crate) address: SocketAddr,
    seen: watch::Receiver<Seen>,
    tasks: Tasks,
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.tasks.ending().cancel();
    }
}

impl FakeEngine {
    /// Starts on a free port of 127.0.0.1.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new();
        let (sender, seen) = watch::channel(Seen::default());
        let shared = Arc::new(Shared { script, seen: Mutex::new(sender) });
        let connections = tasks.clone();
        tasks.spawn_until_end("fake engine", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _unsupported_is_fine = stream.set_nodelay(true);
                let shared = shared.clone();
                connections.spawn_until_end("fake engine's connection", async move {
                    let service = hyper::service::service_fn(move |request| answer(shared.clone(), request));
                    // A client that leaves ends the connection with an error, which the body has noticed.
                    let _left = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, seen, tasks }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what was seen fits.
    pub(crate) async fn wait_until(&self, fits: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(fits)).await;
        waited.expect("it happens within the patience of a test").expect("the engine runs").clone()
    }
}

struct Shared {
    script: Script,
    seen: Mutex<watch::Sender<Seen>>,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).send_modify(change);
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Replay>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let asked = Asked { method: head.method, path, headers: head.headers, body };
    let reply = shared.script.reply(&asked).clone();
    shared.note(|seen| seen.asked.push(asked));
    // Made before it thinks, so that a client that leaves meanwhile is counted too.
    let body =
        Replay { steps: reply.steps.into_iter().collect(), waits: None, completed: false, written: false, shared };
    if !reply.thinks.is_zero() {
        tokio::time::sleep(reply.thinks).await;
    }
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

/// The body of an answer, step by step; tells when it is dropped before its end.
struct Replay {
    steps: std::collections::VecDeque<Step>,
    waits: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    completed: bool,
    /// Whether the last poll gave a piece.
    written: bool,
    shared: Arc<Shared>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        let completed = self.completed || self.steps.is_empty();
        self.shared.note(|seen| if completed { seen.completed += 1 } else { seen.left += 1 });
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(waits) = &mut self.waits {
                match waits.as_mut().poll(cx) {
                    Poll::Ready(()) => self.waits = None,
                    Poll::Pending => return Poll::Pending,
                }
            }
            // A pause makes the server write out what it has: each piece travels on its own, and none is lost when
            // the engine dies.
            if self.written && !self.steps.is_empty() {
                self.written = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.steps.front().cloned() {
                None => {
                    self.completed = true;
                    return Poll::Ready(None);
                }
                Some(Step::Send(bytes)) => {
                    self.steps.pop_front();
                    self.written = true;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Wait(span)) => {
                    self.steps.pop_front();
                    self.waits = Some(Box::pin(tokio::time::sleep(span)));
                }
                Some(Step::Until(gate)) => {
                    self.steps.pop_front();
                    self.waits = Some(Box::pin(gate.cancelled_owned()));
                }
                // Only the end of the connection wakes it, by dropping it.
                Some(Step::Stall) => return Poll::Pending,
                Some(Step::Die) => return Poll::Ready(Some(Err(io::Error::other("the fake engine dies")))),
            }
        }
    }
}
