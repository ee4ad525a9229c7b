//! Engines' own APIs through FLM: what passes, what does not, and what the engine is told.

use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::key::{KeyLimits, Right};
use flm::types::request::{RequestEnd, TokenSource};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Step};
use crate::{Answer, Proxy, rights};

fn limits(given: &[Right]) -> KeyLimits {
    KeyLimits { rights: rights(given), ..KeyLimits::default() }
}

fn passthrough() -> KeyLimits {
    limits(&[Right::Infer, Right::Passthrough])
}

async fn ollama(proxy: &Proxy, id: &str) -> FakeEngine {
    let script = engine_scripts::ollama().post("/api/copy", Reply::json(200, &json!({})));
    let engine = FakeEngine::start(script).await;
    proxy.engine(id, "ollama", &engine).await;
    engine
}

fn refused(answer: &Answer) -> (u16, String) {
    let document = answer.json();
    // Ollama's shape has no code.
    let code = document["error"]["code"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), code)
}

#[tokio::test]
async fn an_engines_own_answer_passes_as_it_is_and_its_tokens_count() {
    let proxy = Proxy::with(ProxyLimits::default(), passthrough());
    let engine = ollama(&proxy, "o").await;
    let body = json!({"model": "tiny:latest", "messages": [{"role": "user", "content": "hi"}], "options": {"seed": 1}});
    let mut request = proxy.request(Method::POST, "/engine/o/api/chat?secret=1", Some(&body));
    for (name, value) in
        [("x-forwarded-for", "192.0.2.1"), ("cookie", "a=b"), ("anthropic-beta", "tools"), ("te", "trailers")]
    {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let answer = proxy.send(request).await;
    let recorded = Reply::recorded("ollama/0.33.0-documented/chat_stream");
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &recorded.body()));
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert!(answer.header("x-request-id").is_some() && answer.header("x-ratelimit-limit-requests").is_some());
    let asked = engine.seen().asked.pop().expect("asked");
    assert_eq!((asked.path.as_str(), asked.json()), ("/api/chat", body));
    let mut names: Vec<&str> = asked.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "anthropic-beta", "content-length", "content-type", "host"]);
    let row = proxy.ended(RequestEnd::Completed).await;
    assert_eq!((row.route.as_deref(), row.tokens.source), (Some("passthrough"), TokenSource::Engine));
    assert!(row.tokens.prompt > 0 && row.tokens.completion > 0, "{row:?}");
}

