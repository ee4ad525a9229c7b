//! LM Studio's server (ENGINES.md; documented contract, closed source).
//!
//! Called through `registry::ADAPTERS`. Must never conclude anything from status 200 alone: LM Studio answers unknown
//! paths with it, and logs an error for each.

use std::collections::BTreeSet;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::engines::adapter::{
    Adapter, AdapterInfo, BoxFuture, EngineError, EngineFault, EngineModel, EngineRequest, Identity, ModelSlots,
    OwnParameters, ParameterWords, PrepareError, Prepared, Session,
};
use crate::engines::compatible::{self, Choices, Dialect, Strictness};
use crate::engines::fault;
use crate::types::engine::{Capability, EngineKind};

/// The adapter.
pub(super) struct LmStudio;

static INFO: AdapterInfo = AdapterInfo {
    kind: EngineKind::named("lmstudio"),
    title: "LM Studio",
    ports: &[1234],
    binaries: &["lms", "llmster"],
    address_variables: &[],
    capabilities: &[
        Capability::Chat,
        Capability::Completions,
        Capability::Stream,
        Capability::Embeddings,
        Capability::Tools,
        Capability::Reasoning,
        Capability::Vision,
    ],
    parameters: ParameterWords {
        repeat_penalty: Some("repeat_penalty"),
        context_length: None,
        own: OwnParameters::TopLevel,
    },
};

/// `n` is not in its documented set of parameters (ENGINES.md §4).
static DIALECT: Dialect =
    Dialect { info: &INFO, choices: Choices::One, strictness: Strictness::LmStudio, words: compatible::effort_only };

/// What it says to a path that it does not know, under status 200.
const UNKNOWN_PATH: &str = "Unexpected endpoint or method";

impl Adapter for LmStudio {
    fn info(&self) -> &'static AdapterInfo {
        &INFO
    }

    fn identify<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Option<Identity>, EngineError>> {
        Box::pin(async move {
            let Some(answer) = compatible::probe(session, "/lmstudio-greeting").await? else { return Ok(None) };
            let document = answer.json().unwrap_or_default();
            let greets = document.get("lmstudio") == Some(&Value::Bool(true));
            let said = answer.reason();
            // An older one without the greeting betrays itself by its words, a locked one names its tokens.
            if answer.status == StatusCode::OK && (greets || said.starts_with(UNKNOWN_PATH)) {
                let locked = compatible::probe(session, "/v1/models").await?;
                let locked = locked.is_some_and(|models| models.status == StatusCode::UNAUTHORIZED);
                return Ok(Some(compatible::identity(None, locked)));
            }
            if answer.status == StatusCode::UNAUTHORIZED && said.contains("LM Studio") {
                return Ok(Some(compatible::identity(None, true)));
            }
            Ok(None)
        })
    }

    fn check<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move { compatible::listed(session).await.map(|_models| ()) })
    }

    fn models<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Vec<EngineModel>, EngineError>> {
        Box::pin(async move {
            // 0.4.0 and later, then 0.3.6 and later, then whatever speaks OpenAI. The shape decides, not the status.
            if let Some(items) = offered(session, "/api/v1/models", "models").await? {
                return Ok(items.iter().filter_map(model_v1).collect());
            }
            if let Some(items) = offered(session, "/api/v0/models", "data").await? {
                return Ok(items.iter().filter_map(model_v0).collect());
            }
            Ok(compatible::listed(session).await?.iter().filter_map(model_openai).collect())
        })
    }

    fn prepare(&self, request: &EngineRequest<'_>) -> Result<Prepared, PrepareError> {
        compatible::prepare(&DIALECT, request)
    }

    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault {
        fault::from_answer(&INFO, status, headers, body)
    }
}

/// The list that a path answers with; `None` when this version does not have the path.
async fn offered(session: Session<'_>, path: &str, key: &'static str) -> Result<Option<Vec<Value>>, EngineError> {
    match session.get(path).await.and_then(|answer| compatible::items(&answer, path, key)) {
        Ok(items) => Ok(Some(items)),
        Err(EngineError::Api(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn chat_capabilities() -> BTreeSet<Capability> {
    [Capability::Chat, Capability::Completions, Capability::Stream].into()
}

fn model_v1(item: &Value) -> Option<EngineModel> {
    let flag = |pointer: &str| item.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    let mut can = chat_capabilities();
    if item.get("type").and_then(Value::as_str) == Some("embedding") {
        can = [Capability::Embeddings].into();
    } else {
        can.extend(flag("/capabilities/vision").then_some(Capability::Vision));
        can.extend(flag("/capabilities/trained_for_tool_use").then_some(Capability::Tools));
        let reasons = item
            .pointer("/capabilities/reasoning")
            .is_some_and(|told| !matches!(told, Value::Null | Value::Bool(false)));
        can.extend(reasons.then_some(Capability::Reasoning));
    }
    let loaded = item.get("loaded_instances").and_then(Value::as_array).map(|list| !list.is_empty());
    Some(EngineModel {
        name: compatible::text(item, "/key")?.into(),
        capabilities: can,
        // What is in use differs from what the model could.
        context_length: compatible::tokens(item, "/loaded_instances/0/config/context_length")
            .or_else(|| compatible::tokens(item, "/max_context_length")),
        size_bytes: item.get("size_bytes").and_then(Value::as_u64),
        parameters: compatible::text(item, "/params_string"),
        quantization: compatible::text(item, "/quantization/name"),
        loaded,
        slots: slots(item),
    })
}

/// What its loaded instances run at once, together.
fn slots(item: &Value) -> ModelSlots {
    let instances = item.get("loaded_instances").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match instances.iter().filter_map(|instance| compatible::tokens(instance, "/config/parallel")).sum() {
        0 => ModelSlots::Untold,
        slots => ModelSlots::Own(slots),
    }
}

fn model_v0(item: &Value) -> Option<EngineModel> {
    let listed = |name: &str| {
        item.get("capabilities").and_then(Value::as_array).map(|list| list.iter().any(|capability| capability == name))
    };
    let mut can = chat_capabilities();
    match item.get("type").and_then(Value::as_str) {
        Some("embeddings") => can = [Capability::Embeddings].into(),
        kind => {
            can.extend((kind == Some("vlm")).then_some(Capability::Vision));
            // Before 0.3.16 it does not tell: then what the engine can at best.
            can.extend(listed("tool_use").unwrap_or(true).then_some(Capability::Tools));
            can.insert(Capability::Reasoning);
        }
    }
    Some(EngineModel {
        name: compatible::text(item, "/id")?.into(),
        capabilities: can,
        context_length: compatible::tokens(item, "/loaded_context_length")
            .or_else(|| compatible::tokens(item, "/max_context_length")),
        size_bytes: None,
        parameters: None,
        quantization: compatible::text(item, "/quantization"),
        loaded: item.get("state").and_then(Value::as_str).map(|state| state == "loaded"),
        slots: ModelSlots::Untold,
    })
}

fn model_openai(item: &Value) -> Option<EngineModel> {
    Some(EngineModel {
        name: compatible::text(item, "/id")?.into(),
        capabilities: INFO.capabilities.iter().copied().collect(),
        context_length: None,
        size_bytes: None,
        parameters: None,
        quantization: None,
        loaded: None,
        slots: ModelSlots::Untold,
    })
}
