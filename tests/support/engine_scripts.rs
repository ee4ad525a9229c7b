//! Scripts of fake engines: the recordings of each engine behind the paths and conditions of the real one.
//!
//! Included by test binaries with `#[path]`, beside `fake_engine`.

use http::Method;
use serde_json::Value;

use crate::fake_engine::{Reply, Script};

fn streams(body: &Value) -> bool {
    body["stream"] == true
}

fn wants_usage(body: &Value) -> bool {
    streams(body) && body["stream_options"]["include_usage"] == true
}

/// Two prompts that are texts.
fn two(body: &Value) -> bool {
    body["prompt"].as_array().is_some_and(|prompts| prompts.len() == 2 && prompts[0].is_string())
}

fn has_image(body: &Value) -> bool {
    body["messages"].to_string().contains("\"image_url\"")
}

/// llama.cpp with the model `flm-tiny`, no embeddings.
pub(crate) fn llamacpp() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434/{name}"));
    let chat = "/v1/chat/completions";
    Script::new(reply("not_found"))
        .get("/", reply("root"))
        .get("/health", reply("health"))
        .get("/props", reply("props"))
        .get("/v1/models", reply("v1_models"))
        .post_when(chat, |body| body.get("messages").is_none(), reply("chat_no_messages"))
        .post_when(chat, |body| !body["messages"].is_array(), reply("chat_bad_type"))
        .post_when(chat, has_image, reply("chat_image_on_text_model"))
        .post_when(chat, |body| body["messages"].to_string().len() > 1500, reply("chat_context_overflow"))
        .post_when(chat, |body| streams(body) && body["tools"].is_array(), reply("chat_tools_required_stream"))
        .post_when(chat, wants_usage, reply("chat_stream_usage"))
        .post_when(chat, streams, reply("chat_stream"))
        .post_when(chat, |body| body["n"] == 2, reply("chat_n2"))
        .post(chat, reply("chat"))
        .post("/v1/chat/completions/input_tokens", reply("chat_input_tokens"))
        .post("/apply-template", reply("apply_template"))
        .post("/tokenize", reply("tokenize"))
        .post_when("/v1/completions", |body| streams(body) && two(body), reply("completions_two_prompts_stream"))
        .post_when("/v1/completions", two, reply("completions_two_prompts"))
        .post_when("/v1/completions", streams, reply("completions_stream"))
        .post("/v1/completions", reply("completions"))
        .post("/v1/embeddings", reply("embeddings_not_enabled"))
        .post("/v1/rerank", reply("rerank_not_enabled"))
        .post("/v1/audio/transcriptions", reply("audio_transcriptions_no_audio"))
}

/// llama.cpp started with `--reranking`.
pub(crate) fn llamacpp_rerank() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434-rerank/{name}"));
    let rerank = "/v1/rerank";
    Script::new(Reply::recorded("llamacpp/b11434/not_found"))
        .get("/health", Reply::recorded("llamacpp/b11434/health"))
        .get("/props", reply("props"))
        .get("/v1/models", reply("v1_models"))
        .post_when(rerank, |body| body.get("query").is_none(), reply("rerank_no_query"))
        .post_when(rerank, |body| !body["documents"].is_array(), reply("rerank_no_documents"))
        .post(rerank, reply("rerank"))
}

/// llama.cpp while it loads its model.
pub(crate) fn llamacpp_loading() -> Script {
    Script::new(Reply::recorded("llamacpp/b11434/loading_503_health"))
}

/// llama.cpp with an embedding model.
pub(crate) fn llamacpp_embed() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434-embed/{name}"));
    Script::new(Reply::recorded("llamacpp/b11434/not_found"))
        .get("/health", Reply::recorded("llamacpp/b11434/health"))
        .get("/props", reply("props"))
        .get("/v1/models", reply("v1_models"))
        .post_when("/v1/embeddings", |body| body.get("input").is_none(), reply("embeddings_no_input"))
        .post_when("/v1/embeddings", |body| body["input"].to_string().len() > 1000, reply("embeddings_too_long"))
        .post_when("/v1/embeddings", |body| body["input"].is_array(), reply("embeddings_batch"))
        .post("/v1/embeddings", reply("embeddings"))
}

