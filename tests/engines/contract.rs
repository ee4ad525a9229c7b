//! What every adapter must do, and what only some must.

use flm::engines::adapter::{EngineError, PrepareError};
use flm::engines::inference_route::InferenceRoute;
use flm::engines::registry::ADAPTERS;
use flm::types::engine::Capability;
use flm::types::request::TokenSource;
use http::Method;
use serde_json::{Value, json};

use crate::engine_scripts as scripts;
use crate::fake_engine::{FakeEngine, Reply, Script, Step};
use crate::{Got, adapter, exchange, with_session};

/// Makes the script of a fake engine anew, since each engine owns its own.
type MakeScript = fn() -> Script;

/// One adapter with the script of its engine.
struct Case {
    kind: &'static str,
    script: MakeScript,
    model: &'static str,
    /// What its stream says.
    says: &'static str,
    /// Usage of its stream.
    usage: (u64, u64),
}

const CASES: &[Case] = &[
    Case { kind: "ollama", script: scripts::ollama, model: "tiny:latest", says: " made other", usage: (31, 3) },
    Case {
        kind: "llamacpp",
        script: scripts::llamacpp,
        model: "flm-tiny",
        says: " made other can call no year read will",
        usage: (31, 8),
    },
    Case { kind: "vllm", script: scripts::vllm, model: "flm-tiny", says: " she has all side did up", usage: (30, 6) },
    Case { kind: "lmstudio", script: scripts::lmstudio, model: "tiny", says: " made other", usage: (31, 2) },
    Case { kind: "openai", script: scripts::openai, model: "gpt-4o-mini", says: "Hello there!", usage: (19, 3) },
];

fn hello() -> Value {
    json!({"model": "a-name-of-the-client", "messages": [{"role": "user", "content": "hello there"}]})
}