#[tokio::test]
async fn pieces_are_relayed_as_they_come_and_a_client_that_leaves_ends_the_engines_work() {
    let proxy = Proxy::with(ProxyLimits::default(), passthrough());
    let stall = Reply::recorded("ollama/0.33.0-documented/chat_stream").cut_after(2, Step::Stall);
    let engine = FakeEngine::start(engine_scripts::ollama().first(Method::POST, "/api/chat", stall)).await;
    proxy.engine("o", "ollama", &engine).await;
    let body = json!({"model": "tiny:latest", "stream": true});
    let mut response = proxy.open(proxy.request(Method::POST, "/engine/o/api/chat", Some(&body))).await;
    response.body_mut().frame().await.expect("a piece").expect("no error");
    assert_eq!(proxy.shared.metrics.sums().streams, 1);
    drop(response);
    engine.wait_until(|seen| seen.left == 1).await;
    proxy.ended(RequestEnd::ClientLeft).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_stalls_is_never_taken_for_whole() {
    let limits = ProxyLimits { engine_gap: Duration::from_millis(200), ..ProxyLimits::default() };
    for end in [Step::Die, Step::Stall] {
        let proxy = Proxy::with(limits.clone(), passthrough());
        let cut = Reply::recorded("ollama/0.33.0-documented/chat_stream").cut_after(2, end);
        let engine = FakeEngine::start(engine_scripts::ollama().first(Method::POST, "/api/chat", cut)).await;
        proxy.engine("o", "ollama", &engine).await;
        let body = json!({"model": "tiny:latest"});
        let response = proxy.open(proxy.request(Method::POST, "/engine/o/api/chat", Some(&body))).await;
        assert!(response.into_body().collect().await.is_err(), "the connection was closed in the middle");
        proxy.ended(RequestEnd::EngineFailed).await;
    }
}

/// Case 25.
#[tokio::test]
async fn what_is_not_in_the_engines_table_never_reaches_it() {
    let proxy = Proxy::with(ProxyLimits::default(), limits(&[Right::Infer, Right::Passthrough, Right::Manage]));
    let llama = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("l", "llamacpp", &llama).await;
    let vllm = FakeEngine::start(engine_scripts::vllm()).await;
    proxy.engine("v", "vllm", &vllm).await;
    let studio = FakeEngine::start(engine_scripts::lmstudio()).await;
    proxy.engine("s", "lmstudio", &studio).await;
    let ollama = ollama(&proxy, "o").await;
    let engines = [&llama, &vllm, &studio, &ollama];
    let before: Vec<usize> = engines.iter().map(|engine| engine.seen().asked.len()).collect();
    let body = json!({});
    for (method, path, status, code) in [
        ("GET", "/engine/l/slots", 404, "route_disabled"),
        ("GET", "/engine/l/props", 404, "route_disabled"),
        ("POST", "/engine/l/props", 404, "route_disabled"),
        ("POST", "/engine/l/slots/0", 404, "route_disabled"),
        ("GET", "/engine/l/v1/models", 404, "route_disabled"),
        ("POST", "/engine/l/lora-adapters", 404, "route_disabled"),
        ("DELETE", "/engine/l/completion", 405, "method_not_allowed"),
        ("GET", "/engine/l/", 404, "route_disabled"),
        ("GET", "/engine/l", 404, "not_found"),
        ("GET", "/engine/l/health/", 404, "route_disabled"),
        ("GET", "/engine/l/%68ealth", 404, "route_disabled"),
        ("GET", "/engine/l/../v/health", 404, "not_found"),
        ("GET", "/engine/l/%2e%2e/slots", 404, "not_found"),
        ("GET", "/engine/l//slots", 404, "not_found"),
        ("GET", "/engine/l/v1%2fmodels", 404, "not_found"),
        ("GET", "/engine/l/health%00", 404, "not_found"),
        ("GET", "/engine/l\\slots", 404, "not_found"),
        ("GET", "/engine/none/health", 404, "not_found"),
        ("GET", "/engine/L/health", 404, "not_found"),
        ("POST", "/engine/v/collective_rpc", 404, "route_disabled"),
        ("POST", "/engine/v/v1/load_lora_adapter", 404, "route_disabled"),
        ("POST", "/engine/v/sleep", 404, "route_disabled"),
        ("POST", "/engine/v/api/chat", 404, ""),
        ("POST", "/engine/s/anything", 404, "route_disabled"),
        ("POST", "/engine/o/api/blobs/sha256:0", 404, ""),
        ("POST", "/engine/o/api/me", 404, ""),
        ("POST", "/api/blobs/sha256:0", 404, ""),
        ("GET", "/api/pull", 405, ""),
        ("PUT", "/api/create", 405, ""),
    ] {
        let method: Method = method.parse().expect("a method");
        let body = (method == Method::POST).then_some(&body);
        let answer = proxy.send(proxy.request(method.clone(), path.replace('\\', "%5c").as_str(), body)).await;
        assert_eq!(refused(&answer), (status, code.to_owned()), "{method} {path}: {}", answer.text());
    }
    let after: Vec<usize> = engines.iter().map(|engine| engine.seen().asked.len()).collect();
    assert_eq!(before, after, "no engine was troubled");
    assert_eq!(proxy.get("/engine/l/health").await.status, 200);
    assert_eq!(proxy.send(proxy.request(Method::HEAD, "/engine/v/version", None)).await.status, 200);
}

#[tokio::test]
async fn each_right_is_asked_for() {
    let proxy = Proxy::start();
    let engine = ollama(&proxy, "o").await;
    let before = engine.seen().asked.len();
    let copy = json!({"source": "tiny", "destination": "mine"});
    for (given, path, status) in [
        (&[Right::Infer][..], "/engine/o/api/show", 403),
        (&[Right::Infer], "/api/copy", 403),
        (&[Right::Infer, Right::Manage], "/api/copy", 403),
        (&[Right::Infer, Right::Passthrough], "/api/copy", 403),
        (&[Right::Infer, Right::Passthrough], "/engine/o/api/copy", 403),
    ] {
        let (_, key) = crate::add_key(&proxy.shared, "k", limits(given));
        let mut request = proxy.request(Method::POST, path, Some(&copy));
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().expect("a value"));
        let answer = proxy.send(request).await;
        assert_eq!(answer.status, status, "{given:?} {path}: {}", answer.text());
        assert!(answer.json()["error"].as_str().is_some_and(|message| message.contains("right")), "{}", answer.text());
    }
    assert_eq!(engine.seen().asked.len(), before);
    let (_, key) = crate::add_key(&proxy.shared, "all", limits(&[Right::Passthrough, Right::Manage]));
    for path in ["/api/copy", "/engine/o/api/copy"] {
        let mut request = proxy.request(Method::POST, path, Some(&copy));
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().expect("a value"));
        assert_eq!(proxy.send(request).await.status, 200, "{path}");
        assert_eq!(engine.seen().asked.pop().expect("asked").json(), copy);
    }
}

