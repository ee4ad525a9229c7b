//! The pooled client against engines of good and bad manners, over real sockets.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::egress::Egress;
use super::message::Outgoing;
use super::pool::{Pool, PoolConfig, Repeat, SendError};
use super::upstream::Upstream;
use crate::telemetry::tasks::Tasks;

const PATIENCE: Duration = Duration::from_secs(10);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An engine that is played by `script`, one connection after the other as it likes.
async fn engine<F, R>(script: impl FnOnce(TcpListener) -> F) -> (Upstream, Pool, JoinHandle<R>)
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    let upstream = Upstream::parse(&format!("http://{address}")).expect("a URL");
    let pool = Pool::new(PoolConfig::default(), Egress::direct(), Tasks::new());
    (upstream, pool, Tasks::new().spawn("engine", script(listener)))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("accepts").0
}

/// Reads up to the end of a head.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).await.expect("reads"), 1, "the client closed");
        seen.push(byte[0]);
    }
    String::from_utf8(seen).expect("text")
}

fn request(method: Method, body: Bytes) -> Outgoing {
    Outgoing { method, target: "/v1".into(), fields: Vec::new(), body }
}

/// Sends and reads to the end.
async fn ask(
    pool: &Pool,
    upstream: &Upstream,
    request: Outgoing,
    repeat: Repeat,
) -> Result<(StatusCode, Result<Bytes, String>), SendError> {
    let sent = async {
        let answered = pool.send(upstream, request, repeat).await?;
        let body = answered.body.collect().await.map(http_body_util::Collected::to_bytes);
        Ok((answered.status, body.map_err(|fault| fault.to_string())))
    };
    tokio::time::timeout(PATIENCE, sent).await.expect("in time")
}

async fn get(pool: &Pool, upstream: &Upstream) -> Result<(StatusCode, Result<Bytes, String>), SendError> {
    ask(pool, upstream, request(Method::GET, Bytes::new()), Repeat::ByMethod).await
}

async fn joined<R>(engine: JoinHandle<R>) -> R {
    tokio::time::timeout(PATIENCE, engine).await.expect("in time").expect("joins")
}

/// Larger than what two sockets take without a reader.
fn large() -> Bytes {
    Bytes::from(vec![b'x'; 16 << 20])
}

#[tokio::test]
async fn a_request_is_written_once_and_whole() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut stream = accept(&listener).await;
        let head = read_head(&mut stream).await;
        let mut body = vec![0; 16 << 20];
        stream.read_exact(&mut body).await.expect("reads");
        stream.write_all(OK).await.expect("writes");
        (head, body, stream)
    })
    .await;
    let host = upstream.address();
    let answer = ask(&pool, &upstream, request(Method::POST, large()), Repeat::ByMethod).await;
    assert_eq!(answer.expect("answers"), (StatusCode::OK, Ok(Bytes::from_static(b"ok"))));
    let (head, body, _open) = joined(engine).await;
    assert_eq!(head, format!("POST /v1 HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n", 16 << 20));
    assert!(body == large());
    assert_eq!(pool.idle(), 1);
}

#[tokio::test]
async fn an_answer_may_begin_while_the_request_is_still_sent() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n").await.expect("writes");
        let mut body = vec![0; 16 << 20];
        stream.read_exact(&mut body).await.expect("reads");
        stream.write_all(b"5\r\n late\r\n0\r\n\r\n").await.expect("writes");
        read_head(&mut stream).await;
        stream.write_all(OK).await.expect("writes");
        stream
    })
    .await;
    let sent = pool.send(&upstream, request(Method::POST, large()), Repeat::ByMethod);
    let answered = tokio::time::timeout(PATIENCE, sent).await.expect("in time").expect("answers");
    let body = tokio::time::timeout(PATIENCE, answered.body.collect()).await.expect("in time");
    assert_eq!(body.expect("reads").to_bytes(), "early late");
    assert_eq!(pool.idle(), 1, "everything was sent and read");
    let again = get(&pool, &upstream).await;
    assert_eq!(again.expect("answers").0, StatusCode::OK);
    drop(joined(engine).await);
}

#[tokio::test]
async fn an_early_refusal_is_told_and_its_connection_is_not_used_again() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge").await.expect("writes");
        // Without reading the body.
        stream
    })
    .await;
    let answer = ask(&pool, &upstream, request(Method::POST, large()), Repeat::ByMethod).await;
    assert_eq!(answer.expect("answers"), (StatusCode::PAYLOAD_TOO_LARGE, Ok(Bytes::from_static(b"large"))));
    assert_eq!(pool.idle(), 0);
    drop(joined(engine).await);
}

/// Answers the first request of a connection, reads the second one and closes; then `fresh` connections that each do as `then`
/// says. Answers how many connections came.
async fn forgetful(listener: TcpListener, fresh: usize, then: &'static [u8]) -> usize {
    let mut stream = accept(&listener).await;
    read_head(&mut stream).await;
    stream.write_all(OK).await.expect("writes");
    read_head(&mut stream).await;
    drop(stream);
    for _ in 0..fresh {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(then).await.expect("writes");
    }
    // Whoever would come once more is in the backlog by the time in which the client has its answer.
    1 + fresh
}

