//! Two requests where somebody else sees one, and headers that are none of the other side's business (SPEC §5.14; SECURITY.md,
//! cases 22 and 32).

use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::key::{KeyLimits, Right};
use http::{HeaderName, HeaderValue, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply};
use crate::{Proxy, rights};

const CHAT: &str = r#"{"model":"flm-tiny","messages":[{"role":"user","content":"hi"}]}"#;

/// Sends bytes and reads until the other side closes; the answers, or `None` when it did not close.
async fn until_closed(proxy: &Proxy, bytes: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    stream.write_all(bytes).await.expect("sends");
    let mut answers = Vec::new();
    let mut piece = [0; 4096];
    loop {
        // Far more than a loopback answer takes, far less than the time of an idle connection.
        match tokio::time::timeout(Duration::from_secs(5), stream.read(&mut piece)).await {
            Ok(Ok(0) | Err(_)) => return Some(String::from_utf8_lossy(&answers).into_owned()),
            Ok(Ok(count)) => answers.extend_from_slice(&piece[..count]),
            Err(_) => return None,
        }
    }
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

/// Case 22.
#[tokio::test]
async fn given_a_head_that_can_be_read_in_two_ways_then_one_answer_comes_and_the_connection_ends() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chats = || engine.seen().asked.iter().filter(|asked| asked.path == "/v1/chat/completions").count();
    let key = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", proxy.key);
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{key}");
    let smuggled = format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{key}\r\n");
    let (length, size) = (CHAT.len(), format!("{:x}", CHAT.len()));
    let chunks = format!("{size}\r\n{CHAT}\r\n0\r\n\r\n");
    // What is sent, and with what it may be answered.
    for (name, sent, allowed) in [
        (
            "CL.TE",
            format!("{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{smuggled}"),
            &["400"][..],
        ),
        (
            "CL.TE, the rest of the length is a request",
            format!(
                "{head}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
                5 + smuggled.len()
            ),
            &["400"],
        ),
        (
            "TE.CL",
            format!("{head}transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n{chunks}{smuggled}"),
            &["400"],
        ),
        (
            "a length that is right, and other letters",
            format!("{head}Content-LENGTH: {}\r\nTransfer-ENCODING: Chunked\r\n\r\n{chunks}", chunks.len()),
            &["400"],
        ),
        (
            "a length that is none",
            format!("{head}transfer-encoding: chunked\r\ncontent-length: x\r\n\r\n{chunks}{smuggled}"),
            &["400"],
        ),
        (
            "two lengths",
            format!("{head}content-length: {length}\r\ncontent-length: 0\r\n\r\n{CHAT}{smuggled}"),
            &["400"],
        ),
        ("a list of lengths", format!("{head}content-length: {length}, {length}\r\n\r\n{CHAT}{smuggled}"), &["400"]),
        ("a length with a sign", format!("{head}content-length: +{length}\r\n\r\n{CHAT}{smuggled}"), &["400"]),
        ("a negative length", format!("{head}content-length: -1\r\n\r\n{CHAT}{smuggled}"), &["400"]),
        ("gzip, chunked", format!("{head}transfer-encoding: gzip, chunked\r\n\r\n{chunks}{smuggled}"), &["501"]),
        (
            "gzip and chunked in two lines",
            format!("{head}transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{smuggled}"),
            &["501"],
        ),
        (
            "chunked twice",
            format!("{head}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{smuggled}"),
            &["501"],
        ),
        ("a coding like it", format!("{head}transfer-encoding: xchunked\r\n\r\n{chunks}{smuggled}"), &["400", "501"]),
        (
            "not chunked at last",
            format!("{head}transfer-encoding: chunked, identity\r\n\r\n{chunks}{smuggled}"),
            &["400"],
        ),
        ("a blank before the colon", format!("{head}transfer-encoding : chunked\r\n\r\n{chunks}{smuggled}"), &["400"]),
        (
            "a tab before the coding's name",
            format!("{head}content-length: {length}\r\ntransfer-encoding:\x0bchunked\r\n\r\n{CHAT}{smuggled}"),
            &["400"],
        ),
        ("a folded line", format!("{head}content-length:\r\n {length}\r\n\r\n{CHAT}{smuggled}"), &["400"]),
        ("a folded coding", format!("{head}transfer-encoding:\r\n chunked\r\n\r\n{chunks}{smuggled}"), &["400"]),
        ("a bare CR", format!("{head}x: a\rtransfer-encoding: chunked\r\n\r\n{chunks}{smuggled}"), &["400"]),
        ("a NUL", format!("{head}x: a\0b\r\ncontent-length: 0\r\n\r\n{smuggled}"), &["400"]),
        ("chunks in HTTP/1.0", head.replace("1.1", "1.0") + "transfer-encoding: chunked\r\n\r\n" + &chunks, &["400"]),
        ("a chunk of no size", format!("{head}transfer-encoding: chunked\r\n\r\nz\r\n{smuggled}"), &["400"]),
        (
            "a chunk of more than there can be",
            format!("{head}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{smuggled}"),
            &["400"],
        ),
        (
            "a chunk that goes on",
            format!("{head}transfer-encoding: chunked\r\n\r\n{size}\r\n{CHAT}00\r\n\r\n{smuggled}"),
            &["400"],
        ),
        (
            "a chunk's size and a bare LF",
            format!("{head}transfer-encoding: chunked\r\n\r\n{size}\n{CHAT}\r\n0\r\n\r\n{smuggled}"),
            &["400"],
        ),
        ("no host", format!("GET /v1/models HTTP/1.1\r\n{key}\r\n{smuggled}"), &["400"]),
        (
            "two hosts",
            format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n{key}\r\n{smuggled}"),
            &["400"],
        ),
        (
            "a target of another host",
            format!("GET http://evil/v1/models HTTP/1.1\r\nhost: localhost\r\n{key}\r\n{smuggled}"),
            &["400"],
        ),
    ] {
        let before = chats();
        let told = until_closed(&proxy, sent.as_bytes()).await.unwrap_or_else(|| panic!("{name}: it did not close"));
        let status = told.get(9..12).unwrap_or_default();
        assert!(allowed.contains(&status), "{name}: {told}");
        assert_eq!(answers(&told), 1, "{name}: {told}");
        let asked = chats() - before;
        assert_eq!(asked, usize::from(status == "200"), "{name}: {told}");
        assert_eq!(proxy.get("/v1/models").await.status, 200, "{name}: others are served");
    }
    // Two requests that mean to be two are answered as two.
    let two = format!("{smuggled}{}", smuggled.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1));
    assert_eq!(answers(&until_closed(&proxy, two.as_bytes()).await.expect("it closes")), 2);
}