fn streamed(usage: bool) -> Value {
    let mut body = hello();
    body["stream"] = json!(true);
    if usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

async fn chat(kind: &str, engine: &FakeEngine, body: &Value, model: &str) -> Got {
    exchange(adapter(kind), engine, InferenceRoute::Chat, body, model).await.expect("can be put to the engine")
}

#[test]
fn every_adapter_is_in_the_suite() {
    let tested: Vec<&str> = CASES.iter().map(|case| case.kind).collect();
    let known: Vec<&str> = ADAPTERS.iter().map(|adapter| adapter.info().kind.as_str()).collect();
    assert_eq!(tested, known);
}

#[tokio::test]
async fn each_recognises_its_own_engine_and_no_other() {
    let engines: [(&str, MakeScript); 11] = [
        ("ollama", scripts::ollama),
        ("llamacpp", scripts::llamacpp),
        ("llamacpp", scripts::llamacpp_router),
        ("llamacpp", scripts::llamacpp_embed),
        ("llamacpp", scripts::llamacpp_locked),
        ("llamacpp", scripts::llamacpp_loading),
        ("vllm", scripts::vllm),
        ("vllm", scripts::vllm_embed),
        ("vllm", scripts::vllm_locked),
        ("lmstudio", scripts::lmstudio),
        ("nobody", || Script::new(Reply::json(200, &json!({"version": "1", "status": "ok"})))),
    ];
    let with_openais_list = || {
        let listed =
            json!({"object": "list", "data": [{"id": "tiny:latest", "object": "model", "owned_by": "library"}]});
        scripts::ollama().get("/v1/models", Reply::json(200, &listed))
    };
    let engines = engines.into_iter().chain([("ollama", with_openais_list as MakeScript)]);
    for (nth, (kind, script)) in engines.enumerate() {
        let engine = FakeEngine::start(script()).await;
        for adapter in ADAPTERS.iter().filter(|adapter| !adapter.info().ports.is_empty()) {
            let identity =
                with_session(&engine, async |session| adapter.identify(session).await).await.expect("answers");
            assert_eq!(
                identity.is_some(),
                adapter.info().kind.as_str() == kind,
                "{} on engine {nth}",
                adapter.info().title
            );
        }
    }
}

#[tokio::test]
async fn identity_tells_version_and_lock() {
    for (kind, script, version, locked) in [
        ("ollama", scripts::ollama as MakeScript, Some("0.33.0"), false),
        ("llamacpp", scripts::llamacpp, Some("b11434-unknown"), false),
        ("llamacpp", scripts::llamacpp_locked, None, true),
        ("vllm", scripts::vllm, Some("0.32.0"), false),
        ("vllm", scripts::vllm_locked, Some("0.32.0"), true),
        ("lmstudio", scripts::lmstudio, None, false),
        ("openai", scripts::vllm_locked, None, true),
    ] {
        let engine = FakeEngine::start(script()).await;
        let identity = with_session(&engine, async |session| adapter(kind).identify(session).await).await;
        let identity = identity.expect("answers").expect("recognised");
        assert_eq!((identity.version.as_deref(), identity.locked), (version, locked), "{kind}");
    }
}

#[tokio::test]
async fn a_living_engine_passes_its_check_and_a_loading_or_foreign_one_does_not() {
    for case in CASES {
        let engine = FakeEngine::start((case.script)()).await;
        let alive = with_session(&engine, async |session| adapter(case.kind).check(session).await).await;
        assert_eq!(alive, Ok(()), "{}", case.kind);
        let busy = FakeEngine::start(scripts::llamacpp_loading()).await;
        let loading = with_session(&busy, async |session| adapter(case.kind).check(session).await).await;
        let expected = EngineError::Busy { status: 503, reason: "Loading model".into() };
        assert_eq!(loading, Err(expected), "{}", case.kind);
        let page = FakeEngine::start(Script::new(Reply::json(404, &json!({"detail": "Not Found"})))).await;
        let foreign = with_session(&page, async |session| adapter(case.kind).check(session).await).await;
        assert!(matches!(foreign, Err(EngineError::Api(_))), "{}: {foreign:?}", case.kind);
    }
}

#[tokio::test]
async fn models_carry_what_the_engine_tells() {
    let list = async |kind: &str, script: Script| {
        let engine = FakeEngine::start(script).await;
        with_session(&engine, async |session| adapter(kind).models(session).await).await.expect("lists")
    };
    let models = list("llamacpp", scripts::llamacpp()).await;
    assert_eq!(
        (&*models[0].name, models[0].context_length, models[0].size_bytes),
        ("flm-tiny", Some(512), Some(576_768))
    );
    assert!(models[0].capabilities.contains(&Capability::Tools));
    assert!(!models[0].capabilities.contains(&Capability::Vision));
    assert!(!models[0].capabilities.contains(&Capability::Reasoning));

    let models = list("llamacpp", scripts::llamacpp_router()).await;
    let loaded: Vec<_> = models.iter().map(|model| (&*model.name, model.loaded)).collect();
    assert_eq!(loaded, [("flm-embed", Some(false)), ("flm-tiny", Some(true))]);

    let models = list("vllm", scripts::vllm()).await;
    assert_eq!((&*models[0].name, models[0].context_length, models[0].loaded), ("flm-tiny", Some(256), Some(true)));

    let models = list("ollama", scripts::ollama()).await;
    assert_eq!((&*models[0].name, models[0].loaded, models[0].context_length), ("tiny:latest", Some(true), Some(4096)));
    assert_eq!(models[0].parameters.as_deref(), Some("144.19K"));
    assert!(models[0].capabilities.contains(&Capability::Tools), "told by /api/show only");
    assert_eq!(models[1].capabilities, [Capability::Embeddings].into());
    assert_eq!((models[1].loaded, models[1].context_length), (Some(false), Some(512)));

    let models = list("lmstudio", scripts::lmstudio()).await;
    assert_eq!((&*models[0].name, models[0].loaded, models[0].context_length), ("tiny", Some(true), Some(4096)));
    assert_eq!(models[1].capabilities, [Capability::Embeddings].into());
    let unknown = Reply::recorded("lmstudio/0.4.1-documented/unknown_path");
    let models = list("lmstudio", scripts::lmstudio().first(Method::GET, "/api/v1/models", unknown.clone())).await;
    assert!(models[0].capabilities.contains(&Capability::Vision), "the older list names it a vlm");
    let oldest = scripts::lmstudio().first(Method::GET, "/api/v1/models", unknown.clone());
    let models = list("lmstudio", oldest.first(Method::GET, "/api/v0/models", unknown)).await;
    assert_eq!(models.len(), 2);
}

#[tokio::test]
async fn a_whole_chat_is_answered_in_openais_shape_with_usage() {
    for case in CASES {
        let engine = FakeEngine::start((case.script)()).await;
        let got = chat(case.kind, &engine, &hello(), case.model).await;
        assert_eq!(got.fault, None, "{}", case.kind);
        let answer = got.json();
        assert!(answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert_eq!(answer["object"], "chat.completion", "{}", case.kind);
        let usage = got.progress.usage.expect("usage");
        assert_eq!(answer["usage"]["prompt_tokens"], usage.prompt);
        assert!(got.progress.done);
        let asked = &engine.seen().asked[0];
        assert_eq!(asked.json()["model"], case.model, "{}", case.kind);
        assert_eq!(asked.headers["authorization"], "Bearer engine-key");
    }
}

#[tokio::test]
async fn a_stream_says_the_same_on_every_engine_and_usage_is_stripped_unless_wanted() {
    for case in CASES {
        for wanted in [true, false] {
            let engine = FakeEngine::start((case.script)()).await;
            let got = chat(case.kind, &engine, &streamed(wanted), case.model).await;
            assert_eq!(got.fault, None, "{}", case.kind);
            assert!(got.text.ends_with("data: [DONE]\n\n"), "{}", case.kind);
            assert_eq!(got.content("content"), case.says, "{}", case.kind);
            let usage = got.progress.usage.expect("FLM always asks for usage");
            assert_eq!((usage.prompt, usage.completion), case.usage, "{}", case.kind);
            let chunks = got.chunks();
            let alone = chunks.iter().filter(|chunk| chunk["choices"] == json!([])).count();
            assert_eq!(alone, usize::from(wanted), "{}", case.kind);
            assert!(got.progress.deltas >= 2 && got.progress.done);
            assert!(
                chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["created"] == chunks[0]["created"])
            );
            let finishes = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string()).count();
            assert_eq!(finishes, 1, "{}", case.kind);
        }
    }
}

