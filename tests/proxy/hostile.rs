//! Malformed and hostile requests over every inference route: right status, right code, right `param` in the shape of
//! the route's API, no engine is troubled, and the connection stays usable (SPEC §4.4–4.6).

use std::collections::BTreeMap;

use bytes::Bytes;
use flm::telemetry::tasks::Tasks;
use flm::types::key::KeyLimits;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::Proxy;
use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE};
use crate::media_scripts;

/// How a route's API writes errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    OpenAi,
    Anthropic,
    Ollama,
}

/// A route with a body that it accepts.
struct Route {
    path: &'static str,
    shape: Shape,
    good: Value,
}

fn routes() -> Vec<Route> {
    let route = |path, shape, good| Route { path, shape, good };
    let messages = json!([{"role": "user", "content": "hi"}]);
    let chat = json!({"model": "flm-tiny", "messages": messages});
    let mut limited = chat.clone();
    limited["max_tokens"] = 8.into();
    vec![
        route("/v1/chat/completions", Shape::OpenAi, chat.clone()),
        route("/v1/completions", Shape::OpenAi, json!({"model": "flm-tiny", "prompt": "hi"})),
        route("/v1/embeddings", Shape::OpenAi, json!({"model": "flm-embed", "input": "hi"})),
        route("/v1/responses", Shape::OpenAi, json!({"model": "flm-tiny", "input": "hi"})),
        route("/v1/messages", Shape::Anthropic, limited.clone()),
        route("/v1/messages/count_tokens", Shape::Anthropic, chat.clone()),
        route("/api/chat", Shape::Ollama, chat),
        route("/api/generate", Shape::Ollama, json!({"model": "flm-tiny", "prompt": "hi"})),
        route("/api/embed", Shape::Ollama, json!({"model": "flm-embed", "input": "hi"})),
        route("/api/embeddings", Shape::Ollama, json!({"model": "flm-embed", "prompt": "hi"})),
        // Forms have a table of their own (tests/proxy/media.rs).
        route("/v1/rerank", Shape::OpenAi, json!({"model": "media", "query": "hi", "documents": ["a", "b"]})),
        route("/v1/images/generations", Shape::OpenAi, json!({"model": "media", "prompt": "hi"})),
        route("/v1/audio/speech", Shape::OpenAi, json!({"model": "media", "input": "hi", "voice": "alloy"})),
    ]
}

/// What a request is answered with.
struct Refused {
    status: u16,
    code: &'static str,
    param: Option<&'static str>,
}

/// A request that is wrong, and its answer.
struct Case {
    name: String,
    path: &'static str,
    shape: Shape,
    method: Method,
    content_type: &'static str,
    body: Vec<u8>,
    refused: Refused,
}

/// The good body of a route with one field replaced.
fn with(route: &Route, field: &str, value: Value) -> Vec<u8> {
    let mut body = route.good.clone();
    body[field] = value;
    body.to_string().into_bytes()
}

/// The good body's text with something done to it.
fn text(route: &Route, change: impl FnOnce(String) -> String) -> Vec<u8> {
    change(route.good.to_string()).into_bytes()
}

/// Models of an engine that tells what they can do.
const CHATS: &str = "tiny:latest";
const EMBEDS: &str = "embed:latest";

