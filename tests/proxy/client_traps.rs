//! What client libraries are known to trip over, each shown on a real socket (CLIENTS.md).

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use flm::proxy::limits::ProxyLimits;
use flm::types::key::KeyLimits;
use flm::types::request::RequestEnd;

use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};
use crate::{Answer, Proxy, engine_scripts};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

/// The chunks of a stream, which must end with `[DONE]`.
fn chunks(answer: &Answer) -> Vec<Value> {
    let text = answer.text().strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {}", answer.text()));
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events.map(|event| serde_json::from_str(event.strip_prefix("data: ").expect(event)).expect(event)).collect()
}

/// LM Studio answers 200 to unknown paths (lmstudio-bug-tracker #1323), so an engine must never be asked about them.
#[tokio::test]
async fn paths_around_the_api_are_decided_here_and_reach_no_engine() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::lmstudio()).await;
    proxy.engine("lmstudio", "lmstudio", &engine).await;
    let asked_before = engine.seen().asked.len();
    for (method, path, status) in [
        (Method::HEAD, "/", 204),
        (Method::GET, "/v1", 404),
        (Method::GET, "/v1/", 404),
        (Method::GET, "//v1/models", 404),
        (Method::GET, "/v1//models", 404),
        // With and without the slash, as people write base addresses.
        (Method::GET, "/v1/models/", 200),
        (Method::POST, "//v1/chat/completions", 404),
        (Method::POST, "/chat/completions", 404),
        (Method::POST, "/v1/v1/chat/completions", 404),
        // Claude Code calls with `?beta=true` (ollama #13949): an unknown query changes nothing.
        (Method::GET, "/v1/models?beta=true", 200),
    ] {
        let answer = proxy.send(proxy.request(method.clone(), path, None)).await;
        assert_eq!(answer.status, status, "{method} {path}: {:?}", answer.body);
        if status == 404 {
            assert_eq!(answer.json()["error"]["code"], "not_found", "{path}");
        }
    }
    assert_eq!(engine.seen().asked.len(), asked_before, "nothing of it was asked of the engine");
}

/// Libraries differ in their `x-stainless-*` headers and add new ones; a browser refuses when one is not allowed.
#[tokio::test]
async fn a_preflight_allows_whatever_stainless_headers_a_library_asks_for_and_nothing_else() {
    let limits = ProxyLimits { cors_allowed_origins: vec!["https://app.example".to_owned()], ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let asked = "authorization, X-Stainless-Read-Timeout,x-stainless-of-tomorrow, x-other, x-stainless-(bad";
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri(CHAT)
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", asked)
        .body(Full::default())
        .expect("a request");
    let answer = proxy.send(preflight).await;
    assert_eq!(answer.status, 204);
    let allowed: Vec<&str> =
        answer.header("access-control-allow-headers").expect("a list").split(',').map(str::trim).collect();
    for name in ["authorization", "x-api-key", "x-stainless-read-timeout", "x-stainless-of-tomorrow"] {
        assert!(allowed.contains(&name), "{name} in {allowed:?}");
    }
    assert!(!allowed.iter().any(|name| name.contains("other") || name.contains("bad")), "{allowed:?}");
    let mut vary = answer.headers.get_all("vary").iter().map(|value| value.to_str().expect("ASCII"));
    assert!(vary.any(|value| value == "access-control-request-headers"), "a cache keeps answers apart");
}

/// OpenAI's own API says `"usage": null` on every chunk but the last when usage is wanted, and nothing at all when not.
#[tokio::test]
async fn a_translated_stream_says_usage_null_on_all_but_the_last_chunk_when_usage_is_wanted() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("ollama", "ollama", &engine).await;
    let wanted = json!({"stream_options": {"include_usage": true}});
    let answer = proxy.post(CHAT, &chat("tiny:latest", &wanted)).await;
    let mut with_usage = chunks(&answer);
    let last = with_usage.pop().expect("chunks");
    assert!(last["usage"]["total_tokens"].is_u64() && last["choices"] == json!([]), "{last}");
    assert!(!with_usage.is_empty());
    for chunk in with_usage {
        assert_eq!(chunk.get("usage"), Some(&Value::Null), "{chunk}");
    }
    let without = proxy.post(CHAT, &chat("tiny:latest", &json!({}))).await;
    for chunk in chunks(&without) {
        assert_eq!(chunk.get("usage"), None, "{chunk}");
        assert!(chunk["choices"][0].is_object(), "clients index choices[0] of every chunk: {chunk}");
    }
}

/// `include_obfuscation` is an unknown field of an option: passed on, and the field that it adds reaches the client.
#[tokio::test]
async fn obfuscation_is_asked_for_and_passed_on() {
    let proxy = Proxy::start();
    let stream = Reply::stream(&[
        "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\
         \"delta\":{\"content\":\"hi\"},\"finish_reason\":null}],\"obfuscation\":\"Zk3q\"}\n\n",
        "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\
         \"delta\":{},\"finish_reason\":\"stop\"}],\"obfuscation\":\"p\"}\n\n",
        "data: [DONE]\n\n",
    ]);
    let engine = FakeEngine::start(engine_scripts::openai().first(Method::POST, CHAT, stream)).await;
    proxy.engine("openai", "openai", &engine).await;
    let body = chat("gpt-4o-mini", &json!({"stream_options": {"include_obfuscation": true}}));
    let answer = proxy.post(CHAT, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told: Vec<Value> = chunks(&answer).into_iter().map(|chunk| chunk["obfuscation"].clone()).collect();
    assert_eq!(told, [json!("Zk3q"), json!("p")]);
    let asked = engine.wait_until(|seen| seen.asked.iter().any(|asked| asked.path == CHAT)).await;
    let sent = asked.asked.iter().find(|asked| asked.path == CHAT).expect("the chat").json();
    assert_eq!(sent["stream_options"]["include_obfuscation"], true, "{sent}");
    assert_eq!(sent["stream_options"]["include_usage"], true, "FLM asks for usage beside it: {sent}");
}

/// OpenAI's JavaScript library reads on after `[DONE]` until the body ends: an engine that keeps its connection open must
/// not keep the client.
#[tokio::test]
async fn the_body_ends_promptly_after_done_though_the_engine_keeps_its_connection() {
    let proxy = Proxy::start();
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
    reply.steps.push(Step::Stall);
    let script = engine_scripts::llamacpp().first(Method::POST, CHAT, reply);
    let engine = FakeEngine::start(script).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let request = proxy.request(Method::POST, CHAT, Some(&chat("flm-tiny", &json!({}))));
    let body = proxy.open(request).await.into_body().collect();
    let body = tokio::time::timeout(PATIENCE, body).await.expect("the engine stalls for ever").expect("a body");
    assert!(body.to_bytes().ends_with(b"data: [DONE]\n\n"));
    proxy.ended(RequestEnd::Completed).await;
    engine.wait_until(|seen| seen.left == 1).await;
}