#[tokio::test]
async fn completions_and_embeddings_pass() {
    for case in CASES {
        let engine = FakeEngine::start((case.script)()).await;
        for stream in [false, true] {
            let body = json!({"model": "x", "prompt": "once", "stream": stream});
            if matches!(case.kind, "lmstudio" | "openai") && stream {
                continue;
            }
            let got = exchange(adapter(case.kind), &engine, InferenceRoute::Completions, &body, case.model).await;
            let got = got.expect("can be put");
            assert_eq!(got.fault, None, "{}", case.kind);
            assert!(got.text.contains("\"text\""), "{}", case.kind);
        }
    }
    for (kind, script) in [
        ("ollama", scripts::ollama as MakeScript),
        ("llamacpp", scripts::llamacpp_embed),
        ("vllm", scripts::vllm_embed),
        ("lmstudio", scripts::lmstudio),
        ("openai", scripts::llamacpp_embed),
    ] {
        let engine = FakeEngine::start(script()).await;
        let body = json!({"model": "x", "input": "hello"});
        let got = exchange(adapter(kind), &engine, InferenceRoute::Embeddings, &body, "flm-embed").await;
        let got = got.expect("can be put");
        assert_eq!(got.fault, None, "{kind}");
        assert!(got.json()["data"][0]["embedding"].is_array(), "{kind}");
        assert!(got.progress.usage.is_some_and(|usage| usage.prompt > 0), "{kind}");
    }
}

