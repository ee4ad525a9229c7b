//! What a well-behaved client gets.

use flm::proxy::prompt::PromptTable;
use flm::types::calls::engines::{AddEngine, ListEngines};
use flm::types::calls::settings::SetSetting;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::engine::{Capability, EngineKind};
use flm::types::ids::EngineId;
use flm::types::key::KeyLimits;
use flm::types::prompt::PromptView;
use flm::types::request::{Progress, RequestEnd, RequestRow, TokenSource};
use http::Method;
use serde_json::json;
use std::sync::Arc;

use crate::Proxy;
use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply};
use crate::owner::OwnHome;

fn chat(model: &str) -> serde_json::Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "unknown_field": {"kept": [1, 2]}})
}

#[tokio::test]
async fn models_are_listed_in_openais_shape_with_the_canonical_name() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = proxy.get("/v1/models").await;
    assert_eq!(answer.status, 200);
    let list = answer.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "flm-tiny");
    assert_eq!(list["data"][0]["object"], "model");
    assert_eq!(list["data"][0]["flm"], "flm://llamacpp/flm-tiny");
    for name in ["flm-tiny", "llamacpp/flm-tiny", "llamacpp%2Fflm-tiny"] {
        let one = proxy.get(&format!("/v1/models/{name}")).await;
        assert_eq!((one.status.as_u16(), one.json()["id"].as_str()), (200, Some("flm-tiny")), "{name}");
    }
    // What Anthropic's libraries read of the same list.
    let shown = &list["data"][0];
    assert_eq!((shown["type"].as_str(), shown["display_name"].as_str()), (Some("model"), Some("flm-tiny")));
    assert_eq!(
        (shown["created"].as_i64(), shown["created_at"].as_str()),
        (Some(1_700_000_000), Some("2023-11-14T22:13:20Z"))
    );
    assert_eq!(
        (&list["has_more"], &list["first_id"], &list["last_id"]),
        (&json!(false), &json!("flm-tiny"), &json!("flm-tiny"))
    );
    let missing = proxy.get("/v1/models/flm-tinny").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"]["message"].as_str().expect("text").contains("flm-tiny"), "names near matches");
}

#[tokio::test]
async fn a_chat_reaches_the_engine_unchanged_but_for_its_model_and_comes_back_with_its_tokens_counted() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = proxy.post("/v1/chat/completions", &chat("flm://llamacpp/flm-tiny")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    let asked = engine.seen().asked.into_iter().find(|asked| asked.path == "/v1/chat/completions").expect("asked");
    assert_eq!(asked.json()["model"], "flm-tiny");
    assert_eq!(asked.json()["unknown_field"], json!({"kept": [1, 2]}));
    assert!(asked.headers.get("authorization").is_none(), "the client's key never reaches an engine");
    assert_eq!(asked.headers["host"], engine.address.to_string().as_str(), "the engine's own address");
    let row = proxy.ended(RequestEnd::Completed).await;
    assert_eq!(row.status, 200);
    assert_eq!(row.tokens.source, TokenSource::Engine);
    assert_eq!(row.tokens.prompt, document["usage"]["prompt_tokens"].as_u64().expect("a number"));
    assert_eq!(row.tokens.completion, document["usage"]["completion_tokens"].as_u64().expect("a number"));
    assert_eq!(row.engine.expect("an engine").as_str(), "llamacpp");
    assert_eq!(row.key, Some(proxy.key_id));
    assert_eq!(row.route.as_deref(), Some("chat.completions"));
    let times = row.stages;
    let order = [times.screened, times.authenticated, times.parsed, times.resolved, times.sent, times.first_byte];
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{times:?}");
    assert_eq!(answer.header("x-request-id"), Some(row.id.as_str()));
    assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("600"));
    assert!(answer.header("x-ratelimit-remaining-requests").is_some());
    assert!(answer.header("x-ratelimit-reset-requests").is_some());
    assert!(answer.header("server").is_none(), "no header of the engine reaches a client");
}

