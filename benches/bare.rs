//! The TLS bench's baseline: hyper, and rustls in front of it or nothing, in the shape of FLM (ADR 4).
//!
//! One acceptor hands each connection to the thread with the fewest. Run by `benches/tls.rs` and by the program in `benches/ring`,
//! each as a process of its own.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Serves until killed, with TLS when there is an acceptor; the port is the first line on stdout.
pub(crate) fn serve(acceptor: Option<&TlsAcceptor>) {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut lanes = Vec::new();
    for _ in 0..workers {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::net::TcpStream>(1024);
        let (load, acceptor) = (Arc::new(AtomicUsize::new(0)), acceptor.cloned());
        lanes.push((sender, load.clone()));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                while let Some(stream) = receiver.recv().await {
                    let stream = TcpStream::from_std(stream).expect("a stream of this runtime");
                    let (load, acceptor) = (load.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        if let Some(acceptor) = acceptor {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream).await;
                            }
                        } else {
                            answer(stream).await;
                        }
                        load.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            });
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listens");
        println!("{}", listener.local_addr().expect("an address").port());
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("sets it");
            let (lane, load) = lanes.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed)).expect("a worker");
            load.fetch_add(1, Ordering::Relaxed);
            lane.send(stream.into_std().expect("a stream")).await.expect("a worker");
        }
    });
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = hyper::service::service_fn(|_request| async {
        let answer = Response::builder().header("content-type", "application/json");
        answer.body(Full::new(Bytes::from_static(b"{\"status\":\"ok\"}"))).map_err(|_| "no answer")
    });
    let _left = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