/// llama.cpp counts the first of several choices and prompts; a budget counts them all.
#[tokio::test]
async fn every_answer_to_every_prompt_counts() {
    let whole = json!({"model": "x", "prompt": ["once", "there was a small"], "max_tokens": 3});
    let mut stream = whole.clone();
    stream["stream"] = json!(true);
    let engine = FakeEngine::start(scripts::llamacpp()).await;
    for (body, told, source) in [
        // Five tokens and eighteen; three for each answer.
        (&stream, (23, 6), TokenSource::Engine),
        // It tells (5, 3): the rest is a guess at four letters a token.
        (&whole, (5 + 5, 3 + 3), TokenSource::Estimated),
    ] {
        let got = exchange(adapter("llamacpp"), &engine, InferenceRoute::Completions, body, "flm-tiny").await;
        let got = got.expect("can be put");
        assert_eq!(got.fault, None);
        let usage = got.progress.usage.expect("usage");
        assert_eq!(((usage.prompt, usage.completion), usage.source), (told, source));
    }
    let mut two = hello();
    two["n"] = json!(2);
    let usage = chat("llamacpp", &engine, &two, "flm-tiny").await.progress.usage.expect("usage");
    assert_eq!((usage.prompt, usage.source), (31, TokenSource::Estimated), "both answer the same prompt");
    assert!(usage.completion > 4, "the first answer alone has four: {usage:?}");
    // A prompt in tokens is one.
    let tokens = json!({"model": "x", "prompt": [5, 6, 7]});
    let got = exchange(adapter("llamacpp"), &engine, InferenceRoute::Completions, &tokens, "flm-tiny").await;
    assert_eq!(got.expect("can be put").progress.usage.map(|usage| usage.source), Some(TokenSource::Engine));
}

