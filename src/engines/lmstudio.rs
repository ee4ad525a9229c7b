//! LM Studio's server (ENGINES.md; documented contract, closed source).
//!
//! Called through `registry::ADAPTERS`. Must never conclude anything from status 200 alone: LM Studio answers unknown
//! paths with it, and logs an error for each.

use std::collections::BTreeSet;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::engines::adapter::{
    Adapter, AdapterInfo, BoxFuture, EmptyRequests, EngineError, EngineFault, EngineModel, EngineRequest, Identity,
    ModelSlots, OwnParameters, ParameterWords, PrepareError, Prepared, Session,
};
use crate::engines::ask::{Answer, path_segment};
use crate::engines::compatible::{self, Choices, Dialect, Strictness, UsageCounts};
use crate::engines::fault;
use crate::engines::inference_route::InferenceRoute;
use crate::engines::manage::{self, ManageError, Report};
use crate::engines::own_routes::{OwnRoute, infers, manages, reads};
use crate::types::engine::{Capability, EngineKind, TransferProgress};
use crate::types::text::escape;
use crate::wire::form::Word;

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
    empty_requests: EmptyRequests::Nothing,
    own_routes: OWN_ROUTES,
};

/// Its own API and its OpenAI and Anthropic routes (`lmstudio-ai/docs` `1_developer`).
static OWN_ROUTES: &[OwnRoute] = &[
    reads("/v1/models"),
    reads("/api/v0/models"),
    reads("/api/v1/models"),
    infers("/v1/chat/completions"),
    infers("/v1/completions"),
    infers("/v1/embeddings"),
    infers("/v1/responses"),
    infers("/v1/messages"),
    infers("/api/v0/chat/completions"),
    infers("/api/v0/completions"),
    infers("/api/v0/embeddings"),
    infers("/api/v1/chat"),
    manages(Method::POST, "/api/v1/models/load", &["model"]),
    manages(Method::POST, "/api/v1/models/unload", &["instance_id"]),
    manages(Method::POST, "/api/v1/models/download", &["model"]),
    manages(Method::GET, "/api/v1/models/download/status/{}", &[]),
];

/// `n` is not in its documented set of parameters (ENGINES.md §4).
static DIALECT: Dialect = Dialect {
    info: &INFO,
    choices: Choices::One,
    usage_counts: UsageCounts::Everything,
    strictness: Strictness::LmStudio,
    words: compatible::effort_only,
    // It answers paths that it does not have with 200.
    lacks: &[
        InferenceRoute::Rerank,
        InferenceRoute::ImageGenerations,
        InferenceRoute::ImageEdits,
        InferenceRoute::Transcriptions,
        InferenceRoute::Translations,
        InferenceRoute::Speech,
    ],
    form_words: Word::OpenAi,
};

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

    fn load<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            // A second load of one model makes a second instance of it in memory.
            if instances(session, model).await?.is_some_and(|loaded| !loaded.is_empty()) {
                return Ok(());
            }
            let path = "/api/v1/models/load";
            let document = managed(&session.post(path, &json!({"model": model})).await?, path)?;
            match document.get("status").and_then(Value::as_str) {
                Some("loaded") => Ok(()),
                _ => Err(ManageError::Refused(format!("its answer to {path} does not say that it is loaded"))),
            }
        })
    }

    fn unload<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let Some(loaded) = instances(session, model).await? else {
                return Err(ManageError::UnknownModel(escape(model).into_owned()));
            };
            let path = "/api/v1/models/unload";
            for instance in loaded {
                managed(&session.post(path, &json!({"instance_id": instance})).await?, path)?;
            }
            Ok(())
        })
    }

    fn pull<'a>(
        &'a self,
        session: Session<'a>,
        model: &'a str,
        report: Report<'a>,
    ) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let path = "/api/v1/models/download";
            let mut job = managed(&session.post(path, &json!({"model": model})).await?, path)?;
            let id = compatible::text(&job, "/job_id");
            loop {
                let status = compatible::text(&job, "/status").unwrap_or_default();
                let number = |name: &str| job.get(name).and_then(Value::as_u64);
                report(TransferProgress {
                    stage: escape(&status).into_owned(),
                    completed: number("downloaded_bytes").unwrap_or(0),
                    total: number("total_size_bytes"),
                });
                match (status.as_str(), &id) {
                    ("completed" | "already_downloaded", _) => return Ok(()),
                    ("downloading", Some(id)) => {
                        tokio::time::sleep(manage::LOOK_AGAIN).await;
                        let path = format!("/api/v1/models/download/status/{}", path_segment(id));
                        job = managed(&session.get(&path).await?, &path)?;
                    }
                    ("paused", _) => {
                        let told = "the download is paused in LM Studio; resume it there";
                        return Err(ManageError::Refused(told.to_owned()));
                    }
                    ("failed", _) => {
                        return Err(ManageError::Refused(
                            "the download failed in LM Studio; look at its log".to_owned(),
                        ));
                    }
                    _ => {
                        let told = format!("its answer to {path} tells no status that FLM knows");
                        return Err(ManageError::Engine(EngineError::Api(told)));
                    }
                }
            }
        })
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

/// The instances of a model in memory; `None` when it does not have the model.
async fn instances(session: Session<'_>, model: &str) -> Result<Option<Vec<String>>, ManageError> {
    let path = "/api/v1/models";
    let document = managed(&session.get(path).await?, path)?;
    let Some(models) = document.get("models").and_then(Value::as_array) else {
        return Err(EngineError::Api(format!("its answer to {path} has no list of models")).into());
    };
    let found = models.iter().find(|item| item.get("key").and_then(Value::as_str) == Some(model));
    let ids = |item: &Value| -> Vec<String> {
        let loaded = item.get("loaded_instances").and_then(Value::as_array);
        loaded.into_iter().flatten().filter_map(|instance| compatible::text(instance, "/id")).collect()
    };
    Ok(found.map(ids))
}

/// What it answers to a management question. Versions before 0.4.0 do not have these paths, and say so under 200.
fn managed(answer: &Answer, path: &str) -> Result<Value, ManageError> {
    if answer.reason().starts_with(UNKNOWN_PATH) {
        let told = "this LM Studio is older than 0.4.0 and cannot manage models over its API; update it, or use 'lms load' \
                    and 'lms unload'";
        return Err(ManageError::NotOffered(told.to_owned()));
    }
    let document = manage::done(answer, path)?;
    match document.get("error") {
        None | Some(Value::Null) => Ok(document),
        // Some faults come under 200 as well.
        Some(_) => Err(ManageError::Refused(answer.reason())),
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
