//! Requests that get an error: status, code and param of SPEC §4.4, and no engine is troubled.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply};
use crate::{Proxy, add_key};
use flm::proxy::limits::ProxyLimits;
use flm::types::address::{BlockEntry, BlockSource};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::KeyLimits;
use flm::types::policy::SecurityPolicy;

const CHAT: &str = "/v1/chat/completions";

/// What is wrong, then method, path and body, then status, code and `param` of the refusal.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, &'a str, Option<&'a str>);

/// Case 28.
#[tokio::test]
async fn malformed_requests_are_refused_with_code_and_param_and_the_connection_stays_usable() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let before = engine.seen().asked.len();
    let deep = format!("{{\"model\":\"flm-tiny\",\"messages\":{}{}}}", "[".repeat(70), "]".repeat(70));
    let cases: &[Case] = &[
        ("not JSON", "POST", CHAT, b"hello", 400, "invalid_request", None),
        ("empty", "POST", CHAT, b"", 400, "invalid_request", None),
        ("an array", "POST", CHAT, b"[1]", 400, "invalid_request", None),
        ("cut off", "POST", CHAT, b"{\"model\":\"x\"", 400, "invalid_request", None),
        ("not UTF-8", "POST", CHAT, b"{\"model\":\"\xff\"}", 400, "invalid_request", None),
        ("NaN", "POST", CHAT, b"{\"model\":\"x\",\"temperature\":NaN}", 400, "invalid_request", None),
        ("too deep", "POST", CHAT, deep.as_bytes(), 400, "invalid_request", None),
        (
            "two models",
            "POST",
            CHAT,
            b"{\"model\":\"flm-tiny\",\"model\":\"x\"}",
            400,
            "invalid_request",
            Some("model"),
        ),
        ("no model", "POST", CHAT, b"{\"messages\":[]}", 400, "invalid_model", Some("model")),
        ("model is null", "POST", CHAT, b"{\"model\":null}", 400, "invalid_model", Some("model")),
        ("model is a number", "POST", CHAT, b"{\"model\":3}", 400, "invalid_model", Some("model")),
        (
            "unknown model",
            "POST",
            CHAT,
            b"{\"model\":\"flm-tinny\",\"messages\":[]}",
            404,
            "model_not_found",
            Some("model"),
        ),
        (
            "stream is a text",
            "POST",
            CHAT,
            b"{\"model\":\"flm-tiny\",\"messages\":[],\"stream\":\"yes\"}",
            400,
            "invalid_request",
            Some("stream"),
        ),
        (
            "stream options are a text",
            "POST",
            CHAT,
            b"{\"model\":\"flm-tiny\",\"messages\":[],\"stream\":true,\"stream_options\":\"x\"}",
            400,
            "invalid_request",
            Some("stream_options"),
        ),
        ("wrong method", "GET", CHAT, b"", 405, "method_not_allowed", None),
        ("deleting models", "DELETE", "/v1/models/flm-tiny", b"", 405, "method_not_allowed", None),
        ("unknown route", "POST", "/v1/nothing", b"{}", 404, "not_found", None),
        ("dot segments", "POST", "/v1/../slots", b"{}", 404, "not_found", None),
        ("encoded dot segments", "GET", "/v1/%2e%2e/slots", b"", 404, "not_found", None),
        ("two slashes", "GET", "//v1/models", b"", 404, "not_found", None),
        ("an engine's own path", "GET", "/slots", b"", 404, "not_found", None),
    ];
    for (name, method, path, body, status, code, param) in cases {
        let request = Request::builder()
            .method(*method)
            .uri(*path)
            .header("authorization", format!("Bearer {}", proxy.key))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .expect("a request");
        let answer = proxy.send(request).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status.as_u16(), error["code"].as_str()), (*status, Some(*code)), "{name}: {error}");
        assert_eq!(error["param"].as_str(), *param, "{name}: {error}");
        assert_eq!(error["request_id"].as_str(), answer.header("x-request-id"), "{name}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
    }
    assert_eq!(engine.seen().asked.len(), before, "no engine was troubled");
    assert_eq!(proxy.get("/v1/models").await.status, 200);
}

/// Case 29.
#[tokio::test]
async fn media_types_and_encodings_other_than_plain_json_are_415() {
    let proxy = Proxy::start();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-encoding", "gzip"),
    ] {
        let mut request = proxy.request(Method::POST, CHAT, Some(&json!({"model": "x"})));
        request.headers_mut().insert(name, value.parse().expect("value"));
        let answer = proxy.send(request).await;
        assert_eq!(answer.status, 415, "{name}: {value}");
        assert_eq!(answer.json()["error"]["code"], "unsupported_media_type");
    }
}