#[tokio::test]
async fn errors_keep_their_meaning_whatever_the_engine_calls_them() {
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]});
    let long = json!({"messages": [{"role": "user", "content": "a ".repeat(2000)}]});
    let none = json!({"model": "x"});
    let busy = || {
        let full = Reply::recorded("ollama/0.33.0-documented/chat_no_messages_busy");
        scripts::ollama().first(Method::POST, "/api/chat", full)
    };
    let lacks = |what: &str| {
        let words = format!("\"tiny:latest\" does not support {what}");
        scripts::ollama().first(Method::POST, "/api/chat", Reply::json(400, &json!({"error": words})))
    };
    let slow_down = || {
        let told =
            json!({"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}});
        scripts::openai().first(Method::POST, "/v1/chat/completions", Reply::json(429, &told))
    };
    for (kind, script, body, model, status, code, retryable) in [
        ("llamacpp", scripts::llamacpp(), &image, "flm-tiny", 422, "unsupported_modalities", false),
        ("vllm", scripts::vllm(), &image, "flm-tiny", 422, "unsupported_modalities", false),
        ("llamacpp", scripts::llamacpp(), &long, "flm-tiny", 400, "context_length_exceeded", false),
        ("vllm", scripts::vllm(), &long, "flm-tiny", 400, "context_length_exceeded", false),
        ("llamacpp", scripts::llamacpp(), &none, "flm-tiny", 400, "invalid_request", false),
        ("vllm", scripts::vllm(), &none, "flm-tiny", 400, "invalid_request", false),
        ("lmstudio", scripts::lmstudio(), &none, "tiny", 400, "invalid_request", false),
        ("vllm", scripts::vllm(), &hello(), "no-such-model", 404, "model_not_found", false),
        ("llamacpp", scripts::llamacpp_router(), &hello(), "no-such-model", 404, "model_not_found", false),
        ("ollama", scripts::ollama(), &hello(), "no-such-model", 404, "model_not_found", false),
        ("llamacpp", scripts::llamacpp_locked(), &hello(), "flm-tiny", 502, "engine_error", false),
        ("vllm", scripts::vllm_locked(), &hello(), "flm-tiny", 502, "engine_error", false),
        ("llamacpp", scripts::llamacpp_loading(), &hello(), "flm-tiny", 503, "engine_unavailable", true),
        ("ollama", busy(), &hello(), "tiny:latest", 503, "engine_unavailable", true),
        ("vllm", scripts::vllm_embed(), &hello(), "flm-embed", 501, "not_implemented", false),
        ("ollama", lacks("tools"), &hello(), "tiny:latest", 422, "unsupported_modalities", false),
        ("ollama", lacks("thinking"), &hello(), "tiny:latest", 422, "unsupported_modalities", false),
        ("openai", slow_down(), &hello(), "gpt-4o-mini", 429, "rate_limited", true),
    ] {
        let engine = FakeEngine::start(script).await;
        let fault = chat(kind, &engine, body, model).await.fault.expect("a fault");
        assert_eq!((fault.status, fault.code.as_str(), fault.retryable), (status, code, retryable), "{kind}: {fault}");
        assert!(!fault.message.is_empty());
        if code == "engine_error" {
            assert!(fault.message.contains("--api-key-env"), "{fault}");
        }
    }
    for (kind, script, status, code) in [
        ("llamacpp", scripts::llamacpp(), 501, "not_implemented"),
        ("vllm", scripts::vllm(), 501, "not_implemented"),
        ("vllm", scripts::vllm_embed(), 400, "context_length_exceeded"),
        ("llamacpp", scripts::llamacpp_embed(), 400, "context_length_exceeded"),
    ] {
        let engine = FakeEngine::start(script).await;
        let body = json!({"input": "word ".repeat(400)});
        let got = exchange(adapter(kind), &engine, InferenceRoute::Embeddings, &body, "m").await.expect("can be put");
        let fault = got.fault.expect("a fault");
        assert_eq!((fault.status, fault.code.as_str()), (status, code), "{kind}: {fault}");
    }
}

#[tokio::test]
async fn reasoning_comes_under_one_name_and_the_engines_own_stays() {
    for (kind, recording, own) in [
        ("llamacpp", "llamacpp/b11434-key/chat_reasoning_budget_stream", "reasoning_content"),
        ("vllm", "vllm/0.32.0-key/chat_reasoning_then_content_stream", "reasoning"),
        ("ollama", "ollama/0.33.0-documented/chat_stream", "reasoning"),
    ] {
        let engine = FakeEngine::start(Script::new(Reply::recorded(recording))).await;
        let got = chat(kind, &engine, &streamed(true), "m").await;
        assert_eq!(got.fault, None, "{kind}");
        let reasoning = got.content("reasoning_content");
        assert!(!reasoning.is_empty(), "{kind}");
        assert_eq!(got.content(own), reasoning, "{kind}");
        assert!(!got.content("content").is_empty(), "{kind}");
    }
    let engine = FakeEngine::start(Script::new(Reply::recorded("vllm/0.32.0-key/chat_reasoning"))).await;
    let message = chat("vllm", &engine, &hello(), "m").await.json()["choices"][0]["message"].clone();
    assert!(message["reasoning"].is_string());
    assert_eq!(message["reasoning_content"], message["reasoning"]);
}

#[tokio::test]
async fn tool_calls_stream_with_index_and_string_arguments() {
    let mut body = streamed(true);
    body["tools"] = json!([{"type": "function", "function": {"name": "get_weather"}}]);
    for (kind, script, model) in [
        ("llamacpp", scripts::llamacpp(), "flm-tiny"),
        ("vllm", Script::new(Reply::recorded("vllm/0.32.0-key/chat_tools_required_stream")), "flm-tiny"),
        ("ollama", scripts::ollama(), "tiny:latest"),
    ] {
        let engine = FakeEngine::start(script).await;
        let got = chat(kind, &engine, &body, model).await;
        assert_eq!(got.fault, None, "{kind}");
        let chunks = got.chunks();
        let calls: Vec<&Value> =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
        assert!(calls.iter().all(|call| call["index"].is_u64()), "{kind}");
        assert_eq!(calls[0]["function"]["name"], "get_weather", "{kind}");
        let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
        // The random model behind the recording of vLLM argues with `false`.
        assert!(serde_json::from_str::<Value>(&arguments).is_ok(), "{kind}: {arguments}");
    }
}

#[tokio::test]
async fn continuous_usage_and_interleaved_choices_pass() {
    let engine = FakeEngine::start(scripts::vllm()).await;
    let mut body = streamed(true);
    body["stream_options"]["continuous_usage_stats"] = json!(true);
    let got = chat("vllm", &engine, &body, "flm-tiny").await;
    assert_eq!(got.fault, None);
    assert_eq!(engine.seen().asked[0].json()["stream_options"]["continuous_usage_stats"], true);
    assert_eq!(
        got.progress.usage.map(|usage| usage.completion),
        got.chunks().last().and_then(|c| c["usage"]["completion_tokens"].as_u64())
    );
    let mut two = streamed(false);
    two["n"] = json!(2);
    let got = chat("vllm", &engine, &two, "flm-tiny").await;
    assert_eq!(got.fault, None);
    assert_eq!(got.chunks().iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string()).count(), 2);
}