#[tokio::test]
async fn a_key_restricted_by_model_must_name_one_that_it_may_use() {
    let allowed = KeyLimits { models: vec!["flm://o/tiny*".to_owned(), "flm://l/other".to_owned()], ..passthrough() };
    let proxy = Proxy::with(ProxyLimits::default(), allowed);
    let engine = ollama(&proxy, "o").await;
    let llama = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("l", "llamacpp", &llama).await;
    let before = (engine.seen().asked.len(), llama.seen().asked.len());
    for (method, path, body) in [
        (Method::GET, "/engine/o/api/tags", None),
        (Method::POST, "/engine/o/api/show", Some(json!({}))),
        (Method::POST, "/engine/o/api/show", Some(json!({"model": "embed:latest"}))),
        (Method::POST, "/engine/o/api/show", Some(json!({"model": "tiny:latest", "name": "embed:latest"}))),
        (Method::POST, "/engine/l/completion", Some(json!({"prompt": "hi"}))),
        // It lists flm-tiny only, and would take any name for it.
        (Method::POST, "/engine/l/v1/chat/completions", Some(json!({"model": "other"}))),
        (Method::POST, "/engine/l/v1/chat/completions", Some(json!({"model": "flm-tiny"}))),
    ] {
        let answer = proxy.send(proxy.request(method.clone(), path, body.as_ref())).await;
        assert_eq!(answer.status, 403, "{method} {path} {body:?}: {}", answer.text());
    }
    assert_eq!((engine.seen().asked.len(), llama.seen().asked.len()), before);
    for name in ["tiny", "tiny:latest"] {
        let answer = proxy.post("/engine/o/api/show", &json!({"model": name})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_spent_budget_closes_inference_and_leaves_the_rest_open() {
    let proxy = Proxy::with(ProxyLimits::default(), KeyLimits { tokens_per_day: Some(1), ..passthrough() });
    let _engine = ollama(&proxy, "o").await;
    let chat = json!({"model": "tiny:latest"});
    assert_eq!(proxy.post("/engine/o/api/chat", &chat).await.status, 200);
    proxy.ended(RequestEnd::Completed).await;
    assert_eq!(proxy.post("/engine/o/api/chat", &chat).await.status, 429);
    assert_eq!(proxy.post("/engine/o/api/show", &chat).await.status, 200);
}

#[tokio::test]
async fn no_url_and_no_foreign_host_is_passed_on() {
    let proxy = Proxy::with(ProxyLimits::default(), limits(&[Right::Infer, Right::Passthrough, Right::Manage]));
    let engine = ollama(&proxy, "o").await;
    let vllm = FakeEngine::start(engine_scripts::vllm()).await;
    proxy.engine("v", "vllm", &vllm).await;
    let before = (engine.seen().asked.len(), vllm.seen().asked.len());
    let image = |url: &str| json!({"model": "flm-tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]});
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/engine/v/v1/chat/completions", image("http://169.254.169.254/"), "messages[0].content[0].image_url.url"),
        ("/engine/v/v1/chat/completions", image("file:///etc/passwd"), "messages[0].content[0].image_url.url"),
        ("/engine/v/v1/responses", json!({"model": "m", "tools": [{"server_url": "http://a"}]}), "tools[0].server_url"),
        (
            "/engine/v/v1/completions",
            json!({"model": "m", "kv_transfer_params": {"remote_host": "10.0.0.1"}}),
            "kv_transfer_params.remote_host",
        ),
        ("/api/pull", json!({"model": "http://127.0.0.1:1/a/b"}), "model"),
        ("/api/pull", json!({"model": "127.0.0.1:1/a/b"}), "model"),
        ("/api/pull", json!({"model": "tiny", "insecure": true}), "insecure"),
        ("/api/create", json!({"model": "x", "from": "evil.example/a/b"}), "from"),
        ("/api/create", json!({"model": "x", "from": "tiny", "remote_host": "http://a"}), "remote_host"),
        ("/api/push", json!({"name": "evil.example/a/b"}), "name"),
        (
            "/engine/o/api/chat",
            json!({"model": "tiny", "messages": [{"images": ["http://a/"]}]}),
            "messages[0].images[0]",
        ),
    ];
    for (path, body, param) in cases {
        let answer = proxy.post(path, &body).await;
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text());
        let error = &answer.json()["error"];
        if error.is_object() {
            assert_eq!(error["param"], param, "{path} {body}");
        }
        assert!(answer.text().contains("media.fetch_remote") || param == "insecure", "{}", answer.text());
    }
    assert_eq!((engine.seen().asked.len(), vllm.seen().asked.len()), before);
}

#[tokio::test]
async fn of_several_ollama_engines_the_one_that_has_the_model_is_asked() {
    let proxy = Proxy::with(ProxyLimits::default(), limits(&[Right::Infer, Right::Passthrough, Right::Manage]));
    let none = proxy.post("/api/copy", &json!({"source": "tiny", "destination": "x"})).await;
    assert_eq!(none.status, 503, "{}", none.text());
    let first = ollama(&proxy, "a").await;
    let tags = json!({"models": [{"name": "only:b", "model": "only:b", "capabilities": ["completion"]}]});
    let script = engine_scripts::ollama()
        .first(Method::GET, "/api/tags", Reply::json(200, &tags))
        .post("/api/copy", Reply::json(200, &json!({})));
    let second = FakeEngine::start(script).await;
    proxy.engine("b", "ollama", &second).await;
    let before = first.seen().asked.len();
    assert_eq!(proxy.post("/api/copy", &json!({"source": "only:b", "destination": "x"})).await.status, 200);
    assert_eq!(first.seen().asked.len(), before);
    let unclear = proxy.post("/api/pull", &json!({"model": "new"})).await;
    assert_eq!(unclear.status, 400);
    assert!(unclear.text().contains("/engine/ID/api/pull"), "{}", unclear.text());
}

#[tokio::test]
async fn an_engine_that_refuses_flms_key_or_redirects_is_a_502_without_its_words() {
    let proxy = Proxy::with(ProxyLimits::default(), passthrough());
    let quoting = Reply::json(401, &json!({"error": "the key sk-engine-secret is wrong"}));
    let mut moved = Reply::json(307, &json!({}));
    moved.headers.insert("location", "http://127.0.0.1:1/".parse().expect("a value"));
    let script =
        engine_scripts::ollama().first(Method::POST, "/api/chat", quoting).first(Method::POST, "/api/generate", moved);
    let engine = FakeEngine::start(script).await;
    proxy.engine("o", "ollama", &engine).await;
    for path in ["/engine/o/api/chat", "/engine/o/api/generate"] {
        let answer = proxy.post(path, &json!({"model": "tiny:latest"})).await;
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert!(!answer.text().contains("sk-engine-secret") && answer.header("location").is_none());
    }
}
