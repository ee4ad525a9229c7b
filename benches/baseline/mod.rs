//! The baseline: a pass-through written with bare hyper, as little as a correct reverse proxy can do.
//!
//! Run by the bench as its own process. It must never learn anything that FLM does beyond forwarding (no key, no
//! accounting, no parsing of bodies): FLM's cost is told as a ratio to it. Changed only by ADR (docs/adr/0004).
//!
//! It has the runtime shape and socket options of FLM: hyper's HTTP/1 server in front, hyper's HTTP/1 client behind
//! a keep-alive pool, `TCP_NODELAY` on both sides, the system's allocator. With TLS (only to weigh a held stream) rustls stands in front.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::load::Spoken;
use crate::{Fault, Shape, acceptor};

/// Connections waiting to be taken over by a worker; the same bound as the listener's backlog.
const HANDOVER: usize = 1024;

/// Serves until killed; writes `listening PORT` to stdout once it can be connected to.
pub(crate) fn run(shape: Shape, spoken: Spoken, workers: usize, engine: SocketAddr) -> Result<(), Fault> {
    let acceptor = match spoken {
        Spoken::Clear => None,
        Spoken::Tls => Some(acceptor::acceptor(rustls::crypto::aws_lc_rs::default_provider())?),
    };
    match shape {
        Shape::PerCore => run_per_core(workers, engine, acceptor.as_ref()),
        Shape::WorkStealing => run_work_stealing(workers, engine, acceptor.as_ref()),
    }
}

/// One acceptor hands connections to the least loaded of several current-thread runtimes; a connection and the
/// engine connections that it uses are driven on one thread.
fn run_per_core(workers: usize, engine: SocketAddr, acceptor: Option<&TlsAcceptor>) -> Result<(), Fault> {
    let mut lanes = Vec::new();
    for number in 0..workers {
        let (sender, mut receiver) = mpsc::channel::<std::net::TcpStream>(HANDOVER);
        let (load, acceptor) = (Arc::new(AtomicUsize::new(0)), acceptor.cloned());
        lanes.push((sender, Arc::clone(&load)));
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || -> Result<(), std::io::Error> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let pool = Arc::new(Pool::new(engine));
                while let Some(stream) = receiver.recv().await {
                    let Ok(stream) = TcpStream::from_std(stream) else { continue };
                    let (pool, load, acceptor) = (Arc::clone(&pool), Arc::clone(&load), acceptor.clone());
                    tokio::spawn(async move {
                        serve_connection(stream, acceptor, pool).await;
                        load.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            });
            Ok(())
        })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = listen().await?;
        loop {
            let (stream, _peer) = listener.accept().await?;
            let stream = stream.into_std()?;
            let Some((sender, load)) = lanes.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed)) else {
                return Err("no workers".into());
            };
            load.fetch_add(1, Ordering::Relaxed);
            sender.send(stream).await.map_err(|_closed| "a worker ended")?;
        }
    })
}

/// Tokio's multi-thread runtime: any thread may drive either side of a connection; one pool for all.
fn run_work_stealing(workers: usize, engine: SocketAddr, acceptor: Option<&TlsAcceptor>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async move {
        let listener = listen().await?;
        let pool = Arc::new(Pool::new(engine));
        loop {
            let (stream, _peer) = listener.accept().await?;
            tokio::spawn(serve_connection(stream, acceptor.cloned(), Arc::clone(&pool)));
        }
    })
}

async fn listen() -> Result<TcpListener, Fault> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(std::io::stdout(), "listening {}", listener.local_addr()?.port())?;
    Ok(listener)
}

async fn serve_connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, pool: Arc<Pool>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match acceptor {
        None => serve(stream, pool).await,
        Some(acceptor) => {
            // A handshake is past when a stream is weighed: what it needs does not stay in the connection's task.
            if let Ok(stream) = Box::pin(acceptor.accept(stream)).await {
                Box::pin(serve(stream, pool)).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, pool: Arc<Pool>) {
    let service = hyper::service::service_fn(move |request| forward(request, Arc::clone(&pool)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away ends its connection; there is nobody to tell.
    let _ended = connection.await;
}

async fn forward(mut request: Request<Incoming>, pool: Arc<Pool>) -> Result<Response<PooledBody>, Fault> {
    let target = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().insert(HOST, pool.host.clone());
    let mut sender = pool.take().await?;
    let mut response = sender.send_request(request).await?;
    strip_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| PooledBody { body, lease: Some((sender, pool)) }))
}

/// Fields that belong to one connection (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, HeaderName::from_static("keep-alive"), PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

fn strip_hop_by_hop(headers: &mut http::HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Idle engine connections. Per worker in the per-core shape (its lock is then never contended), one for all in the
/// work-stealing shape.
struct Pool {
    engine: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<SendRequest<Incoming>>>,
}

impl Pool {
    fn new(engine: SocketAddr) -> Self {
        let host = HeaderValue::from_str(&engine.to_string()).unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self { engine, host, idle: Mutex::new(Vec::new()) }
    }

    async fn take(&self) -> Result<SendRequest<Incoming>, Fault> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(mut sender) => {
                    if sender.is_ready() || sender.ready().await.is_ok() {
                        return Ok(sender);
                    }
                }
                None => return self.connect().await,
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Incoming>, Fault> {
        let stream = TcpStream::connect(self.engine).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn give_back(&self, sender: SendRequest<Incoming>) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }
}

/// An engine's answer that gives its connection back when it was read to the end; dropped before that, the
/// connection is closed and the engine sees the client leave.
struct PooledBody {
    body: Incoming,
    lease: Option<(SendRequest<Incoming>, Arc<Pool>)>,
}

impl PooledBody {
    fn give_back(&mut self) {
        if let Some((sender, pool)) = self.lease.take() {
            pool.give_back(sender);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Err(_))) => self.lease = None,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        // A body with a length is not polled again after its last byte.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}
