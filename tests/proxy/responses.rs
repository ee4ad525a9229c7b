//! Clients of OpenAI's Responses API, Codex among them, in front of every engine.

use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::key::KeyLimits;
use flm::types::request::{RequestEnd, TokenSource};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::Proxy;
use crate::anthropic::{kinds, named_events};
use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Step};

const RESPONSES: &str = "/v1/responses";

/// A request with all that Codex sends along.
fn codex(model: &str) -> Value {
    json!({
        "model": model,
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "sandbox: read-only"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        ],
        "tools": [{"type": "web_search"}, {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}],
        "tool_choice": "auto", "parallel_tool_calls": false, "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false, "stream": true, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
    })
}

async fn llamacpp_that(proxy: &Proxy, reply: Reply) -> FakeEngine {
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply);
    let engine = FakeEngine::start(script).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    engine
}

fn numbers_rise(events: &[(String, Value)]) {
    for (number, (_, data)) in events.iter().enumerate() {
        assert_eq!(data["sequence_number"], number);
    }
}

#[tokio::test]
async fn a_response_is_answered_by_every_engine_with_its_tokens() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let answer = proxy.post(RESPONSES, &json!({"model": model, "input": "hi", "instructions": "be brief"})).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let response = answer.json();
        assert_eq!((&response["object"], &response["error"]), (&json!("response"), &Value::Null), "{kind}");
        let message = response["output"].as_array().expect("items").last().expect("an item");
        assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")), "{kind}");
        assert_eq!(message["content"][0]["type"], "output_text", "{kind}");
        let row = proxy.ended(RequestEnd::Completed).await;
        assert_eq!(response["usage"]["input_tokens"].as_u64(), Some(row.tokens.prompt), "{kind}");
        assert_eq!(response["usage"]["output_tokens"].as_u64(), Some(row.tokens.completion), "{kind}");
        assert_eq!((row.tokens.source, row.route.as_deref()), (TokenSource::Engine, Some("responses")), "{kind}");
    }
}

#[tokio::test]
async fn a_stream_as_codex_asks_for_it_has_the_events_of_the_api_in_order_from_every_engine() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let answer = proxy.post(RESPONSES, &codex(model)).await;
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"), "{}", answer.text());
        assert!(!answer.text().contains("[DONE]"), "{kind}");
        let events = named_events(answer.text());
        numbers_rise(&events);
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names[..4],
            ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"],
            "{kind}"
        );
        assert!(names[4].contains("_text.delta"), "{kind}");
        let ends = ["response.completed", "response.incomplete"];
        assert!(ends.contains(names.last().expect("an event")), "{kind}: {names:?}");
        let row = proxy.ended(RequestEnd::Completed).await;
        let response = &events.last().expect("an event").1["response"];
        assert_eq!(response["usage"]["output_tokens"].as_u64(), Some(row.tokens.completion), "{kind}");
        assert!(row.stages.first_token.is_some() && row.tokens.completion > 0, "{kind}");
        assert_eq!(row.bytes_out, answer.body.len() as u64, "{kind}");
        let said: String = events
            .iter()
            .filter(|(name, _)| name == "response.output_text.delta")
            .filter_map(|(_, data)| data["delta"].as_str())
            .collect();
        let items = response["output"].as_array().expect("items");
        assert_eq!(items.last().expect("an item")["content"][0]["text"], said, "{kind}");
        let asked = engine.seen().asked.into_iter().next_back().expect("asked").json();
        let system = &asked["messages"][0];
        assert_eq!(system["content"], "You are a coding agent.\n\nsandbox: read-only", "{kind}: one system message");
        assert!(asked.get("tools").is_none(), "{kind}: tools that are no functions are left out");
    }
}