#[tokio::test]
async fn a_connection_that_dies_before_its_answer_is_replaced_once_where_nothing_is_changed_by_it() {
    for (method, repeat, repeated) in [
        (Method::POST, Repeat::Harmless, true),
        (Method::GET, Repeat::ByMethod, true),
        (Method::DELETE, Repeat::ByMethod, true),
        (Method::POST, Repeat::ByMethod, false),
    ] {
        let fresh = usize::from(repeated);
        let (upstream, pool, engine) = engine(move |listener| forgetful(listener, fresh, OK)).await;
        let first = ask(&pool, &upstream, request(method.clone(), Bytes::new()), repeat).await;
        assert_eq!((first.expect("answers").0, pool.idle()), (StatusCode::OK, 1));
        let second = ask(&pool, &upstream, request(method.clone(), Bytes::new()), repeat).await;
        match second {
            Ok((status, _)) => assert!(status == StatusCode::OK && repeated, "{method}"),
            Err(error) => {
                assert!(matches!(error, SendError::BeforeAnswer { .. }) && !repeated, "{method} {error}");
            }
        }
        joined(engine).await;
    }
}

#[tokio::test]
async fn a_fresh_connection_that_dies_too_is_the_end_of_it() {
    let (upstream, pool, engine) = engine(|listener| forgetful(listener, 1, b"")).await;
    let _ok = get(&pool, &upstream).await.expect("answers");
    let error = get(&pool, &upstream).await.expect_err("two died");
    assert!(error.to_string().contains("the connection was closed"), "{error}");
    assert_eq!(joined(engine).await, 2);
}

#[tokio::test]
async fn a_request_is_not_repeated_once_the_answer_has_begun() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(OK).await.expect("writes");
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 2").await.expect("writes");
    })
    .await;
    let _ok = get(&pool, &upstream).await.expect("answers");
    let error = get(&pool, &upstream).await.expect_err("cut");
    assert!(error.to_string().contains("in the middle"), "{error}");
    joined(engine).await;
}

#[tokio::test]
async fn whatever_an_engine_says_after_its_answer_costs_it_the_connection() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut first = accept(&listener).await;
        read_head(&mut first).await;
        // An answer to a question that nobody asked: the next client would get it.
        first.write_all(&[OK, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"].concat()).await.expect("writes");
        let mut second = accept(&listener).await;
        read_head(&mut second).await;
        second.write_all(OK).await.expect("writes");
        (first, second)
    })
    .await;
    for _ in 0..2 {
        let answer = get(&pool, &upstream).await;
        assert_eq!(answer.expect("answers").1, Ok(Bytes::from_static(b"ok")));
    }
    drop(joined(engine).await);
}

#[tokio::test]
async fn an_unasked_answer_of_an_idle_connection_is_never_taken_for_one() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut first = accept(&listener).await;
        read_head(&mut first).await;
        first.write_all(OK).await.expect("writes");
        // As servers do that give up waiting (RFC 9110 §15.5.9).
        first.write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await.expect("writes");
        let mut second = accept(&listener).await;
        read_head(&mut second).await;
        second.write_all(OK).await.expect("writes");
        (first, second)
    })
    .await;
    let _ok = get(&pool, &upstream).await.expect("answers");
    // The 408 has come when nothing is idle any more; a client that is faster takes it for its answer, as RFC 9112 §9.3.1 has it.
    let (status, _body) = get(&pool, &upstream).await.expect("answers");
    if status == StatusCode::REQUEST_TIMEOUT {
        let _ok = get(&pool, &upstream).await.expect("answers");
    }
    drop(joined(engine).await);
}

#[tokio::test]
async fn every_hostile_answer_is_an_error_and_its_connection_is_closed() {
    let endless_head = [&b"HTTP/1.1 200 OK\r\nx: "[..], &b"a".repeat(80 << 10)].concat();
    let endless_interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let many_fields = [&b"HTTP/1.1 200 OK\r\n"[..], &b"a: b\r\n".repeat(101), b"\r\n"].concat();
    for (name, says) in [
        ("nothing", &b""[..]),
        ("garbage", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le"),
        ("an endless head", &endless_head),
        ("too many fields", &many_fields),
        ("endless interim answers", &endless_interim),
        ("a switch of protocols", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ("a length and chunks", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("another coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("a folded field", b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n"),
        ("less than its length", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
        ("a chunk cut off", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal"),
        ("no last chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n"),
        ("a bad chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n-1\r\n"),
        ("a huge chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n"),
    ] {
        let says = says.to_vec();
        let (upstream, pool, engine) = engine(move |listener| async move {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            // Whoever refuses it leaves before its end.
            let _left = stream.write_all(&says).await;
        })
        .await;
        match ask(&pool, &upstream, request(Method::GET, Bytes::new()), Repeat::Harmless).await {
            Err(SendError::BeforeAnswer { .. }) | Ok((StatusCode::OK, Err(_))) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(pool.idle(), 0, "{name}");
        joined(engine).await;
    }
}

#[tokio::test]
async fn what_came_before_a_broken_end_is_given_before_the_error() {
    let (upstream, pool, engine) = engine(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\nnonsense";
        stream.write_all(answer).await.expect("writes");
        stream
    })
    .await;
    let sent = pool.send(&upstream, request(Method::GET, Bytes::new()), Repeat::ByMethod).await;
    let mut body = sent.expect("answers").body;
    assert_eq!(body.frame().await.expect("a frame").expect("data").into_data().expect("data"), "first");
    assert!(body.frame().await.expect("a frame").is_err());
    assert!(body.frame().await.is_none());
    drop(joined(engine).await);
}
