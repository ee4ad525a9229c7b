//! Ollama's clients in front of every engine: its own API, translated or in its own words.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::key::KeyLimits;
use flm::types::request::{RequestEnd, TokenSource};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::anthropic::kinds;
use crate::engine_scripts;
use crate::fake_engine::{Asked, FakeEngine, Reply, Step};
use crate::{Answer, Proxy};

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert!(!answer.text().contains("\n\n"), "clients parse every line");
    answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn one(proxy: &Proxy, kind: &'static str, script: crate::fake_engine::Script) -> FakeEngine {
    let engine = FakeEngine::start(script).await;
    proxy.engine(kind, kind, &engine).await;
    engine
}

async fn llamacpp_that(proxy: &Proxy, reply: Reply) -> FakeEngine {
    one(proxy, "llamacpp", engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await
}

#[tokio::test]
async fn a_chat_streams_lines_by_itself_and_is_one_document_when_asked_from_every_engine() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let _engine = one(&proxy, kind, script).await;
        let answer = proxy.post("/api/chat", &chat(model)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, Some("application/x-ndjson")),
            "{kind}"
        );
        let lines = lines(&answer);
        let (last, rest) = lines.split_last().expect("lines");
        assert!(!rest.is_empty() && rest.iter().all(|line| line["done"] == false), "{kind}: {rest:?}");
        assert_eq!((&last["done"], &last["model"]), (&json!(true), &json!(model)), "{kind}");
        assert!(
            last["eval_duration"].as_u64().is_some() && last["total_duration"].as_u64().is_some(),
            "{kind}: {last}"
        );
        assert!(last["created_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{kind}");
        let row = proxy.ended(RequestEnd::Completed).await;
        assert_eq!(last["eval_count"].as_u64(), Some(row.tokens.completion), "{kind}");
        assert_eq!(last["prompt_eval_count"].as_u64(), Some(row.tokens.prompt), "{kind}");
        assert!(row.stream && row.stages.first_token.is_some() && row.tokens.source == TokenSource::Engine, "{kind}");
        assert_eq!(row.bytes_out, answer.body.len() as u64, "{kind}");
        let mut whole = chat(model);
        whole["stream"] = json!(false);
        let document = proxy.post("/api/chat", &whole).await.json();
        assert_eq!((&document["done"], &document["message"]["role"]), (&json!(true), &json!("assistant")), "{kind}");
        assert!(document["message"]["content"].as_str().is_some_and(|text| !text.is_empty()), "{kind}: {document}");
    }
}

