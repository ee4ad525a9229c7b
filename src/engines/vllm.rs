//! vLLM's OpenAI server (ENGINES.md; captures of 0.32.0).
//!
//! Called through `registry::ADAPTERS`. Must never send the engine's key other than as Bearer.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::engines::adapter::{
    Adapter, AdapterInfo, BoxFuture, Delivery, EmptyRequests, EngineError, EngineFault, EngineModel, EngineRequest,
    Identity, ModelSlots, OwnParameters, ParameterWords, PrepareError, Prepared, Session,
};
use crate::engines::compatible::{self, Choices, Dialect, Strictness, UsageCounts};
use crate::engines::fault;
use crate::engines::manage::{self, ManageError, Report};
use crate::engines::own_routes::{OwnRoute, infers, reads};
use crate::types::engine::{Capability, EngineKind};
use crate::wire::form::Word;
use crate::wire::json_body::{Edit, JsonBody};
use crate::wire::pivot::{Extras, PromptTokens, Thinking};

/// The adapter.
pub(super) struct Vllm;

static INFO: AdapterInfo = AdapterInfo {
    kind: EngineKind::named("vllm"),
    title: "vLLM",
    ports: &[8000],
    binaries: &["vllm"],
    // VLLM_PORT is its internal RPC, not the API's port (ENGINES.md §2).
    address_variables: &[],
    capabilities: &[
        Capability::Chat,
        Capability::Completions,
        Capability::Stream,
        Capability::Embeddings,
        Capability::Tools,
        Capability::Reasoning,
        Capability::Vision,
        Capability::AudioIn,
        Capability::Rerank,
    ],
    parameters: ParameterWords {
        repeat_penalty: Some("repetition_penalty"),
        context_length: None,
        own: OwnParameters::TopLevel,
    },
    empty_requests: EmptyRequests::Nothing,
    own_routes: OWN_ROUTES,
};

/// Its OpenAI server's routes (captures of 0.32), without what only its developer mode mounts.
static OWN_ROUTES: &[OwnRoute] = &[
    reads("/health"),
    reads("/version"),
    reads("/load"),
    reads("/metrics"),
    reads("/v1/models"),
    infers("/v1/chat/completions"),
    infers("/v1/completions"),
    infers("/v1/embeddings"),
    infers("/v1/responses"),
    infers("/v1/messages"),
    infers("/v1/messages/count_tokens"),
    infers("/tokenize"),
    infers("/detokenize"),
    infers("/pooling"),
    infers("/classify"),
    infers("/score"),
    infers("/v1/score"),
    infers("/rerank"),
    infers("/v1/rerank"),
    infers("/v2/rerank"),
];

static DIALECT: Dialect = Dialect {
    info: &INFO,
    choices: Choices::Many,
    usage_counts: UsageCounts::Everything,
    strictness: Strictness::Lenient,
    words,
    lacks: &[],
    form_words: Word::Vllm,
};