#[tokio::test]
async fn the_body_is_passed_byte_for_byte_but_for_the_edits() {
    let engine = FakeEngine::start(scripts::llamacpp()).await;
    let mut body = hello();
    body["x_unknown"] = json!({"kept": [1, 2]});
    body["temperature"] = json!(9);
    body["stream_options"] = json!({});
    chat("llamacpp", &engine, &body, "flm-tiny").await;
    let mut expected = body.clone();
    expected["model"] = json!("flm-tiny");
    expected["temperature"] = json!(2);
    expected.as_object_mut().expect("an object").shift_remove("stream_options");
    assert_eq!(std::str::from_utf8(&engine.seen().asked[0].body).expect("text"), expected.to_string());
}

#[tokio::test]
async fn what_an_engine_would_ignore_or_refuse_is_refused_or_translated() {
    for kind in ["ollama", "lmstudio"] {
        let engine = FakeEngine::start(Script::new(Reply::json(500, &json!({})))).await;
        let mut body = hello();
        body["n"] = json!(2);
        let refused = exchange(adapter(kind), &engine, InferenceRoute::Chat, &body, "m").await;
        assert!(matches!(refused, Err(PrepareError::Unsupported { param, .. }) if param == "n"), "{kind}");
        assert!(engine.seen().asked.is_empty());
    }
    let engine = FakeEngine::start(scripts::lmstudio()).await;
    let mut body = hello();
    body["response_format"] = json!({"type": "json_object"});
    assert_eq!(chat("lmstudio", &engine, &body, "tiny").await.fault, None);
}

#[tokio::test]
async fn a_tool_that_is_named_is_the_only_one_where_an_engine_knows_words_alone() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let mut body = hello();
    body["tools"] = json!([tool("a"), tool("b")]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "b"}});
    for (kind, script, model) in [
        ("llamacpp", scripts::llamacpp(), "flm-tiny"),
        ("lmstudio", scripts::lmstudio(), "tiny"),
        ("ollama", scripts::ollama(), "tiny:latest"),
        ("vllm", scripts::vllm(), "flm-tiny"),
    ] {
        let engine = FakeEngine::start(script).await;
        chat(kind, &engine, &body, model).await;
        let asked = engine.seen().asked.last().expect("asked").json();
        let (tools, choice) = match kind {
            "vllm" => (body["tools"].clone(), Some(&body["tool_choice"])),
            // It cannot be made to call; it sees no other tool.
            "ollama" => (json!([tool("b")]), None),
            _ => (json!([tool("b")]), Some(&json!("required"))),
        };
        assert_eq!((&asked["tools"], asked.get("tool_choice")), (&tools, choice), "{kind}");
    }
    // What cannot be put into a word is left out.
    body["tool_choice"] = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}});
    let engine = FakeEngine::start(scripts::llamacpp()).await;
    chat("llamacpp", &engine, &body, "flm-tiny").await;
    let asked = engine.seen().asked.last().expect("asked").json();
    assert_eq!((&asked["tools"], asked.get("tool_choice")), (&body["tools"], None));
}