/// Case 22: in one piece with a request before it, and where a body only looks like such a head.
#[tokio::test]
async fn given_a_length_beside_chunks_behind_a_request_that_is_fine_then_only_that_one_is_answered() {
    let proxy = Proxy::start();
    let head = format!("HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n", proxy.key);
    let fine = format!("GET /v1/models {head}\r\n");
    let post = format!("POST /v1/chat/completions {head}content-type: application/json\r\n");
    let chunks = format!("{:x}\r\n{CHAT}\r\n0\r\n\r\n", CHAT.len());
    let both = format!("{post}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{fine}", CHAT.len());
    let told = until_closed(&proxy, format!("{fine}{both}").as_bytes()).await.expect("it closes");
    assert_eq!((told.get(9..12), answers(&told)), (Some("200"), 2), "{told}");
    assert!(told.contains("HTTP/1.1 400") && told.contains("both a Content-Length and a Transfer-Encoding"), "{told}");
    let quoted = "{\"model\":\"flm-tiny\",\ncontent-length: 1\ntransfer-encoding: chunked\n";
    let odd = format!("{post}content-length: {}\r\nconnection: close\r\n\r\n{quoted}", quoted.len());
    let told = until_closed(&proxy, odd.as_bytes()).await.expect("it closes");
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("JSON"), "{told}");
}

