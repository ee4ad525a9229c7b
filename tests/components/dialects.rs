//! The unmodified Anthropic and Ollama clients, and OpenAI's Responses, through FLM at a real llama.cpp server.

use serde_json::{Value, json};

use crate::{CHAT_MODEL, Stage};

/// Lets a client do one thing.
#[track_caller]
fn step(stage: &Stage, step: &str) -> Value {
    stage.step_of("dialects_e2e.py", step)
}

fn not_empty(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

#[test]
#[ignore = "needs llama.cpp and the clients: run scripts/install-test-components.sh"]
fn an_unmodified_anthropic_client_talks_to_llama_cpp() {
    let stage = Stage::new(CHAT_MODEL);
    let whole = step(&stage, "message");
    assert!(not_empty(&whole["text"]), "{whole}");
    assert_eq!((&whole["stop_reason"], &whole["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(16)));
    let stream = step(&stage, "message_stream");
    assert_eq!((&stream["first"], &stream["last"]), (&json!("message_start"), &json!("message_stop")));
    assert!(stream["pieces"].as_u64().is_some_and(|pieces| pieces > 1) && not_empty(&stream["text"]), "{stream}");
    assert_eq!((&stream["stop_reason"], &stream["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(16)));
    let tool = step(&stage, "message_tool");
    assert_eq!((&tool["name"], &tool["stop_reason"]), (&json!("get_weather"), &json!("tool_use")), "{tool}");
    assert!(tool["input"]["city"].is_string() && not_empty(&tool["id"]), "{tool}");
    let models = step(&stage, "message_models");
    assert!(models["ids"].as_array().expect("a list").contains(&json!(CHAT_MODEL)), "{models}");
    assert_eq!(models["one"], json!([CHAT_MODEL, "model", CHAT_MODEL]));
    assert!(
        models["created"].as_str().is_some_and(|time| time.starts_with("20")) && models["more"] == false,
        "{models}"
    );
    let count = step(&stage, "message_count");
    assert_eq!(count["by"], "engine");
    let usage = &stream["usage"];
    let prompt = usage["input_tokens"].as_u64().zip(usage["cache_read_input_tokens"].as_u64());
    assert_eq!(count["tokens"].as_u64(), prompt.map(|(fresh, cached)| fresh + cached), "counted as it was used");
    assert_eq!(
        step(&stage, "message_refused")["seen"],
        json!([
            ["AuthenticationError", 401, "req_", "authentication_error"],
            ["NotFoundError", 404, "req_", "not_found_error"],
            ["BadRequestError", 400, "req_", "invalid_request_error"],
        ])
    );
}

#[test]
#[ignore = "needs llama.cpp and the clients: run scripts/install-test-components.sh"]
fn an_unmodified_openai_client_uses_responses_at_llama_cpp() {
    let stage = Stage::new(CHAT_MODEL);
    let whole = step(&stage, "response");
    assert!(not_empty(&whole["text"]), "{whole}");
    assert_eq!((&whole["status"], &whole["usage"]["output_tokens"]), (&json!("incomplete"), &json!(16)));
    let stream = step(&stage, "response_stream");
    assert_eq!((&stream["first"], &stream["last"]), (&json!("response.created"), &json!("response.incomplete")));
    assert!(stream["pieces"].as_u64().is_some_and(|pieces| pieces > 1), "{stream}");
    let numbers = stream["numbers"].as_array().expect("numbers");
    assert!(numbers.iter().enumerate().all(|(place, number)| *number == place), "{numbers:?}");
    let tool = step(&stage, "response_tool");
    assert_eq!(tool["name"], "get_weather", "{tool}");
    assert!(tool["arguments"]["city"].is_string() && not_empty(&tool["call_id"]), "{tool}");
}

#[test]
#[ignore = "needs llama.cpp and the clients: run scripts/install-test-components.sh"]
fn an_unmodified_ollama_client_talks_to_llama_cpp() {
    let stage = Stage::new(CHAT_MODEL);
    let whole = step(&stage, "chat");
    assert!(not_empty(&whole["text"]), "{whole}");
    assert_eq!((&whole["done_reason"], &whole["tokens"]), (&json!("length"), &json!(16)));
    let stream = step(&stage, "chat_stream");
    assert!(stream["pieces"].as_u64().is_some_and(|pieces| pieces > 1), "{stream}");
    assert_eq!(
        (&stream["done"], &stream["done_reason"], &stream["tokens"]),
        (&json!(true), &json!("length"), &json!(16))
    );
    let durations = stream["durations"].as_array().expect("durations");
    assert!(durations.iter().all(|span| span.as_u64().is_some_and(|span| span > 0)), "{durations:?}");
    let text = step(&stage, "generate");
    assert!(not_empty(&text["text"]) && text["tokens"] == 8, "{text}");
    let embedding = step(&stage, "embed");
    assert_eq!(embedding["vectors"], json!([64, 64]));
    assert!(embedding["tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{embedding}");
    let listed = step(&stage, "listed");
    for list in ["models", "running"] {
        assert!(listed[list].as_array().expect("a list").contains(&json!(CHAT_MODEL)), "{listed}");
    }
    assert!(listed["capabilities"].as_array().expect("a list").contains(&json!("completion")), "{listed}");
    let refused = step(&stage, "chat_refused");
    let statuses: Vec<&Value> = refused["seen"].as_array().expect("a list").iter().map(|seen| &seen[0]).collect();
    assert_eq!(statuses, [401, 404, 404]);
    assert!(refused["seen"][1][1].as_str().is_some_and(|error| error.starts_with("The model 'none'")), "{refused}");
}