#[tokio::test]
async fn a_stream_passes_chunk_by_chunk_and_the_usage_chunk_only_when_asked_for() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    for usage_wanted in [false, true] {
        let mut body = chat("flm-tiny");
        body["stream"] = json!(true);
        if usage_wanted {
            body["stream_options"] = json!({"include_usage": true});
        }
        let answer = proxy.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
        assert_eq!(answer.text().contains("\"usage\""), usage_wanted, "{}", answer.text());
        let id = answer.header("x-request-id").expect("an id");
        let ended = |row: &RequestRow| row.id.as_str() == id && row.progress != Progress::Running;
        let row = proxy.row(ended).await;
        assert!(row.stream && row.tokens.completion > 0 && row.tokens.source == TokenSource::Engine, "{row:?}");
        assert!(row.stages.first_token.is_some());
        assert_eq!(row.bytes_out, answer.body.len() as u64);
    }
}

#[tokio::test]
async fn an_ollama_stream_becomes_openai_chunks() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("ollama", "ollama", &engine).await;
    let list = proxy.get("/v1/models").await.json();
    let model = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|model| !model["id"].as_str().expect("id").contains("embed"));
    let model = model.expect("a chat model")["id"].as_str().expect("id").to_owned();
    let mut body = chat(&model);
    body["stream"] = json!(true);
    let answer = proxy.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let events: Vec<&str> = answer.text().split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    for event in &events[..events.len() - 1] {
        let chunk: serde_json::Value = serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(chunk["object"], "chat.completion.chunk");
    }
}

#[tokio::test]
async fn embeddings_are_served_by_the_engine_that_has_them_and_others_say_501() {
    let proxy = Proxy::start();
    let chat_engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let embed_engine = FakeEngine::start(engine_scripts::llamacpp_embed()).await;
    proxy.engine("chat", "llamacpp", &chat_engine).await;
    proxy.engine("embed", "llamacpp", &embed_engine).await;
    let models = proxy.get("/v1/models").await.json();
    let ids: Vec<&str> =
        models["data"].as_array().expect("a list").iter().filter_map(|model| model["id"].as_str()).collect();
    let embedding = ids.iter().find(|id| id.contains("embed")).expect("an embedding model");
    let answer = proxy.post("/v1/embeddings", &json!({"model": embedding, "input": "hello"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["data"][0]["embedding"].is_array());
    let refused = proxy.post("/v1/embeddings", &json!({"model": "flm-tiny", "input": "hello"})).await;
    assert_eq!((refused.status.as_u16(), refused.json()["error"]["code"].as_str()), (501, Some("not_implemented")));
    assert_eq!(refused.header("x-should-retry"), Some("false"), "llama.cpp tells only when asked");
}

#[tokio::test]
async fn a_model_that_is_known_to_lack_something_is_422() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("ollama", "ollama", &engine).await;
    let models = proxy.shared.registry.models();
    let embedding =
        models.iter().find(|model| !model.capabilities.contains(&Capability::Chat)).expect("an embedding model");
    let refused = proxy.post("/v1/chat/completions", &chat(&embedding.listed_as)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["error"]["code"].as_str()),
        (422, Some("unsupported_modalities"))
    );
}

#[tokio::test]
async fn a_prompt_stands_before_the_clients_messages() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let prompt = PromptView {
        api_id: "chat.completions".into(),
        text: "You serve {{key_label}} with {{model}}.".into(),
        version: 1,
        updated: UnixMillis(0),
    };
    proxy.shared.prompts.store(Arc::new(PromptTable::new(vec![prompt])));
    assert_eq!(proxy.post("/v1/chat/completions", &chat("flm-tiny")).await.status, 200);
    let asked = engine.seen().asked.into_iter().find(|asked| asked.path == "/v1/chat/completions").expect("asked");
    let messages = &asked.json()["messages"];
    assert_eq!(messages[0], json!({"role": "system", "content": "You serve test with flm-tiny."}));
    assert_eq!(messages[1]["role"], "user");
}