#[tokio::test]
async fn a_function_call_streams_its_arguments() {
    for (kind, script, model) in kinds().into_iter().filter(|(kind, ..)| matches!(*kind, "llamacpp" | "ollama")) {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let mut body = codex(model);
        body["tools"] = json!([{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}]);
        let answer = proxy.post(RESPONSES, &body).await;
        let events = named_events(answer.text());
        numbers_rise(&events);
        let done = events.iter().find(|(name, _)| name == "response.function_call_arguments.done").expect("a call");
        let arguments: String = events
            .iter()
            .filter(|(name, _)| name == "response.function_call_arguments.delta")
            .filter_map(|(_, data)| data["delta"].as_str())
            .collect();
        assert_eq!(done.1["arguments"], arguments, "{kind}");
        assert!(serde_json::from_str::<Value>(&arguments).is_ok_and(|value| value.is_object()), "{kind}: {arguments}");
        let item = &events.last().expect("an event").1["response"]["output"][0];
        assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("get_weather")), "{kind}");
        assert!(item["call_id"].as_str().is_some_and(|id| !id.is_empty()), "{kind}");
    }
}

#[tokio::test]
async fn the_probe_with_empty_input_is_answered() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = proxy.post(RESPONSES, &json!({"model": "flm-tiny", "input": [], "max_output_tokens": 1})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = engine.seen().asked.into_iter().next_back().expect("asked").json();
    assert_eq!(asked["max_tokens"], 1);
    assert_eq!(asked["messages"], json!([{"role": "user", "content": ""}]));
}

#[tokio::test]
async fn what_needs_state_is_refused_and_no_engine_is_troubled() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let before = engine.seen().asked.len();
    for (field, value) in [
        ("previous_response_id", json!("resp_1")),
        ("conversation", json!("conv_1")),
        ("background", json!(true)),
        ("prompt", json!({"id": "pmpt_1"})),
    ] {
        let mut body = json!({"model": "flm-tiny", "input": "hi"});
        body[field] = value;
        let answer = proxy.post(RESPONSES, &body).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status.as_u16(), &error["code"], &error["param"]),
            (400, &json!("unsupported_parameter"), &json!(field))
        );
    }
    assert_eq!(engine.seen().asked.len(), before);
    assert_eq!(proxy.get("/v1/responses/resp_1").await.status, 404);
}

#[tokio::test]
async fn an_engines_failure_inside_the_stream_ends_with_failed() {
    let recorded = Reply::recorded("llamacpp/b11434/chat_stream");
    let told = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
    let begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    for (name, reply) in [
        ("cut", recorded.cut_after(3, Step::Die)),
        ("told", Reply::stream(&[begun, told])),
        ("short", Reply::stream(&[begun])),
    ] {
        let proxy = Proxy::start();
        let _engine = llamacpp_that(&proxy, reply).await;
        let answer = proxy.post(RESPONSES, &codex("flm-tiny")).await;
        assert_eq!(answer.status, 200, "{name}");
        assert!(!answer.text().contains("[DONE]"), "{name}");
        let events = named_events(answer.text());
        numbers_rise(&events);
        let (last, data) = events.last().expect("an event");
        assert_eq!(last, "response.failed", "{name}");
        assert_eq!(data["response"]["error"]["code"], "engine_error", "{name}");
        proxy.ended(RequestEnd::EngineFailed).await;
    }
}

#[tokio::test]
async fn a_failure_while_the_client_is_kept_awake_is_told_as_events() {
    let limits = ProxyLimits { heartbeat: Duration::from_millis(40), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let failing = Reply::json(500, &json!({"error": {"message": "out of memory", "code": 500}}));
    let _engine = llamacpp_that(&proxy, failing.after(Duration::from_millis(150))).await;
    let answer = proxy.post(RESPONSES, &codex("flm-tiny")).await;
    assert!(answer.text().starts_with(": "), "{}", answer.text());
    let events = named_events(answer.text());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["response.created", "response.in_progress", "response.failed"]);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_work() {
    let proxy = Proxy::start();
    let engine = llamacpp_that(&proxy, Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall)).await;
    let mut response = proxy.open(proxy.request(Method::POST, RESPONSES, Some(&codex("flm-tiny")))).await;
    response.body_mut().frame().await.expect("a frame").expect("no error");
    drop(response);
    engine.wait_until(|seen| seen.left == 1).await;
    proxy.ended(RequestEnd::ClientLeft).await;
}