/// What is wrong whatever the route.
fn general(route: &Route) -> Vec<Case> {
    let case = |name: &str, body: Vec<u8>, status: u16, code: &'static str, param: Option<&'static str>| Case {
        name: format!("{name} to {}", route.path),
        path: route.path,
        shape: route.shape,
        method: Method::POST,
        content_type: "application/json",
        body,
        refused: Refused { status, code, param },
    };
    let wrong = |name: &str, body: Vec<u8>| case(name, body, 400, "invalid_request", None);
    let many: String = (0..600).flat_map(|number| [",\"x".to_owned(), number.to_string(), "\":1".to_owned()]).collect();
    let mut cases = vec![
        wrong("nothing", Vec::new()),
        wrong("words", b"hello".to_vec()),
        wrong("null", b"null".to_vec()),
        wrong("a list", b"[{}]".to_vec()),
        wrong("a list of a million brackets", vec![b'['; 1 << 20]),
        wrong("half a document", text(route, |text| text[..text.len() / 2].to_owned())),
        wrong("two documents", text(route, |text| format!("{text}{text}"))),
        wrong("NaN", text(route, |text| text.replacen('{', "{\"temperature\":NaN,", 1))),
        wrong("a number that is none", text(route, |text| text.replacen('{', "{\"temperature\":1.2.3,", 1))),
        wrong(
            "bytes that are not UTF-8",
            [b"{\"user\":\"\xff\xfe\",".to_vec(), text(route, |t| t[1..].to_owned())].concat(),
        ),
        wrong("a control character in a text", text(route, |text| text.replacen('{', "{\"user\":\"a\u{1}b\",", 1))),
        wrong(
            "a hundred levels",
            text(route, |text| text.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(100), "]".repeat(100)), 1)),
        ),
        wrong("six hundred fields", text(route, |text| format!("{}{many}}}", &text[..text.len() - 1]))),
        case(
            "the model twice",
            text(route, |text| text.replacen('{', "{\"model\":\"other\",", 1)),
            400,
            "invalid_request",
            Some("model"),
        ),
        case(
            "the model twice, once in disguise",
            text(route, |text| text.replacen('{', "{\"m\\u006fdel\":\"other\",", 1)),
            400,
            "invalid_request",
            Some("model"),
        ),
        case("a model of null", with(route, "model", Value::Null), 400, "invalid_model", Some("model")),
        case("a model of 3", with(route, "model", 3.into()), 400, "invalid_model", Some("model")),
        case("a list of models", with(route, "model", json!(["flm-tiny"])), 400, "invalid_model", Some("model")),
        case("an empty model", with(route, "model", "".into()), 400, "invalid_model", Some("model")),
        case("an unknown model", with(route, "model", "no-such".into()), 404, "model_not_found", Some("model")),
        case("a path as model", with(route, "model", "../../etc/passwd".into()), 404, "model_not_found", Some("model")),
        case(
            "a model of a megabyte",
            with(route, "model", "m".repeat(1 << 20).into()),
            404,
            "model_not_found",
            Some("model"),
        ),
        case(
            "a model with an escape sequence",
            with(route, "model", "\u{1b}[2Jx\u{202e}".into()),
            404,
            "model_not_found",
            Some("model"),
        ),
        Case { content_type: "text/plain", ..case("text", text(route, |t| t), 415, "unsupported_media_type", None) },
        Case {
            content_type: "multipart/form-data; boundary=x",
            ..case("a form", b"--x--\r\n".to_vec(), 415, "unsupported_media_type", None)
        },
        Case { method: Method::GET, ..case("GET", Vec::new(), 405, "method_not_allowed", None) },
        Case { method: Method::DELETE, ..case("DELETE", Vec::new(), 405, "method_not_allowed", None) },
    ];
    let cannot = if route.good["model"] == "flm-embed" { CHATS } else { EMBEDS };
    cases.push(case(
        "a model that cannot",
        with(route, "model", cannot.into()),
        422,
        "unsupported_modalities",
        Some("model"),
    ));
    cases
}