/// A llama.cpp router.
pub(crate) fn llamacpp_router() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434-router/{name}"));
    Script::new(Reply::recorded("llamacpp/b11434/not_found"))
        .get("/health", reply("health"))
        .get("/props", reply("props"))
        .get("/v1/models", reply("v1_models_loaded"))
        .post_when("/v1/chat/completions", |body| body["model"] == "flm-tiny", reply("chat"))
        .post("/v1/chat/completions", reply("chat_unknown_model"))
}

/// A llama.cpp router that loads `flm-tiny` when it is told to.
pub(crate) fn llamacpp_router_that_loads() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434-router/{name}"));
    Script::new(Reply::recorded("llamacpp/b11434/not_found"))
        .get("/health", reply("health"))
        .get("/props", reply("props"))
        .in_turn(
            &Method::GET,
            "/v1/models",
            vec![reply("v1_models_before"), reply("v1_models_loading"), reply("v1_models_loaded")],
        )
        .post_when("/models/load", |body| body["model"] == "flm-tiny", reply("load"))
        .post_when("/models/unload", |body| body["model"] == "flm-tiny", reply("unload"))
}

/// llama.cpp that wants a key, asked without one.
pub(crate) fn llamacpp_locked() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("llamacpp/b11434-key/{name}"));
    Script::new(reply("chat_no_key")).get("/health", reply("health_no_key")).get("/props", reply("props_no_key"))
}

/// vLLM with the model `flm-tiny`; `embed` with `flm-embed` instead.
pub(crate) fn vllm() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("vllm/0.32.0/{name}"));
    let chat = "/v1/chat/completions";
    Script::new(reply("not_found"))
        .get("/health", reply("health"))
        .get("/version", reply("version"))
        .get("/v1/models", reply("v1_models"))
        .post_when(chat, |body| body.get("messages").is_none(), reply("chat_no_messages"))
        .post_when(chat, |body| !body["model"].is_null() && body["model"] != "flm-tiny", reply("chat_unknown_model"))
        .post_when(chat, has_image, reply("chat_image_on_text_model"))
        .post_when(chat, |body| body["messages"].to_string().len() > 1500, reply("chat_context_overflow"))
        .post_when(
            chat,
            |body| wants_usage(body) && body["stream_options"]["continuous_usage_stats"] == true,
            reply("chat_stream_usage_continuous"),
        )
        .post_when(chat, |body| streams(body) && body["n"] == 2, reply("chat_n2_stream"))
        .post_when(chat, wants_usage, reply("chat_stream_usage"))
        .post_when(chat, streams, reply("chat_stream"))
        .post(chat, reply("chat"))
        .post_when("/v1/completions", streams, reply("completions_stream"))
        .post("/v1/completions", reply("completions"))
        .post("/tokenize", reply("tokenize_chat"))
        .post("/v1/embeddings", reply("embeddings_on_generate_model"))
}

/// vLLM as a pooling model.
pub(crate) fn vllm_embed() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("vllm/0.32.0-embed/{name}"));
    Script::new(reply("chat_on_pooling_model"))
        .get("/health", reply("health"))
        .get("/version", Reply::recorded("vllm/0.32.0/version"))
        .get("/v1/models", reply("v1_models"))
        .post_when("/v1/embeddings", |body| body["input"].to_string().len() > 200, reply("embeddings_too_long"))
        .post("/v1/embeddings", reply("embeddings"))
        .post_when("/v1/rerank", |body| body["query"].is_string() && body["documents"].is_array(), reply("rerank"))
}

/// vLLM as a pooling model, started so that it can sleep: awake first, asleep when asked again.
pub(crate) fn vllm_that_sleeps() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("vllm/0.32.0-embed/{name}"));
    vllm_embed()
        .in_turn(&Method::GET, "/is_sleeping", vec![reply("is_sleeping_dev"), reply("is_sleeping_after")])
        .post("/sleep", reply("sleep_dev"))
        .post("/wake_up", reply("wake_up_dev"))
}

/// vLLM that wants a key, asked without one.
pub(crate) fn vllm_locked() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("vllm/0.32.0-key/{name}"));
    Script::new(reply("chat_no_key")).get("/health", reply("health_no_key")).get("/version", reply("version_no_key"))
}

