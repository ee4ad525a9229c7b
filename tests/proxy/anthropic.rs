//! Anthropic's clients in front of every engine: `/v1/messages` and `/v1/messages/count_tokens`.

use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::key::KeyLimits;
use flm::types::request::{RequestEnd, TokenSource};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Script, Step};
use crate::{Answer, Proxy};

const MESSAGES: &str = "/v1/messages";

/// Kind, script, and the model as clients name it.
pub(crate) fn kinds() -> [(&'static str, Script, &'static str); 4] {
    [
        ("llamacpp", engine_scripts::llamacpp(), "flm-tiny"),
        ("vllm", engine_scripts::vllm(), "flm-tiny"),
        ("ollama", engine_scripts::ollama(), "tiny:latest"),
        ("lmstudio", engine_scripts::lmstudio(), "tiny"),
    ]
}

fn message(model: &str) -> Value {
    json!({
        "model": model, "max_tokens": 16, "system": "be brief",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    })
}

fn streamed(model: &str) -> Value {
    let mut body = message(model);
    body["stream"] = json!(true);
    body
}

/// Name and data of each event.
pub(crate) fn named_events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    blocks
        .map(|block| {
            let (name, data) =
                block.strip_prefix("event: ").and_then(|rest| rest.split_once("\ndata: ")).expect("a named event");
            let data: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(data["type"], name, "{block}");
            (name.to_owned(), data)
        })
        .collect()
}

async fn llamacpp_that(proxy: &Proxy, reply: Reply) -> FakeEngine {
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply);
    let engine = FakeEngine::start(script).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    engine
}

fn is_error(answer: &Answer, status: u16, kind: &str) {
    let document = answer.json();
    assert_eq!(answer.status, status, "{document}");
    assert_eq!((&document["type"], &document["error"]["type"]), (&json!("error"), &json!(kind)), "{document}");
    assert!(document["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{document}");
    assert_eq!(document["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"), "where the client libraries look");
}

#[tokio::test]
async fn a_message_is_answered_by_every_engine_with_its_tokens() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let answer = proxy.post("/v1/messages?beta=true", &message(model)).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let document = answer.json();
        assert_eq!((&document["type"], &document["role"]), (&json!("message"), &json!("assistant")), "{kind}");
        assert_eq!(document["model"], model, "{kind}");
        assert_eq!(document["content"][0]["type"], "text", "{kind}: {document}");
        assert!(document["id"].as_str().is_some_and(|id| id.starts_with("msg_")));
        assert!(["end_turn", "max_tokens"].contains(&document["stop_reason"].as_str().expect("a reason")), "{kind}");
        let row = proxy.ended(RequestEnd::Completed).await;
        let usage = &document["usage"];
        let input = usage["input_tokens"].as_u64().expect("a number");
        let cached = usage["cache_read_input_tokens"].as_u64().expect("a number");
        assert_eq!((row.tokens.prompt, row.tokens.source), (input + cached, TokenSource::Engine), "{kind}");
        assert_eq!(usage["output_tokens"].as_u64(), Some(row.tokens.completion), "{kind}");
        assert_eq!(row.route.as_deref(), Some("messages"));
        let asked = engine.seen().asked.into_iter().next_back().expect("asked").json();
        assert_eq!(asked["messages"][0]["role"], "system", "{kind}: {asked}");
        assert_eq!(asked["messages"][0]["content"], "be brief");
    }
}

#[tokio::test]
async fn a_stream_has_the_events_of_the_api_in_order_from_every_engine() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let answer = proxy.post(MESSAGES, &streamed(model)).await;
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert!(!answer.text().contains("[DONE]"), "{kind}");
        let events = named_events(answer.text());
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..3], ["message_start", "content_block_start", "ping"], "{kind}: {names:?}");
        assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"], "{kind}");
        let mut open = None;
        for (name, data) in &events {
            match name.as_str() {
                "content_block_start" => assert_eq!(open.replace(data["index"].clone()), None, "{kind}"),
                "content_block_delta" => assert_eq!(open, Some(data["index"].clone()), "{kind}"),
                "content_block_stop" => assert_eq!(open.take(), Some(data["index"].clone()), "{kind}"),
                _ => {}
            }
        }
        let row = proxy.ended(RequestEnd::Completed).await;
        assert!(row.stream && row.stages.first_token.is_some(), "{kind}");
        assert_eq!(row.bytes_out, answer.body.len() as u64, "{kind}");
        let end = &events[events.len() - 2].1;
        assert_eq!(end["usage"]["output_tokens"].as_u64(), Some(row.tokens.completion), "{kind}: {end}");
        assert!(row.tokens.completion > 0 && row.tokens.prompt > 0, "{kind}: {row:?}");
    }
}