/// Case 27.
#[tokio::test]
async fn bodies_over_the_limit_are_413_announced_or_not() {
    let limits = ProxyLimits { json_body_bytes: 4096, ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let announced = proxy.post(CHAT, &json!({"model": "x", "padding": "y".repeat(5000)})).await;
    assert_eq!(
        (announced.status.as_u16(), announced.json()["error"]["code"].as_str()),
        (413, Some("payload_too_large"))
    );
    // Chunked, so that only counting can tell.
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        proxy.key
    );
    let chunk = format!("400\r\n{}\r\n", "y".repeat(1024)).repeat(5);
    let answer = crate::connections::raw(&proxy, &[head.as_bytes(), chunk.as_bytes()].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// Case 7.
#[tokio::test]
async fn hosts_that_are_not_ours_and_doubtful_heads_are_refused() {
    let proxy = Proxy::start();
    let key = &proxy.key;
    for (name, head, status) in [
        (
            "foreign host",
            format!("GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nauthorization: Bearer {key}\r\n\r\n"),
            "421",
        ),
        ("no host", format!("GET /v1/models HTTP/1.1\r\nauthorization: Bearer {key}\r\n\r\n"), "400"),
        ("two hosts", "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n".to_owned(), "400"),
        ("other target", "GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "400"),
        (
            "two keys",
            format!(
                "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\nauthorization: Bearer x\r\n\r\n"
            ),
            "400",
        ),
        ("key in the URL", format!("GET /v1/models?key={key} HTTP/1.1\r\nhost: localhost\r\n\r\n"), "400"),
        (
            "a key of a megabyte",
            format!(
                "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
                "k".repeat(1 << 20)
            ),
            "431",
        ),
        // SPEC §4.6: 32 KiB of head, also when it comes in one piece with its end.
        (
            "a head of 33 KiB",
            format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-padding: {}\r\n\r\n", "k".repeat(33 << 10)),
            "431",
        ),
        (
            "a head of 31 KiB",
            format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-padding: {}\r\n\r\n", "k".repeat(31 << 10)),
            "401",
        ),
        ("101 header lines", format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(100)), "431"),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "p".repeat(9000)), "414"),
        ("CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n".to_owned(), "421"),
    ] {
        let answer = crate::connections::raw(&proxy, head.as_bytes()).await;
        // Closing with bytes unread may reset the connection before the answer is read: closed is refused too.
        let reset = answer.is_empty() && status == "431";
        assert!(reset || answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer:.200}");
        assert!(!answer.contains(key.as_str()), "{name}: no answer repeats a key");
    }
}

/// Case 26.
#[tokio::test]
async fn preflights_are_answered_for_allowed_origins_only_and_never_with_credentials() {
    let limits = ProxyLimits { cors_allowed_origins: vec!["https://app.example".to_owned()], ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let preflight = |origin: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri(CHAT)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, x-stainless-retry-count")
            .body(Full::default())
            .expect("a request")
    };
    let allowed = proxy.send(preflight("https://app.example")).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(
        allowed.header("access-control-allow-headers").is_some_and(|list| list.contains("x-stainless-retry-count"))
    );
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    let foreign = proxy.send(preflight("https://evil.example")).await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    let mut refused = proxy.request(Method::POST, CHAT, Some(&json!({})));
    refused.headers_mut().insert("origin", "https://app.example".parse().expect("value"));
    let refused = proxy.send(refused).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"), "refusals are readable too");
}

/// A request whose every part is wrong; each is mended on its own.
struct Wrong {
    host: &'static str,
    key: String,
    method: &'static str,
    path: &'static str,
    media_type: &'static str,
    body: String,
}