#[tokio::test]
async fn an_engine_that_dies_errs_or_sends_garbage_in_a_stream_is_a_fault_after_what_it_said() {
    for case in CASES {
        let recording = match case.kind {
            "ollama" => "ollama/0.33.0-documented/chat_stream",
            "vllm" => "vllm/0.32.0/chat_stream",
            "lmstudio" => "lmstudio/0.4.1-documented/chat_stream_usage",
            _ => "llamacpp/b11434/chat_stream",
        };
        let dead = FakeEngine::start(Script::new(Reply::recorded(recording).cut_after(2, Step::Die))).await;
        let got = chat(case.kind, &dead, &streamed(false), "m").await;
        let fault = got.fault.as_ref().expect("a fault");
        assert_eq!((fault.status, fault.code.as_str()), (502, "engine_error"), "{}", case.kind);
        assert!(!got.progress.done && !got.text.contains("[DONE]"), "{}", case.kind);
        assert!(!got.chunks().is_empty(), "{}", case.kind);
        let garbage = Step::Send("data: <html>busy</html>\n\n".into());
        let mad = FakeEngine::start(Script::new(Reply::recorded(recording).cut_after(2, garbage))).await;
        let got = chat(case.kind, &mad, &streamed(false), "m").await;
        assert_eq!(got.fault.map(|fault| fault.status), Some(502), "{}", case.kind);
    }
    for (kind, recording) in [
        ("ollama", "ollama/0.33.0-documented/chat_stream_error"),
        ("lmstudio", "lmstudio/0.4.1-documented/chat_stream_error"),
    ] {
        let engine = FakeEngine::start(Script::new(Reply::recorded(recording))).await;
        let got = chat(kind, &engine, &streamed(false), "m").await;
        assert_eq!(got.content("content"), " made", "{kind}");
        let fault = got.fault.expect("a fault");
        assert_eq!(fault.status, 502, "{kind}");
        assert!(fault.message.contains("model"), "{fault}");
    }
}

#[tokio::test]
async fn an_error_under_status_200_is_a_fault() {
    let unknown = Reply::recorded("lmstudio/0.4.1-documented/unknown_path");
    let engine = FakeEngine::start(Script::new(unknown)).await;
    for body in [hello(), streamed(false)] {
        let got = chat("lmstudio", &engine, &body, "tiny").await;
        assert_eq!(got.fault.map(|fault| fault.status), Some(502));
        assert!(got.text.is_empty());
    }
}

#[tokio::test]
async fn ranks_are_read_with_their_tokens_and_an_engine_without_them_says_so() {
    let asked = json!({"model": "a-name-of-the-client", "query": "hello", "documents": ["word", "hello there"]});
    let rerank = InferenceRoute::Rerank;
    for (kind, script, tokens) in
        [("llamacpp", scripts::llamacpp_rerank as MakeScript, 27), ("vllm", scripts::vllm_embed, 20)]
    {
        let engine = FakeEngine::start(script()).await;
        let got = exchange(adapter(kind), &engine, rerank, &asked, "flm-embed").await.expect("can be put to it");
        assert_eq!(got.fault, None, "{kind}");
        assert_eq!(got.json()["results"].as_array().map(Vec::len), Some(2), "{kind}");
        assert_eq!(got.progress.usage.map(|usage| (usage.prompt, usage.completion)), Some((tokens, 0)), "{kind}");
        assert_eq!(engine.seen().asked[0].json()["model"], "flm-embed", "{kind}");
    }
    let engine = FakeEngine::start(scripts::llamacpp()).await;
    let got = exchange(adapter("llamacpp"), &engine, rerank, &asked, "flm-tiny").await.expect("can be put to it");
    let fault = got.fault.expect("it was started without");
    assert_eq!((fault.status, fault.code.as_str(), fault.retryable), (501, "not_implemented", false));
    for kind in ["ollama", "lmstudio"] {
        let refused = exchange(adapter(kind), &engine, rerank, &asked, "tiny").await;
        assert!(matches!(refused, Err(PrepareError::NotOffered(_))), "{kind}");
    }
}