#[tokio::test]
async fn message_start_tells_the_prompts_tokens_where_the_engine_knows_them_early() {
    // vLLM tells usage beside each chunk when asked to.
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::vllm()).await;
    proxy.engine("vllm", "vllm", &engine).await;
    let events = named_events(proxy.post(MESSAGES, &streamed("flm-tiny")).await.text());
    assert_eq!(events[0].1["message"]["usage"]["input_tokens"], 30);
    // llama.cpp tells it with the progress of the prompt, before the first token.
    let proxy = Proxy::start();
    let engine = llamacpp_that(&proxy, Reply::recorded("llamacpp/b11434/chat_stream_progress")).await;
    let events = named_events(proxy.post(MESSAGES, &streamed("flm-tiny")).await.text());
    let usage = &events[0].1["message"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["cache_read_input_tokens"]), (&json!(1), &json!(30)));
    assert_eq!(engine.seen().asked.last().expect("asked").json()["return_progress"], true);
}

#[tokio::test]
async fn a_tool_call_streams_its_input_as_json_fragments() {
    let tools = json!([{"name": "get_weather", "input_schema": {"type": "object"}}]);
    for (kind, script, model) in kinds().into_iter().filter(|(kind, ..)| matches!(*kind, "llamacpp" | "ollama")) {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let mut body = streamed(model);
        body["tools"] = tools.clone();
        body["tool_choice"] = json!({"type": "any"});
        let answer = proxy.post(MESSAGES, &body).await;
        let events = named_events(answer.text());
        let start = events.iter().find(|(name, _)| name == "content_block_start").expect("a block");
        assert_eq!(start.1["content_block"]["type"], "tool_use", "{kind}: {}", answer.text());
        assert_eq!(start.1["content_block"]["name"], "get_weather");
        assert!(start.1["content_block"]["id"].as_str().is_some_and(|id| !id.is_empty()));
        let input: String = events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str()).collect();
        assert!(serde_json::from_str::<Value>(&input).is_ok_and(|input| input.is_object()), "{kind}: {input}");
        assert_eq!(events[events.len() - 2].1["delta"]["stop_reason"], "tool_use", "{kind}");
    }
}

#[tokio::test]
async fn refusals_of_every_stage_have_anthropics_shape() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let mut request = proxy.request(Method::POST, MESSAGES, Some(&message("flm-tiny")));
    request.headers_mut().remove("authorization");
    is_error(&proxy.send(request).await, 401, "authentication_error");
    is_error(&proxy.post(MESSAGES, &message("flm-tinny")).await, 404, "not_found_error");
    is_error(&proxy.post(MESSAGES, &json!({"model": "flm-tiny"})).await, 400, "invalid_request_error");
    is_error(&proxy.get(MESSAGES).await, 405, "invalid_request_error");
    is_error(&proxy.post("/v1/messages/batches", &json!({})).await, 404, "not_found_error");
    let mut with_video = message("flm-tiny");
    with_video["messages"][0]["content"][0] = json!({"type": "video"});
    is_error(&proxy.post(MESSAGES, &with_video).await, 400, "invalid_request_error");
}

#[tokio::test]
async fn a_key_in_x_api_key_and_anthropics_headers_are_taken() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let mut request = proxy.request(Method::POST, MESSAGES, Some(&message("flm-tiny")));
    request.headers_mut().remove("authorization");
    for (name, value) in [
        ("x-api-key", proxy.key.as_str()),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "interleaved-thinking-2025-05-14"),
    ] {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    assert_eq!(proxy.send(request).await.status, 200);
    let asked = engine.seen().asked.into_iter().next_back().expect("asked");
    assert!(asked.headers.get("x-api-key").is_none(), "the client's key never reaches an engine");
}