#[tokio::test]
async fn an_ollama_engine_gets_the_clients_options_and_unknown_fields_untouched() {
    let proxy = Proxy::start();
    let engine = one(&proxy, "ollama", engine_scripts::ollama()).await;
    let options = json!({"num_ctx": 8192, "temperature": 0.5, "mirostat": 1, "num_predict": -1, "stop": ["x"]});
    let mut body = chat("tiny");
    body["options"] = options.clone();
    body["keep_alive"] = json!("10m");
    body["format"] = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    body["think"] = json!(true);
    body["truncate"] = json!(false);
    let answer = proxy.post("/api/chat", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = engine.seen().asked.into_iter().next_back().expect("asked");
    assert_eq!(asked.path, "/api/chat");
    let asked = asked.json();
    assert_eq!(asked["model"], "tiny:latest", "the tag goes without saying");
    for field in ["options", "keep_alive", "format", "think", "truncate"] {
        assert_eq!(asked[field], body[field], "{field}");
    }
    let last = lines(&answer).pop().expect("a line");
    assert_eq!(
        (&last["load_duration"], &last["prompt_eval_duration"], &last["eval_duration"]),
        (&json!(1_000_000), &json!(2_000_000), &json!(2_000_000)),
        "the engine's own durations"
    );
    assert_eq!(lines(&answer)[0]["message"]["thinking"], "hm");
}

#[tokio::test]
async fn another_engine_gets_the_options_that_it_has_words_for() {
    let proxy = Proxy::start();
    let engine = one(&proxy, "vllm", engine_scripts::vllm()).await;
    let mut body = chat("flm-tiny:latest");
    body["options"] =
        json!({"num_ctx": 8192, "temperature": 0.5, "num_predict": 7, "top_k": 5, "repeat_penalty": 1.1, "seed": 3});
    body["keep_alive"] = json!("10m");
    body["format"] = json!("json");
    let answer = proxy.post("/api/chat", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = engine.seen().asked.into_iter().next_back().expect("asked").json();
    assert_eq!(asked["model"], "flm-tiny");
    assert_eq!((&asked["temperature"], &asked["max_tokens"], &asked["top_k"]), (&json!(0.5), &json!(7), &json!(5)));
    assert_eq!((&asked["repetition_penalty"], &asked["seed"]), (&json!(1.1), &json!(3)));
    assert_eq!(asked["response_format"], json!({"type": "json_object"}));
    assert!(asked.get("options").is_none() && asked.get("keep_alive").is_none(), "{asked}");
}

#[tokio::test]
async fn generate_is_a_conversation_of_one_message_and_native_at_an_ollama_engine() {
    for (kind, script, model) in kinds() {
        let proxy = Proxy::start();
        let engine = one(&proxy, kind, script).await;
        let body = json!({"model": model, "prompt": "hi", "system": "be brief", "template": "x", "context": [1, 2]});
        let answer = proxy.post("/api/generate", &body).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let lines = lines(&answer);
        assert!(lines.iter().all(|line| line["response"].is_string()), "{kind}");
        assert!(lines.iter().any(|line| !line["response"].as_str().unwrap_or_default().is_empty()), "{kind}");
        assert_eq!(lines.last().expect("a line")["done"], true, "{kind}");
        let asked = engine.seen().asked.into_iter().next_back().expect("asked");
        if kind == "ollama" {
            assert_eq!(asked.path, "/api/generate");
            for field in ["prompt", "system", "template", "context"] {
                assert_eq!(asked.json()[field], body[field], "{field}");
            }
        } else {
            assert_eq!(asked.path, "/v1/chat/completions", "{kind}");
            assert_eq!(asked.json()["messages"][0], json!({"role": "system", "content": "be brief"}), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_raw_prompt_reaches_the_model_as_it_is() {
    let proxy = Proxy::start();
    let engine = one(&proxy, "llamacpp", engine_scripts::llamacpp()).await;
    let answer = proxy.post("/api/generate", &json!({"model": "flm-tiny", "prompt": "a", "raw": true})).await;
    assert_eq!(lines(&answer).last().expect("a line")["done"], true);
    let asked = engine.seen().asked.into_iter().next_back().expect("asked");
    assert_eq!((asked.path.as_str(), &asked.json()["prompt"]), ("/v1/completions", &json!("a")));
    let proxy = Proxy::start();
    let engine = one(&proxy, "ollama", engine_scripts::ollama()).await;
    let body = json!({"model": "tiny", "prompt": "a", "raw": true, "stream": false});
    assert_eq!(proxy.post("/api/generate", &body).await.json()["response"], " made other");
    let asked = engine.seen().asked.into_iter().next_back().expect("asked");
    assert_eq!((asked.path.as_str(), &asked.json()["raw"]), ("/api/generate", &json!(true)));
}

#[tokio::test]
async fn a_request_without_words_loads_a_model_where_the_engine_can() {
    let proxy = Proxy::start();
    let engine = one(&proxy, "ollama", engine_scripts::ollama()).await;
    let answer = proxy.post("/api/generate", &json!({"model": "tiny", "stream": false})).await;
    assert_eq!((answer.json()["done_reason"].as_str(), answer.json()["done"].as_bool()), (Some("load"), Some(true)));
    assert_eq!(engine.seen().asked.last().expect("asked").path, "/api/generate");
    // What is in memory, or cannot be anywhere else, is there: nobody has to be asked.
    for (kind, script) in [("vllm", engine_scripts::vllm()), ("llamacpp", engine_scripts::llamacpp())] {
        let proxy = Proxy::start();
        let engine = one(&proxy, kind, script).await;
        let asked = engine.seen().asked.len();
        for (path, body) in [
            ("/api/chat", json!({"model": "flm-tiny", "messages": []})),
            ("/api/generate", json!({"model": "flm-tiny", "prompt": "", "keep_alive": "5m"})),
        ] {
            let answer = proxy.post(path, &body).await;
            let document = answer.json();
            assert_eq!((answer.status.as_u16(), &document["done_reason"]), (200, &json!("load")), "{kind}: {document}");
            assert_eq!((&document["done"], &document["model"]), (&json!(true), &json!("flm-tiny")), "{kind}");
        }
        assert_eq!(engine.seen().asked.len(), asked, "{kind} has nothing to answer there");
        let answer = proxy.post("/api/chat", &json!({"model": "flm-tiny", "messages": [], "keep_alive": 0})).await;
        assert_eq!(answer.status, 501, "{kind}");
        assert!(answer.json()["error"].as_str().is_some_and(|error| error.contains("cannot unload")), "{kind}");
    }
    // One that can load is told to.
    let loaded = Arc::new(AtomicBool::new(false));
    let told = loaded.clone();
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434-router/{name}"));
    let router = engine_scripts::llamacpp_router()
        .first(Method::GET, "/v1/models", reply("v1_models_before"))
        .first_when(Method::GET, "/v1/models", move |_| told.load(Ordering::Relaxed), reply("v1_models_loaded"))
        .first_when(Method::POST, "/models/load", move |_| !loaded.swap(true, Ordering::Relaxed), reply("load"));
    let proxy = Proxy::start();
    let engine = one(&proxy, "llamacpp", router).await;
    let answer = proxy.post("/api/generate", &json!({"model": "flm-tiny"})).await;
    assert_eq!(answer.json()["done_reason"], "load", "{}", answer.text());
    assert!(engine.seen().asked.iter().any(|asked| asked.path == "/models/load"));
}

#[tokio::test]
async fn tool_calls_come_whole_with_objects_as_arguments() {
    for (kind, script, model) in kinds().into_iter().filter(|(kind, ..)| matches!(*kind, "llamacpp" | "ollama")) {
        let proxy = Proxy::start();
        let _engine = one(&proxy, kind, script).await;
        let mut body = chat(model);
        body["tools"] =
            json!([{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]);
        let lines = lines(&proxy.post("/api/chat", &body).await);
        let call = lines.iter().find_map(|line| line["message"]["tool_calls"].get(0)).expect("a call");
        assert_eq!(call["function"]["name"], "get_weather", "{kind}");
        assert!(call["function"]["arguments"].is_object(), "{kind}: {call}");
        assert_eq!(lines.last().expect("a line")["done_reason"], "stop", "{kind}");
    }
}

#[tokio::test]
async fn embeddings_come_in_both_of_ollamas_shapes() {
    let proxy = Proxy::start();
    let _llamacpp = one(&proxy, "llamacpp", engine_scripts::llamacpp_embed()).await;
    let ollama = one(&proxy, "ollama", engine_scripts::ollama()).await;
    let models = proxy.get("/api/tags").await.json();
    let names = models["models"].as_array().expect("a list").iter().filter_map(|model| model["name"].as_str());
    let other =
        names.clone().find(|name| name.contains("embed") && *name != "embed:latest").expect("an embedding model");
    for model in ["embed", other] {
        let answer = proxy.post("/api/embed", &json!({"model": model, "input": ["a", "b"], "truncate": true})).await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        let document = answer.json();
        assert_eq!(document["model"], model);
        assert!(document["embeddings"].as_array().is_some_and(|list| list.len() == 2 && list[0].is_array()), "{model}");
        assert!(document["prompt_eval_count"].as_u64().is_some_and(|tokens| tokens > 0), "{model}");
        let answer = proxy.post("/api/embeddings", &json!({"model": model, "prompt": "a"})).await;
        assert!(answer.json()["embedding"][0].is_number(), "{model}: {}", answer.text());
    }
    let tells_to_load = |asked: &Asked| asked.json()["keep_alive"] == -1;
    let asked = ollama.seen().asked.into_iter().filter(|asked| asked.path.starts_with("/api/embed"));
    let asked: Vec<_> = asked.filter(|asked| !tells_to_load(asked)).collect();
    assert_eq!((asked[0].path.as_str(), &asked[0].json()["truncate"]), ("/api/embed", &json!(true)));
    assert_eq!(asked[1].path, "/api/embeddings");
}

#[tokio::test]
async fn models_of_all_engines_are_listed_shown_and_the_version_told() {
    let proxy = Proxy::start();
    let _llamacpp = one(&proxy, "llamacpp", engine_scripts::llamacpp()).await;
    let _ollama = one(&proxy, "ollama", engine_scripts::ollama()).await;
    let tags = proxy.get("/api/tags").await.json();
    let names: Vec<&str> =
        tags["models"].as_array().expect("a list").iter().filter_map(|model| model["name"].as_str()).collect();
    assert!(names.contains(&"flm-tiny") && names.contains(&"tiny:latest"), "{names:?}");
    for model in tags["models"].as_array().expect("a list") {
        assert!(model["digest"].as_str().is_some_and(|digest| digest.len() == 64), "clients cut it");
        assert!(model["details"]["parameter_size"].is_string() && model["modified_at"].is_string());
    }
    let ps = proxy.get("/api/ps").await.json();
    assert!(ps["models"].as_array().expect("a list").iter().any(|model| model["name"] == "tiny:latest"));
    for name in ["tiny", "tiny:latest", "ollama/tiny:latest", "flm-tiny:latest"] {
        let shown = proxy.post("/api/show", &json!({"model": name})).await;
        assert_eq!(shown.status, 200, "{name}: {}", shown.text());
        let shown = shown.json();
        assert!(
            shown["capabilities"].as_array().is_some_and(|list| list.iter().any(|can| can == "completion")),
            "{name}"
        );
        let architecture = shown["model_info"]["general.architecture"].as_str().expect("an architecture");
        assert!(shown["model_info"][format!("{architecture}.context_length")].is_u64(), "{name}: {shown}");
    }
    let missing = proxy.post("/api/show", &json!({"name": "tinny"})).await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].as_str().is_some_and(|error| error.contains("tinny")));
    assert!(proxy.get("/api/version").await.json()["version"].is_string());
}

#[tokio::test]
async fn a_key_sees_only_its_models() {
    let limits = KeyLimits { models: vec!["flm://ollama/*".to_owned()], ..KeyLimits::default() };
    let proxy = Proxy::with(ProxyLimits::default(), limits);
    let _llamacpp = one(&proxy, "llamacpp", engine_scripts::llamacpp()).await;
    let _ollama = one(&proxy, "ollama", engine_scripts::ollama()).await;
    let tags = proxy.get("/api/tags").await.json();
    assert!(tags["models"].as_array().expect("a list").iter().all(|model| model["name"] != "flm-tiny"), "{tags}");
    assert_eq!(proxy.post("/api/show", &json!({"model": "flm-tiny"})).await.status, 404);
    assert_eq!(proxy.post("/api/chat", &chat("flm-tiny")).await.status, 403);
}

#[tokio::test]
async fn refusals_and_failures_are_told_as_ollama_tells_them() {
    let proxy = Proxy::start();
    let _engine = one(&proxy, "llamacpp", engine_scripts::llamacpp()).await;
    let mut no_key = proxy.request(Method::POST, "/api/chat", Some(&chat("flm-tiny")));
    no_key.headers_mut().remove("authorization");
    for (status, answer) in [
        (401, proxy.send(no_key).await),
        (404, proxy.post("/api/chat", &chat("none")).await),
        (400, proxy.post("/api/chat", &json!({"model": "flm-tiny", "messages": "x"})).await),
        (400, proxy.post("/api/chat", &json!({"messages": []})).await),
        (405, proxy.get("/api/chat").await),
        (501, proxy.post("/api/embed", &json!({"model": "flm-tiny", "input": "x"})).await),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["error"].as_str().is_some_and(|error| error.len() > 10), "{}", answer.text());
    }
    let recorded = Reply::recorded("llamacpp/b11434/chat_stream");
    let begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let told = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
    for (name, reply) in [("cut", recorded.cut_after(3, Step::Die)), ("told", Reply::stream(&[begun, told]))] {
        let proxy = Proxy::start();
        let _engine = llamacpp_that(&proxy, reply).await;
        let answer = proxy.post("/api/chat", &chat("flm-tiny")).await;
        assert_eq!(answer.status, 200, "{name}");
        let lines = lines(&answer);
        let last = lines.last().expect("a line");
        assert!(last["error"].as_str().is_some_and(|error| !error.is_empty()), "{name}: {last}");
        assert!(lines.iter().all(|line| line["done"] != true), "{name}");
        proxy.ended(RequestEnd::EngineFailed).await;
    }
}

#[tokio::test]
async fn a_slow_engine_gets_its_client_nothing_but_lines() {
    let limits = ProxyLimits { heartbeat: Duration::from_millis(40), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let slow = Reply::recorded("llamacpp/b11434/chat_stream").after(Duration::from_millis(200));
    let _engine = llamacpp_that(&proxy, slow).await;
    let answer = proxy.post("/api/chat", &chat("flm-tiny")).await;
    assert_eq!(lines(&answer).last().expect("a line")["done"], true);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_work() {
    let proxy = Proxy::start();
    let engine = llamacpp_that(&proxy, Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall)).await;
    let mut response = proxy.open(proxy.request(Method::POST, "/api/chat", Some(&chat("flm-tiny")))).await;
    response.body_mut().frame().await.expect("a frame").expect("no error");
    drop(response);
    engine.wait_until(|seen| seen.left == 1).await;
    proxy.ended(RequestEnd::ClientLeft).await;
}

#[tokio::test]
async fn bodies_are_taken_as_curl_sends_them() {
    let proxy = Proxy::start();
    let _engine = one(&proxy, "llamacpp", engine_scripts::llamacpp()).await;
    for media_type in [None, Some("application/x-www-form-urlencoded"), Some("application/json; charset=utf-8")] {
        let mut request = proxy.request(Method::POST, "/api/chat", Some(&chat("flm-tiny")));
        request.headers_mut().remove("content-type");
        if let Some(media_type) = media_type {
            request.headers_mut().insert("content-type", media_type.parse().expect("a value"));
        }
        assert_eq!(proxy.send(request).await.status, 200, "{media_type:?}");
    }
}