impl Adapter for Vllm {
    fn info(&self) -> &'static AdapterInfo {
        &INFO
    }

    fn identify<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Option<Identity>, EngineError>> {
        Box::pin(async move {
            // Only paths under /v1 are guarded, so /version answers without a key.
            let Some(answer) = compatible::probe(session, "/version").await? else { return Ok(None) };
            let version = answer.json().and_then(|document| compatible::text(&document, "/version"));
            if answer.status != StatusCode::OK || version.is_none() {
                return Ok(None);
            }
            let Some(models) = compatible::probe(session, "/v1/models").await? else { return Ok(None) };
            match models.status {
                // Not every server with a /version is vLLM: its words for a missing key are its own.
                StatusCode::UNAUTHORIZED if models.reason() == "Unauthorized" => {
                    Ok(Some(compatible::identity(version, true)))
                }
                StatusCode::OK if is_vllm(&models.json().unwrap_or_default()) => {
                    Ok(Some(compatible::identity(version, false)))
                }
                _ => Ok(None),
            }
        })
    }

    fn check<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<(), EngineError>> {
        // 200 with an empty body; 503 when its engine died (ENGINES.md §2).
        Box::pin(async move { session.get("/health").await?.success() })
    }

    fn models<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Vec<EngineModel>, EngineError>> {
        Box::pin(async move {
            let asleep = sleeps(session).await?.unwrap_or(false);
            Ok(compatible::listed(session).await?.iter().filter_map(|item| model(item, asleep)).collect())
        })
    }

    fn prepare(&self, request: &EngineRequest<'_>) -> Result<Prepared, PrepareError> {
        compatible::prepare(&DIALECT, request)
    }

    fn count_tokens<'a>(
        &'a self,
        session: Session<'a>,
        body: &'a JsonBody,
        model: &'a str,
    ) -> BoxFuture<'a, Result<Option<u64>, EngineError>> {
        Box::pin(async move {
            let mut chat = compatible::with_model(body, model)?;
            if let Some(fields) = chat.as_object_mut() {
                let counted = ["model", "messages", "tools", "chat_template_kwargs"];
                fields.retain(|name, _| counted.contains(&name.as_str()));
            }
            let document = session.post("/tokenize", &chat).await?.document("/tokenize")?;
            Ok(document.get("count").and_then(Value::as_u64))
        })
    }

    fn load<'a>(&'a self, session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            match sleeps(session).await? {
                Some(true) => manage::done(&session.post("/wake_up", &Value::Null).await?, "/wake_up").map(drop),
                // It serves what it was started with, and that is loaded.
                Some(false) | None => Ok(()),
            }
        })
    }

    fn unload<'a>(&'a self, session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            match sleeps(session).await? {
                Some(true) => Ok(()),
                // Level 1 keeps the weights in main memory, so that it wakes by itself, without its files.
                Some(false) => manage::done(&session.post("/sleep?level=1", &Value::Null).await?, "/sleep").map(drop),
                None => Err(ManageError::NotOffered(
                    "vLLM cannot unload the model that it was started with; stop it, or start it with \
                     VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode so that FLM can put it to sleep"
                        .to_owned(),
                )),
            }
        })
    }

    fn pull<'a>(
        &'a self,
        _session: Session<'a>,
        _model: &'a str,
        _report: Report<'a>,
    ) -> BoxFuture<'a, Result<(), ManageError>> {
        let instead = "start it with that model, which it then fetches";
        Box::pin(std::future::ready(Err(ManageError::never(&INFO, "fetch a model", instead))))
    }

    fn delete<'a>(&'a self, _session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        let instead = "remove it from the Hugging Face cache: hf cache rm";
        Box::pin(std::future::ready(Err(ManageError::never(&INFO, "delete a model", instead))))
    }

    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault {
        fault::from_answer(&INFO, status, headers, body)
    }
}

/// vLLM's words (its `entrypoints/openai` protocol; captures of 0.32.0).
fn words<'a>(
    extras: &Extras,
    body: &'a JsonBody,
    delivery: Delivery,
    edits: &mut Vec<Edit<'a>>,
) -> Result<(), PrepareError> {
    match &extras.thinking {
        Some(Thinking::Enabled { .. }) => {
            compatible::template_value(body, "enable_thinking", true.into(), edits)?;
        }
        Some(Thinking::Disabled) => compatible::template_value(body, "enable_thinking", false.into(), edits)?,
        Some(Thinking::Effort(effort)) => {
            // Other levels are an error for it.
            let level = match effort.as_str() {
                "none" => return compatible::template_value(body, "enable_thinking", false.into(), edits),
                "minimal" | "low" => "\"low\"",
                "medium" => "\"medium\"",
                _ => "\"high\"",
            };
            edits.push(Edit::Set("reasoning_effort", Cow::Borrowed(level)));
        }
        None => {}
    }
    if extras.prompt_tokens == PromptTokens::Early && delivery != Delivery::Whole {
        // Usage beside every chunk, so that the first one tells the prompt's tokens.
        let options = r#"{"include_usage":true,"continuous_usage_stats":true}"#;
        edits.retain(|edit| !matches!(edit, Edit::Set("stream_options", _)));
        edits.push(Edit::Set("stream_options", Cow::Borrowed(options)));
    }
    Ok(())
}

/// Whether it sleeps: its requests then hang while /health and /v1/models stay good (ENGINES.md §3). `None` where it
/// was not started for that.
async fn sleeps(session: Session<'_>) -> Result<Option<bool>, EngineError> {
    let answer = session.get("/is_sleeping").await?;
    Ok(match answer.status {
        StatusCode::OK => answer.json().and_then(|told| told.get("is_sleeping").and_then(Value::as_bool)),
        _ => None,
    })
}

fn is_vllm(models: &Value) -> bool {
    models
        .get("data")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|item| item.get("owned_by").and_then(Value::as_str) == Some("vllm")))
}

fn model(item: &Value, asleep: bool) -> Option<EngineModel> {
    Some(EngineModel {
        name: compatible::text(item, "/id")?.into(),
        // It does not tell what a model can do.
        capabilities: INFO.capabilities.iter().copied().collect(),
        context_length: compatible::tokens(item, "/max_model_len"),
        size_bytes: None,
        parameters: None,
        quantization: None,
        loaded: Some(!asleep),
        slots: ModelSlots::Untold,
    })
}