#[tokio::test]
async fn a_dead_engine_is_passed_over_before_the_first_byte() {
    let proxy = Proxy::start();
    let dead = FakeEngine::start(engine_scripts::llamacpp()).await;
    let live = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("a-dead", "llamacpp", &dead).await;
    proxy.engine("b-live", "llamacpp", &live).await;
    drop(dead);
    for _ in 0..4 {
        let answer = proxy.post("/v1/chat/completions", &chat("flm-tiny")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let row = proxy.ended(RequestEnd::Completed).await;
    assert_eq!(row.engine.expect("an engine").as_str(), "b-live");
}

#[tokio::test]
async fn a_loading_engine_is_passed_over_and_alone_says_503_with_a_wait() {
    let proxy = Proxy::start();
    let loading = Reply::recorded("llamacpp/b11434/loading_503_v1_models");
    let engine =
        FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", loading)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = proxy.post("/v1/chat/completions", &chat("flm-tiny")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.json()["error"]["code"], "engine_unavailable");
}

#[tokio::test]
async fn open_routes_say_next_to_nothing() {
    let proxy = Proxy::start();
    for (path, status, body) in [("/", 204, ""), ("/health", 200, "{\"status\":\"ok\"}")] {
        let request = http::Request::get(path).body(http_body_util::Full::default()).expect("a request");
        let answer = proxy.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (status, body), "{path}");
        assert!(answer.header("server").is_none());
    }
    let request = http::Request::get("/metrics").body(http_body_util::Full::default()).expect("a request");
    let page = proxy.send(request).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("flm_requests_total"), "{}", page.text());
    let forwarded =
        http::Request::get("/metrics").header("x-forwarded-for", "203.0.113.9").body(http_body_util::Full::default());
    assert_eq!(proxy.send(forwarded.expect("a request")).await.status, 401, "loopback means nothing behind a proxy");
}

/// A key of the operator's own for an engine elsewhere, named by its variable (SPEC §3.1).
#[tokio::test]
async fn an_engine_is_asked_with_the_key_in_its_variable_and_never_with_the_clients() {
    let home = OwnHome::at(Clock::system());
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start_with(&[("LAB_KEY", "sk-of-the-engine")]).await;
    let add = AddEngine {
        id: EngineId::parse("lab").expect("an id"),
        kind: EngineKind::named("llamacpp"),
        url: engine.url(),
        api_key_env: Some("LAB_KEY".to_owned()),
        direct: false,
        slots: None,
    };
    running.call(add).await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    assert_eq!(running.post(&key, "/v1/chat/completions", &chat("flm-tiny")).await.status, 200);
    let asked = engine.seen().asked;
    assert!(asked.len() > 1 && asked.iter().all(|asked| asked.headers["authorization"] == "Bearer sk-of-the-engine"));
    let views = running.call(ListEngines {}).await;
    assert!(!format!("{views:?}").contains("sk-of-the-engine"), "{views:?}");
    running.end().await;
}

/// An engine that is FLM itself would be asked by FLM for ever. Nothing is looked up: what FLM is called is known here.
#[tokio::test]
async fn flm_is_no_engine_of_its_own_whatever_it_is_called() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    running.call(SetSetting { key: "proxy.allowed_hosts".into(), value: "llm.example.org".into() }).await;
    let port = running.address().port();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let refusal = async |name: &str, port: u16| {
        let id = EngineId::parse("itself").expect("an id");
        let (kind, url) = (EngineKind::named("openai"), format!("https://{name}:{port}"));
        let add = AddEngine { id, kind, url, api_key_env: None, direct: false, slots: None };
        running.operator.call(add).await.err().map(|failure| failure.message)
    };
    let capitals = host.to_ascii_uppercase();
    let [rooted, local] = [format!("{host}."), format!("{host}.local")];
    for name in [
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "localhost",
        "LocalHost.",
        &host,
        &capitals,
        &rooted,
        &local,
        "llm.example.org",
        "LLM.Example.org.",
    ] {
        let told = refusal(name, port).await.unwrap_or_else(|| panic!("{name} is FLM itself"));
        assert!(told.contains("it would send requests to itself"), "{name}: {told}");
    }
    // Another port of this machine may be an engine's.
    assert_eq!(refusal("127.0.0.1", 9).await, None);
    running.end().await;
}
