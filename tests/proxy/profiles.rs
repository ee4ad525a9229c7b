//! Model profiles and prompts: saved by the operator, seen by the engine (SPEC §8).

use flm::types::calls::profiles::{DeleteProfile, ListProfiles, SaveProfile};
use flm::types::calls::prompts::{ListPromptRoutes, SetPrompt};
use flm::types::clock::Clock;
use flm::types::failure::ErrorCode;
use flm::types::ids::EngineId;
use flm::types::key::KeyLimits;
use flm::types::profile::Parameter;
use serde_json::{Value, json};

use crate::engine_scripts;
use crate::fake_engine::FakeEngine;
use crate::owner::{OwnHome, Running};

fn save(engine: &EngineId, model: &str, parameters: &[(&str, Value, bool)]) -> SaveProfile {
    let parameters = parameters
        .iter()
        .map(|(name, value, pinned)| Parameter { name: (*name).into(), value: value.clone(), pinned: *pinned })
        .collect();
    SaveProfile { engine: engine.clone(), model: model.into(), label: "careful".into(), parameters }
}

fn chat(more: &Value) -> Value {
    let mut body = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// What the engine got of the last request.
async fn asked(running: &Running, engine: &FakeEngine, key: &str, body: &Value) -> Value {
    let answer = running.post(key, "/v1/chat/completions", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    engine.seen().asked.iter().rfind(|asked| asked.method == "POST").expect("a request").json()
}

#[tokio::test]
async fn a_profile_is_in_force_for_the_next_request_and_the_client_wins_unless_it_is_pinned() {
    let home = OwnHome::at(Clock::system());
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start().await;
    let lab = running.engine("lab", "llamacpp", &engine).await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    let untouched = asked(&running, &engine, &key, &chat(&json!({}))).await;
    assert_eq!((untouched.get("temperature"), untouched.get("repeat_penalty")), (None, None));

    let values = [
        ("temperature", json!(0.25), false),
        ("max_tokens", json!(7), true),
        ("repeat_penalty", json!(1.5), false),
        ("cache_prompt", json!(false), false),
    ];
    let saved = running.call(save(&lab, "flm-tiny", &values)).await;
    let defaults = asked(&running, &engine, &key, &chat(&json!({}))).await;
    for (name, value, _) in &values {
        assert_eq!(&defaults[*name], value, "{defaults}");
    }
    let own = json!({"temperature": 1, "max_completion_tokens": 99, "cache_prompt": true});
    let own = asked(&running, &engine, &key, &chat(&own)).await;
    assert_eq!((&own["temperature"], &own["cache_prompt"]), (&json!(1), &json!(true)), "the client's own");
    assert_eq!((&own["max_tokens"], own.get("max_completion_tokens")), (&json!(7), None), "pinned");

    running.call(DeleteProfile { id: saved.id }).await;
    let after = asked(&running, &engine, &key, &chat(&json!({}))).await;
    assert_eq!(after, untouched);
    running.end().await;
}

#[tokio::test]
async fn ollama_gets_its_context_as_num_ctx_and_its_own_values_as_options_after_a_restart_too() {
    let home = OwnHome::at(Clock::system());
    let engine = FakeEngine::start(engine_scripts::ollama()).await;
    let running = home.start().await;
    let ollama = running.engine("ollama", "ollama", &engine).await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    let values = [("context_length", json!(8192), false), ("num_gpu", json!(1), true), ("stop", json!(["x"]), false)];
    running.call(save(&ollama, "tiny:latest", &values)).await;
    running.end().await;

    let running = home.start().await;
    let body = json!({"model": "tiny:latest", "messages": [{"role": "user", "content": "hi"}]});
    let got = asked(&running, &engine, &key, &body).await;
    assert_eq!(got["options"], json!({"num_gpu": 1, "num_ctx": 8192, "stop": ["x"]}), "{got}");
    running.end().await;
}

#[tokio::test]
async fn what_an_engine_cannot_do_and_what_makes_no_sense_is_refused_with_the_reason() {
    let home = OwnHome::at(Clock::system());
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start().await;
    let lab = running.engine("lab", "llamacpp", &engine).await;
    let nowhere = EngineId::parse("nowhere").expect("id");
    for (call, code, part) in [
        (save(&nowhere, "m", &[("top_p", json!(1), false)]), ErrorCode::EngineNotFound, "nowhere"),
        (save(&lab, "m", &[("context_length", json!(8192), false)]), ErrorCode::InvalidArgument, "llama.cpp"),
        (save(&lab, "m", &[("temperature", json!(9), false)]), ErrorCode::InvalidArgument, "from 0 to 2"),
        (save(&lab, "m", &[("messages", json!([]), false)]), ErrorCode::InvalidArgument, "belongs to the request"),
        (save(&lab, "", &[("top_p", json!(1), false)]), ErrorCode::InvalidArgument, "model's name"),
    ] {
        let failure = running.operator.call(call).await.expect_err(part);
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(part) && failure.hint.is_some(), "{part} in {failure:?}");
    }
    assert_eq!(running.call(ListProfiles::default()).await, []);
    running.end().await;
}

#[tokio::test]
async fn a_keys_own_prompt_wins_and_unknown_variables_are_refused_by_name() {
    let home = OwnHome::at(Clock::system());
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start().await;
    running.engine("lab", "llamacpp", &engine).await;
    let (id, key) = running.key("laptop", KeyLimits::default()).await;
    let (_, other) = running.key("desk", KeyLimits::default()).await;
    let set = |api_id: &str, text: &str| SetPrompt { api_id: api_id.into(), text: text.into() };
    running.call(set("chat.completions", "You serve {{key_label}}.")).await;
    running.call(set(&format!("chat.completions@{id}"), "Only for {{key_label}} on {{ model }}.")).await;
    let own = asked(&running, &engine, &key, &chat(&json!({}))).await;
    assert_eq!(own["messages"][0], json!({"role": "system", "content": "Only for laptop on flm-tiny."}));
    assert_eq!(own["messages"][1]["content"], "hi");
    let route = asked(&running, &engine, &other, &chat(&json!({}))).await;
    assert_eq!(route["messages"][0]["content"], "You serve desk.");

    let failure = running.operator.call(set("chat.completions", "{{date}} {{user}}")).await.expect_err("unknown");
    assert_eq!(failure.code, ErrorCode::InvalidArgument);
    assert!(failure.message.contains("{{user}}"), "{failure}");
    assert!(failure.hint.expect("a hint").contains("{{date}}, {{model}}, {{key_label}}"));
    running.end().await;
}

#[tokio::test]
async fn a_prompt_stands_before_the_clients_own_whatever_its_dialect() {
    let home = OwnHome::at(Clock::system());
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start().await;
    running.engine("lab", "llamacpp", &engine).await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    let routes = running.call(ListPromptRoutes {}).await;
    assert!(routes.contains(&"messages".to_owned()) && !routes.contains(&"messages.count_tokens".to_owned()));
    for (route, path, body) in [
        (
            "messages",
            "/v1/messages",
            json!({
                "model": "flm-tiny", "max_tokens": 5, "system": "client's own",
                "messages": [{"role": "user", "content": "hi"}],
            }),
        ),
        ("responses", "/v1/responses", json!({"model": "flm-tiny", "instructions": "client's own", "input": "hi"})),
    ] {
        running.call(SetPrompt { api_id: route.into(), text: format!("From {route}.") }).await;
        let answer = running.post(&key, path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = engine.seen().asked.iter().rfind(|asked| asked.method == "POST").expect("a request").json();
        let messages = got["messages"].as_array().expect("messages");
        assert_eq!(messages[0], json!({"role": "system", "content": format!("From {route}.")}), "{got}");
        assert!(messages[1].to_string().contains("client's own"), "{got}");
    }
    running.end().await;
}