/// Ollama with the models `tiny:latest` and `embed:latest`.
pub(crate) fn ollama() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("ollama/0.33.0-documented/{name}"));
    Script::new(reply("not_found"))
        .get("/", reply("root"))
        .get("/api/version", reply("api_version"))
        .get("/api/tags", reply("api_tags"))
        .get("/api/ps", reply("api_ps"))
        .post("/api/show", reply("api_show"))
        .post_when("/api/chat", |body| body["model"] != "tiny:latest", reply("chat_unknown_model"))
        .post_when("/api/chat", |body| body["stream"] == false, reply("chat"))
        .post_when(
            "/api/chat",
            |body| body["tools"].as_array().is_some_and(|tools| !tools.is_empty()),
            reply("chat_stream_tools"),
        )
        .post("/api/chat", reply("chat_stream"))
        .post_when("/api/generate", |body| body["model"] == "embed:latest", reply("generate_not_supported"))
        .post_when("/api/generate", |body| body["model"] != "tiny:latest", reply("chat_unknown_model"))
        .post_when("/api/generate", |body| body["keep_alive"] == 0, reply("generate_unload"))
        .post_when("/api/generate", |body| body["prompt"].as_str().is_none_or(str::is_empty), reply("generate_load"))
        .post_when("/api/generate", |body| body["stream"] == false, reply("generate"))
        .post("/api/generate", reply("generate_stream"))
        .post_when("/api/pull", |body| body["model"] == "tiny:latest", reply("pull"))
        .post("/api/pull", reply("pull_unknown"))
        .when(Method::DELETE, "/api/delete", |asked| asked.json()["model"] == "tiny:latest", reply("delete"))
        .when(Method::DELETE, "/api/delete", |_| true, reply("delete_unknown"))
        .post_when("/api/embed", |body| body["model"] == "embed:latest", reply("embed"))
        .post_when("/api/embeddings", |body| body["model"] == "embed:latest", reply("embeddings_native"))
        .post_when("/v1/completions", streams, reply("completions_stream"))
        .post("/v1/completions", reply("completions"))
        .post("/v1/embeddings", reply("embeddings"))
}

/// LM Studio with the models `tiny` and `embed`: 200 to every unknown path.
pub(crate) fn lmstudio() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("lmstudio/0.4.1-documented/{name}"));
    let chat = "/v1/chat/completions";
    Script::new(reply("unknown_path"))
        .get("/lmstudio-greeting", reply("greeting"))
        .get("/v1/models", reply("v1_models"))
        .get("/api/v1/models", reply("api_v1_models"))
        .get("/api/v0/models", reply("api_v0_models"))
        .post_when("/api/v1/models/load", |body| body["model"] == "embed", reply("load"))
        .post_when("/api/v1/models/unload", |body| body["instance_id"] == "tiny", reply("unload"))
        .post("/api/v1/models/download", reply("download"))
        .in_turn(
            &Method::GET,
            "/api/v1/models/download/status/job_493c7c9ded",
            vec![reply("download_status"), reply("download_status_completed")],
        )
        .post_when(chat, |body| body.get("messages").is_none(), reply("chat_no_messages"))
        .post_when(chat, |body| body["response_format"]["type"] == "json_object", reply("chat_json_object"))
        .post_when(chat, streams, reply("chat_stream_usage"))
        .post(chat, reply("chat"))
        .post("/v1/completions", reply("completions"))
        .post("/v1/embeddings", reply("embeddings"))
}

/// Fields of OpenAI's chat API that this project's clients and FLM send; the real one refuses what it does not know.
const OPENAI_FIELDS: [&str; 12] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "n",
];

/// OpenAI's own API with the model `gpt-4o-mini`.
pub(crate) fn openai() -> Script {
    let reply = |name: &str| Reply::recorded(&format!("openai/2026-documented/{name}"));
    let chat = "/v1/chat/completions";
    let unknown = |body: &Value| {
        body.as_object().is_none_or(|body| body.keys().any(|field| !OPENAI_FIELDS.contains(&field.as_str())))
    };
    Script::new(reply("unknown_url"))
        .get("/v1/models", reply("v1_models"))
        .post_when(chat, |body| body["model"] != "gpt-4o-mini", reply("model_not_found"))
        .post_when(chat, unknown, reply("unknown_parameter"))
        .post_when(chat, streams, reply("chat_stream_usage"))
        .post(chat, reply("chat"))
        .post("/v1/completions", reply("completions"))
}