/// Case 32: neither side hears of the other's connection.
#[tokio::test]
async fn given_headers_of_one_hop_then_they_are_gone_in_both_directions() {
    let limits = KeyLimits { rights: rights(&[Right::Infer, Right::Passthrough]), ..KeyLimits::default() };
    let proxy = Proxy::with(ProxyLimits::default(), limits);
    let own = [
        ("connection", "x-leak, keep-alive"),
        ("x-leak", "engine"),
        ("keep-alive", "timeout=99"),
        ("proxy-authenticate", "Basic realm=engine"),
        ("trailer", "x-sum"),
        ("upgrade", "h2c"),
        ("server", "engine/1.0"),
        ("set-cookie", "engine=1"),
        ("www-authenticate", "Basic"),
        ("location", "http://engine.internal/"),
        ("access-control-allow-origin", "*"),
    ];
    let mut reply = Reply::recorded("llamacpp/b11434/chat");
    for (name, value) in own {
        reply.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply.clone()).first(
        Method::POST,
        "/v1/chat/completions",
        reply,
    );
    let engine = FakeEngine::start(script).await;
    proxy.engine("l", "llamacpp", &engine).await;
    let foreign = [
        ("connection", "x-secret, close"),
        ("x-secret", "client"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic c2VjcmV0"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("upgrade", "h2c"),
        ("cookie", "session=secret"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-api-key", proxy.key.as_str()),
    ];
    for path in ["/v1/chat/completions", "/engine/l/v1/chat/completions"] {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n",
            proxy.key,
            CHAT.len()
        );
        for (name, value) in foreign {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("\r\n{CHAT}"));
        let told = until_closed(&proxy, request.as_bytes()).await.expect("it closes, as it was asked to");
        assert!(told.starts_with("HTTP/1.1 200"), "{path}: {told}");
        let (head, _) = told.split_once("\r\n\r\n").expect("a head");
        for (name, value) in own {
            let leaked = head
                .lines()
                .any(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: {value}").to_ascii_lowercase()));
            assert!(!leaked, "{path}: {name} of the engine reached the client: {head}");
        }
        let asked = engine.seen().asked.pop().expect("asked");
        for (name, value) in foreign {
            let leaked = asked.headers.get(name).is_some_and(|sent| sent.as_bytes() == value.as_bytes());
            assert!(!leaked, "{path}: {name} of the client reached the engine: {:?}", asked.headers);
        }
        assert!(asked.headers.get("authorization").is_none(), "{path}: the key is the proxy's alone");
    }
}

/// Case 32: what a name holds is never a line of a head.
#[tokio::test]
async fn given_a_line_end_in_a_models_name_then_it_is_refused_and_stands_in_no_head() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let before = engine.seen().asked.len();
    let hostile = "flm-tiny\r\nset-cookie: owned=1\r\n\r\n<script>";
    let answer = proxy.post("/v1/chat/completions", &json!({"model": hostile, "messages": []})).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    assert_eq!(answer.header("set-cookie"), None);
    assert!(!answer.text().contains('\n') && !answer.text().contains('\r'), "{}", answer.text());
    assert_eq!(proxy.get("/v1/models/flm%0d%0aset-cookie:%20a").await.status, 404);
    assert_eq!(engine.seen().asked.len(), before, "no engine is asked");
    // An engine that lists such a name cannot make a line of it either.
    let listed = json!({"object": "list", "data": [{"id": hostile, "object": "model", "owned_by": "x"}]});
    let script = engine_scripts::llamacpp().first(Method::GET, "/v1/models", Reply::json(200, &listed));
    let liar = FakeEngine::start(script).await;
    proxy.engine("liar", "openai", &liar).await;
    let list = proxy.get("/v1/models").await;
    assert_eq!((list.status.as_u16(), list.header("set-cookie")), (200, None));
    assert!(!list.text().contains('\r'), "{}", list.text());
}