#[tokio::test]
async fn an_engines_errors_before_and_inside_the_stream_have_anthropics_shape() {
    let proxy = Proxy::start();
    let busy = Reply::json(503, &json!({"error": {"message": "Loading model", "code": 503}}));
    let _engine = llamacpp_that(&proxy, busy).await;
    is_error(&proxy.post(MESSAGES, &streamed("flm-tiny")).await, 503, "overloaded_error");

    let recorded = Reply::recorded("llamacpp/b11434/chat_stream");
    for (name, reply, kind) in [
        ("cut", recorded.clone().cut_after(3, Step::Die), "api_error"),
        (
            "told",
            Reply::stream(&[
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
                "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n",
            ]),
            "api_error",
        ),
        (
            "garbage",
            Reply::stream(&["data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", "data: {]}\n\n"]),
            "api_error",
        ),
    ] {
        let proxy = Proxy::start();
        let _engine = llamacpp_that(&proxy, reply).await;
        let answer = proxy.post(MESSAGES, &streamed("flm-tiny")).await;
        assert_eq!(answer.status, 200, "{name}");
        let events = named_events(answer.text());
        let (last, data) = events.last().expect("an event");
        assert_eq!((last.as_str(), &data["error"]["type"]), ("error", &json!(kind)), "{name}: {}", answer.text());
        assert_eq!(data["request_id"].as_str(), answer.header("x-request-id"));
        assert!(!answer.text().contains("message_stop") && !answer.text().contains("[DONE]"), "{name}");
        proxy.ended(RequestEnd::EngineFailed).await;
    }
}

#[tokio::test]
async fn a_slow_engine_keeps_the_client_awake_before_the_first_event() {
    let limits = ProxyLimits { heartbeat: Duration::from_millis(40), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let slow = Reply::recorded("llamacpp/b11434/chat_stream").after(Duration::from_millis(200));
    let _engine = llamacpp_that(&proxy, slow).await;
    let answer = proxy.post(MESSAGES, &streamed("flm-tiny")).await;
    assert!(answer.text().starts_with(": "), "{}", answer.text());
    assert_eq!(named_events(answer.text())[0].0, "message_start", "nothing but comments stands before it");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_work() {
    let proxy = Proxy::start();
    let engine = llamacpp_that(&proxy, Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall)).await;
    let mut response = proxy.open(proxy.request(Method::POST, MESSAGES, Some(&streamed("flm-tiny")))).await;
    response.body_mut().frame().await.expect("a frame").expect("no error");
    drop(response);
    engine.wait_until(|seen| seen.left == 1).await;
    proxy.ended(RequestEnd::ClientLeft).await;
}

#[tokio::test]
async fn tokens_are_counted_by_the_engine_and_an_estimate_says_that_it_is_one() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine(kind, kind, &engine).await;
        let answer = proxy.post("/v1/messages/count_tokens?beta=true", &message(model)).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let tokens = answer.json()["input_tokens"].as_u64().expect("a number");
        let (by, expected) = match kind {
            "llamacpp" => ("engine", 31),
            "vllm" => ("engine", 30),
            _ => ("estimate", 11),
        };
        assert_eq!((answer.header("x-flm-token-count"), tokens), (Some(by), expected), "{kind}");
    }
}

#[tokio::test]
async fn an_older_llama_cpp_counts_through_its_template_and_tokenizer() {
    let proxy = Proxy::start();
    let script = engine_scripts::llamacpp().first(
        Method::POST,
        "/v1/chat/completions/input_tokens",
        Reply::recorded("llamacpp/b11434/not_found"),
    );
    let engine = FakeEngine::start(script).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = proxy.post("/v1/messages/count_tokens", &message("flm-tiny")).await;
    assert_eq!(
        (answer.json()["input_tokens"].as_u64(), answer.header("x-flm-token-count")),
        (Some(10), Some("engine"))
    );
    let asked = engine.seen().asked.into_iter().next_back().expect("asked");
    assert!(asked.json()["content"].as_str().is_some_and(|prompt| prompt.contains("<|im_start|>")));
}

#[tokio::test]
async fn a_wish_to_think_reaches_engines_whose_model_can_and_no_other() {
    let thinking = json!({"type": "enabled", "budget_tokens": 1024});
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("ollama", "ollama", &engine).await;
    let mut body = message("tiny:latest");
    body["thinking"] = thinking.clone();
    assert_eq!(proxy.post(MESSAGES, &body).await.status, 200);
    assert_eq!(engine.seen().asked.last().expect("asked").json()["think"], true);
    // The recorded llama.cpp model has a template without a word of thinking.
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let mut body = message("flm-tiny");
    body["thinking"] = thinking;
    assert_eq!(proxy.post(MESSAGES, &body).await.status, 200);
    assert!(engine.seen().asked.last().expect("asked").json().get("thinking_budget_tokens").is_none());
}
