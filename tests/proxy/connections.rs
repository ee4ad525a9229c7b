//! Connections: deadlines, draining, HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use flm::proxy::client_address::TrustedProxies;
use flm::proxy::limits::ProxyLimits;
use flm::types::address::{ListedNetwork, parse_network};
use flm::types::audit::AuditKind;
use flm::types::calls::addresses::NetworkList;
use flm::types::clock::UnixMillis;
use flm::types::key::KeyLimits;
use flm::types::listener::ListenerPhase;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Proxy;
use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};

/// Sends raw bytes and reads until the answer's head and what follows it stop coming.
pub(crate) async fn raw(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let (mut reader, mut writer) = stream.split();
    let mut answer = vec![0; 4096];
    // The proxy may answer and close before it has read everything, so both go on at once.
    let (_sent, read) = tokio::join!(writer.write_all(bytes), tokio::time::timeout(PATIENCE, reader.read(&mut answer)));
    let read = read.expect("in time").unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Waits until the proxy closes.
async fn closes(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time");
    assert!(end.is_ok() || rest.is_empty());
}

fn quick() -> ProxyLimits {
    ProxyLimits {
        first_byte: Duration::from_millis(100),
        head: Duration::from_millis(200),
        body_idle: Duration::from_millis(200),
        keep_alive_idle: Duration::from_millis(300),
        ..ProxyLimits::default()
    }
}

#[tokio::test]
async fn silent_slow_and_idle_peers_are_closed_by_their_deadlines() {
    let proxy = Proxy::with(quick(), KeyLimits::default());
    let mut silent = TcpStream::connect(proxy.address()).await.expect("connects");
    let mut half_head = TcpStream::connect(proxy.address()).await.expect("connects");
    half_head.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.expect("writes");
    let mut half_preface = TcpStream::connect(proxy.address()).await.expect("connects");
    half_preface.write_all(b"PR").await.expect("writes");
    let mut idle = TcpStream::connect(proxy.address()).await.expect("connects");
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("writes");
    let mut answer = [0; 512];
    let read = idle.read(&mut answer).await.expect("reads");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    for (name, stream) in
        [("silent", &mut silent), ("half head", &mut half_head), ("preface", &mut half_preface), ("idle", &mut idle)]
    {
        println!("{name}");
        closes(stream).await;
    }
    assert_eq!(proxy.get("/v1/models").await.status, 200, "others are served meanwhile");
}

#[tokio::test]
async fn a_slow_head_is_closed_although_it_never_pauses_for_long() {
    let proxy = Proxy::with(quick(), KeyLimits::default());
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        loop {
            if writer.write_all(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = drip => {}
        end = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut rest)) => drop(end.expect("closed in time")),
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let proxy = Proxy::with(quick(), KeyLimits::default());
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        proxy.key
    );
    let answer = raw(&proxy, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_connection_may_pause_between_requests_longer_than_a_head_may_take() {
    let limits = ProxyLimits { keep_alive_idle: Duration::from_secs(60), ..quick() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    for pause in [0, 400] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("writes");
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).await.expect("reads");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "after {pause} ms");
    }
}

#[tokio::test]
async fn stopping_refuses_new_connections_and_lets_a_stream_end() {
    let proxy = Proxy::start();
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
    reply.steps.insert(3, Step::Wait(Duration::from_millis(500)));
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let response = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat))).await;
    let address = proxy.address();
    let (text, ()) = tokio::join!(
        async { response.into_body().collect().await.expect("the whole stream").to_bytes() },
        proxy.service.stop(Duration::from_secs(30)),
    );
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    assert!(!String::from_utf8_lossy(&text).contains("\"error\""));
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    assert!(matches!(proxy.service.status().phase, ListenerPhase::Draining { connections: 0 }));
}

#[tokio::test]
async fn stopping_cuts_what_does_not_end_in_time() {
    let proxy = Proxy::start();
    let reply = Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall);
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let response = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat))).await;
    proxy.service.stop(Duration::from_millis(100)).await;
    assert!(tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("in time").is_err());
    engine.wait_until(|seen| seen.left == 1).await;
}

#[tokio::test]
async fn http2_is_served_on_the_same_port() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.expect("handshake");
    let driver = flm::telemetry::tasks::Tasks::new();
    driver.spawn_until_end("client", connection);
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    for _ in 0..2 {
        let request = http::Request::post(format!("http://localhost:{}/v1/chat/completions", proxy.address().port()))
            .header("authorization", format!("Bearer {}", proxy.key))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(chat.to_string())))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
        let text = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(text.ends_with(b"data: [DONE]\n\n"));
    }
}

/// A connection that is held open after its first answer.
async fn served(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("writes");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("served");
    assert_eq!(&answer, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn one_address_cannot_take_all_connections_unless_it_is_trusted() {
    let limits = ProxyLimits { connections_per_address: 2, ..ProxyLimits::default() };
    let proxy = Proxy::with(limits.clone(), KeyLimits::default());
    let held = [served(&proxy).await, served(&proxy).await];
    let mut third = TcpStream::connect(proxy.address()).await.expect("connects");
    let mut told = String::new();
    drop(tokio::time::timeout(PATIENCE, third.read_to_string(&mut told)).await.expect("closed in time"));
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("\"overloaded\""), "{told}");
    let mut fourth = TcpStream::connect(proxy.address()).await.expect("connects");
    drop(tokio::time::timeout(PATIENCE, fourth.read_to_string(&mut told)).await.expect("closed in time"));
    drop(held);
    let alerts: Vec<_> =
        proxy.audited.take().into_iter().filter(|event| event.kind == AuditKind::ResourceAlert).collect();
    assert_eq!(alerts.len(), 1, "the operator is told why, and once: {alerts:?}");
    assert!(alerts[0].details.contains("may hold 2 (limits.connections_per_address)"), "{alerts:?}");

    // A proxy that is trusted carries others, and who is trusted is the operator.
    let here = parse_network("127.0.0.1").expect("a network");
    let trusted_proxies = TrustedProxies { networks: vec![here], ..TrustedProxies::default() };
    let behind = Proxy::with(ProxyLimits { trusted_proxies, ..limits.clone() }, KeyLimits::default());
    let own = Proxy::with(limits, KeyLimits::default());
    let listed = ListedNetwork { network: here, note: String::new(), created: UnixMillis(0) };
    own.shared.guard.load_networks(NetworkList::Trusted, &[listed]);
    for proxy in [&behind, &own] {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(served(proxy).await);
        }
    }
}