impl Wrong {
    /// Sends it over a connection of its own: no client library would.
    async fn send(&self, proxy: &Proxy) -> (u16, String) {
        let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nx-api-key: {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n\
             user-agent: OpenAI/Python\r\nconnection: close\r\n\r\n",
            self.method,
            self.path,
            self.host,
            self.key,
            self.media_type,
            self.body.len()
        );
        // Refused early, it may be closed before all of it is written.
        drop(stream.write_all(format!("{head}{}", self.body).as_bytes()).await);
        let mut answer = Vec::new();
        drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed in time"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        let document: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        (status, document["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// The order of SPEC §4.2: of all that is wrong the earliest stage tells, and nothing later is looked at.
#[tokio::test]
async fn a_request_that_is_wrong_in_every_way_is_refused_by_one_stage_after_the_other() {
    let clock = Clock::stepped(UnixMillis(1_700_000_000_000));
    let limits = ProxyLimits { json_body_bytes: 2_048, ..ProxyLimits::default() };
    let proxy = Proxy::at(clock.clone(), limits, KeyLimits::default());
    let fails = Reply::json(500, &json!({"error": "model runner has unexpectedly stopped"}));
    let engine = FakeEngine::start(engine_scripts::ollama().first(Method::POST, "/api/chat", fails)).await;
    proxy.engine("ollama", "ollama", &engine).await;
    let other = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("other", "llamacpp", &other).await;
    let asked_before = engine.seen().asked.len();
    let narrow = |tokens_per_day| KeyLimits {
        requests_per_minute: 60,
        burst: 1,
        routes: vec![CHAT.to_owned()],
        models: vec!["flm://ollama/*".to_owned()],
        tokens_per_day,
        ..KeyLimits::default()
    };
    let (spent_id, spent) = add_key(&proxy.shared, "spent", narrow(Some(1)));
    proxy.shared.guard.key(spent_id).expect("a key").counts.tokens.spend(1, clock.wall());
    let (_, rich) = add_key(&proxy.shared, "rich", narrow(None));
    let policy = |text: &str| proxy.shared.guard.set_policy(SecurityPolicy::parse(text).expect("a policy"));
    let block = BlockEntry {
        network: "127.0.0.1/32".parse().expect("a network"),
        reason: "test".into(),
        source: BlockSource::Manual,
        failures: 0,
        created: UnixMillis(0),
        expires: None,
    };
    proxy.shared.guard.put_blocks(&[block]);
    policy(r#"{"address_rate":{"per_minute":60,"burst":1}}"#);

    let mut request = Wrong {
        host: "evil.example",
        key: "flm_wrong".to_owned(),
        method: "GET",
        path: "/v1/nowhere",
        media_type: "text/plain",
        body: "x".repeat(3_000),
    };
    let said = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let mut told = Vec::new();
    let mut step = async |request: &Wrong, mended: &str| {
        told.push((mended.to_owned(), request.send(&proxy).await));
    };
    step(&request, "nothing").await;
    proxy.shared.guard.clear_blocks();
    step(&request, "the address is not blocked").await;
    step(&request, "and comes once more").await;
    policy(r#"{"address_rate":{"mode":"off"}}"#);
    request.host = "localhost";
    step(&request, "the host is FLM's").await;
    request.key = spent;
    step(&request, "the key is right").await;
    step(&request, "and is used once more").await;
    // The key's rate gives one request a second.
    let mut in_a_second = async |request: &Wrong, mended: &str| {
        clock.advance(std::time::Duration::from_secs(1));
        step(request, mended).await;
    };
    request.path = "/v1/embeddings";
    in_a_second(&request, "the path exists").await;
    request.method = "POST";
    in_a_second(&request, "the method fits").await;
    request.media_type = "application/json";
    in_a_second(&request, "the media type fits").await;
    request.path = CHAT;
    in_a_second(&request, "the key may use the route").await;
    request.body = "x".to_owned();
    in_a_second(&request, "the body is small enough").await;
    request.body = "{}".to_owned();
    in_a_second(&request, "the body is JSON").await;
    request.body = said("no-such-model");
    in_a_second(&request, "a model is named").await;
    request.body = said("flm-tiny");
    in_a_second(&request, "the model exists").await;
    request.body = said("embed:latest");
    in_a_second(&request, "the key may use the model").await;
    request.body = said("tiny:latest");
    in_a_second(&request, "the model can chat").await;
    assert_eq!(engine.seen().asked.len(), asked_before, "no engine was troubled so far");
    request.key = rich;
    in_a_second(&request, "the key has a budget").await;

    let told: Vec<(&str, u16, &str)> =
        told.iter().map(|(mended, (status, code))| (mended.as_str(), *status, code.as_str())).collect();
    assert_eq!(
        told,
        [
            ("nothing", 403, "ip_blocked"),
            ("the address is not blocked", 421, "host_not_allowed"),
            ("and comes once more", 429, "rate_limited"),
            ("the host is FLM's", 401, "invalid_api_key"),
            ("the key is right", 404, "not_found"),
            ("and is used once more", 429, "rate_limited"),
            ("the path exists", 405, "method_not_allowed"),
            ("the method fits", 415, "unsupported_media_type"),
            ("the media type fits", 403, "permission_denied"),
            ("the key may use the route", 413, "payload_too_large"),
            ("the body is small enough", 400, "invalid_request"),
            ("the body is JSON", 400, "invalid_model"),
            ("a model is named", 404, "model_not_found"),
            ("the model exists", 403, "model_not_allowed"),
            ("the key may use the model", 422, "unsupported_modalities"),
            ("the model can chat", 429, "budget_exceeded"),
            ("the key has a budget", 502, "engine_error"),
        ]
    );
}