/// What is wrong with single fields.
fn fields(route: &Route) -> Vec<Case> {
    let wrong: &[(&'static str, Value)] = match route.path {
        "/v1/chat/completions" => &[
            ("stream", json!("yes")),
            ("stream", json!(1)),
            ("messages", json!("hi")),
            ("messages", json!({})),
            ("messages", Value::Null),
            ("temperature", json!("hot")),
            ("temperature", json!([1])),
            ("n", json!("two")),
        ],
        "/v1/embeddings" => &[("input", Value::Null), ("input", json!(3)), ("input", json!({}))],
        "/v1/completions" => &[("stream", json!("yes")), ("temperature", json!("hot")), ("n", json!({}))],
        "/v1/responses" => &[
            ("input", json!(3)),
            ("stream", json!("yes")),
            ("tools", json!("none")),
            ("instructions", json!(7)),
            ("max_output_tokens", json!("many")),
        ],
        "/v1/messages" => &[
            ("messages", json!("hi")),
            ("messages", json!([3])),
            ("messages", json!([{"role": "user", "content": 3}])),
            ("system", json!(3)),
            ("tools", json!("none")),
            ("stream", json!("yes")),
            ("max_tokens", json!("many")),
            ("temperature", json!("hot")),
        ],
        "/v1/messages/count_tokens" => &[("messages", json!("hi")), ("system", json!(3)), ("tools", json!(1))],
        "/api/chat" => &[
            ("messages", json!("hi")),
            ("messages", json!([3])),
            ("stream", json!("yes")),
            ("options", json!("fast")),
            ("tools", json!(true)),
        ],
        "/api/generate" => {
            &[("prompt", json!(3)), ("stream", json!("yes")), ("options", json!([1])), ("images", json!(1))]
        }
        "/api/embed" => &[("input", json!(true))],
        "/api/embeddings" => &[("prompt", json!(3))],
        "/v1/rerank" => &[
            ("query", Value::Null),
            ("query", json!(["hi"])),
            ("documents", json!("a")),
            ("documents", Value::Null),
            ("top_n", json!("two")),
            ("return_documents", json!("yes")),
        ],
        "/v1/images/generations" => &[
            ("prompt", Value::Null),
            ("prompt", json!(["hi"])),
            ("n", json!("two")),
            ("size", json!(1024)),
            ("quality", json!([])),
            ("response_format", json!({})),
            ("stream", json!("yes")),
            ("partial_images", json!("all")),
        ],
        "/v1/audio/speech" => &[
            ("input", Value::Null),
            ("input", json!(["hi"])),
            ("voice", json!(3)),
            ("speed", json!("fast")),
            ("response_format", json!(1)),
            ("stream_format", json!("video")),
            ("instructions", json!({})),
        ],
        _ => &[],
    };
    let case = |(field, value): &(&'static str, Value)| Case {
        name: format!("{field} of {value} to {}", route.path),
        path: route.path,
        shape: route.shape,
        method: Method::POST,
        content_type: "application/json",
        body: with(route, field, value.clone()),
        refused: Refused { status: 400, code: "invalid_request", param: Some(field) },
    };
    wrong.iter().map(case).collect()
}

/// Checks an answer; answers what is wrong with it.
fn complaint(case: &Case, status: StatusCode, id: Option<&str>, body: &[u8]) -> Option<String> {
    let Ok(document) = serde_json::from_slice::<Value>(body) else {
        return Some(format!("{}: no JSON: {}", case.name, String::from_utf8_lossy(body)));
    };
    let Refused { status: wanted, code, param } = case.refused;
    let error = &document["error"];
    let right = match case.shape {
        Shape::OpenAi => {
            error["code"] == code && error["param"].as_str() == param && error["request_id"].as_str() == id
        }
        Shape::Anthropic => {
            let kind = match wanted {
                404 => "not_found_error",
                _ => "invalid_request_error",
            };
            document["type"] == "error" && error["type"] == kind && document["request_id"].as_str() == id
        }
        Shape::Ollama => error.is_string(),
    };
    let message = error["message"].as_str().or(error.as_str()).unwrap_or_default();
    let named = param.is_none_or(|param| message.contains(param));
    let safe = message.len() < 2_000 && !message.contains(['\u{1b}', '\u{202e}']);
    let fine = status.as_u16() == wanted && right && named && safe && message.len() > 10;
    (!fine).then(|| format!("{}: {status} {document:.300}", case.name))
}

#[tokio::test]
async fn hundreds_of_wrong_requests_are_refused_as_their_api_does_and_their_connection_goes_on() {
    let limits = KeyLimits { requests_per_minute: 0, ..KeyLimits::default() };
    let proxy = Proxy::with(flm::proxy::limits::ProxyLimits::default(), limits);
    proxy.shared.guard.set_policy(crate::no_address_limits());
    let chat = FakeEngine::start(engine_scripts::llamacpp()).await;
    let embed = FakeEngine::start(engine_scripts::llamacpp_embed()).await;
    proxy.engine("chat", "llamacpp", &chat).await;
    proxy.engine("embed", "llamacpp", &embed).await;
    let ollama = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("ollama", "ollama", &ollama).await;
    let media = FakeEngine::start(media_scripts::media()).await;
    proxy.engine("media", "openai", &media).await;
    let troubled = || [&chat, &embed, &ollama, &media].map(|engine| engine.seen().asked.len());
    let before = troubled();
    let routes = routes();
    let cases: Vec<Case> = routes.iter().flat_map(|route| general(route).into_iter().chain(fields(route))).collect();
    assert!(cases.len() >= 400, "{}", cases.len());
    let mut complaints = Vec::new();
    let mut by_status: BTreeMap<u16, usize> = BTreeMap::new();
    let stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.expect("speaks");
    let tasks = Tasks::new();
    let _driven = tasks.spawn_until_end("client", connection);
    for case in &cases {
        let request = Request::builder()
            .method(case.method.clone())
            .uri(case.path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", proxy.key))
            .header("content-type", case.content_type)
            .body(Full::new(Bytes::copy_from_slice(&case.body)))
            .expect("a request");
        let answered = tokio::time::timeout(PATIENCE, async {
            sender.ready().await.expect("the one connection of all cases is still open");
            let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
            (parts, body.collect().await.expect("a body").to_bytes())
        });
        let (parts, body) = answered.await.unwrap_or_else(|_| panic!("{}: no answer", case.name));
        let id = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        complaints.extend(complaint(case, parts.status, id, &body));
        *by_status.entry(parts.status.as_u16()).or_default() += 1;
    }
    tasks.ending().cancel();
    assert!(complaints.is_empty(), "{} of {} {by_status:?}:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
    assert_eq!(troubled(), before, "no engine was troubled");
    // What was made wrong above is right as it stands.
    for route in &routes {
        let answer = proxy.post(route.path, &route.good).await;
        assert_eq!(answer.status, 200, "{}: {}", route.path, answer.text());
    }
}
