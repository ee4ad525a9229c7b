//! llama.cpp's `llama-server`, single model and router mode (ENGINES.md; captures of build 11434).
//!
//! Called through `registry::ADAPTERS`. Must never ask a router about a model in a way that loads it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::engines::adapter::{
    Adapter, AdapterInfo, BoxFuture, Delivery, EmptyRequests, EngineError, EngineFault, EngineModel, EngineRequest,
    Identity, ModelSlots, OwnParameters, ParameterWords, PrepareError, Prepared, Session,
};
use crate::engines::ask::path_segment;
use crate::engines::compatible::{self, Choices, Dialect, Strictness, UsageCounts};
use crate::engines::fault;
use crate::engines::inference_route::InferenceRoute;
use crate::engines::manage::{self, Files, ManageError, Report};
use crate::engines::own_routes::{OwnRoute, infers, manages, reads};
use crate::types::engine::{Capability, EngineKind, TransferProgress};
use crate::types::text::escape;
use crate::wire::form::Word;
use crate::wire::json_body::{Edit, JsonBody};
use crate::wire::pivot::{Extras, PromptTokens, Thinking};

/// The adapter.
pub(super) struct LlamaCpp;

static INFO: AdapterInfo = AdapterInfo {
    kind: EngineKind::named("llamacpp"),
    title: "llama.cpp",
    // 9931 is the announced next default (ENGINES.md §2).
    ports: &[8080, 9931],
    binaries: &["llama-server", "llama"],
    address_variables: &["LLAMA_ARG_HOST", "LLAMA_ARG_PORT"],
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
        repeat_penalty: Some("repeat_penalty"),
        context_length: None,
        own: OwnParameters::TopLevel,
    },
    empty_requests: EmptyRequests::Nothing,
    own_routes: OWN_ROUTES,
};

/// Its routes for inference and, in router mode, for models (`tools/server/README.md`; captures of build 11434). Its lists of
/// models tell command lines and folders, so `/v1/models` is FLM's own.
static OWN_ROUTES: &[OwnRoute] = &[
    reads("/health"),
    reads("/metrics"),
    infers("/completion"),
    infers("/completions"),
    infers("/v1/completions"),
    infers("/infill"),
    infers("/chat/completions"),
    infers("/v1/chat/completions"),
    infers("/v1/chat/completions/input_tokens"),
    infers("/v1/responses"),
    infers("/v1/messages"),
    infers("/v1/messages/count_tokens"),
    infers("/embedding"),
    infers("/embeddings"),
    infers("/v1/embeddings"),
    infers("/rerank"),
    infers("/reranking"),
    infers("/v1/rerank"),
    infers("/v1/reranking"),
    infers("/tokenize"),
    infers("/detokenize"),
    infers("/apply-template"),
    manages(Method::POST, "/models/load", &["model"]),
    manages(Method::POST, "/models/unload", &["model"]),
    manages(Method::POST, "/models", &["model"]),
];

static DIALECT: Dialect = Dialect {
    info: &INFO,
    choices: Choices::Many,
    // Seen with build 11434: of several choices or prompts it tells the first one's.
    usage_counts: UsageCounts::TheFirstChoice,
    strictness: Strictness::LlamaCpp,
    words,
    lacks: &[InferenceRoute::Translations],
    // It reads the texts of a form as strings, and then refuses numbers that it does not know to be some.
    form_words: Word::OpenAi,
};

impl Adapter for LlamaCpp {
    fn info(&self) -> &'static AdapterInfo {
        &INFO
    }

    fn identify<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Option<Identity>, EngineError>> {
        Box::pin(async move {
            // Every reply carries its name, 401 and "loading" included; /health is open without a key.
            let Some(health) = compatible::probe(session, "/health").await? else { return Ok(None) };
            if !health.header("server").starts_with("llama.cpp") {
                return Ok(None);
            }
            let Some(props) = compatible::probe(session, "/props").await? else {
                return Ok(Some(compatible::identity(None, false)));
            };
            let version = props.json().and_then(|props| compatible::text(&props, "/build_info"));
            Ok(Some(compatible::identity(version, props.status == StatusCode::UNAUTHORIZED)))
        })
    }

    fn check<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let health = session.get("/health").await?.document("/health")?;
            match health.get("status").and_then(Value::as_str) {
                Some("ok" | "no slot available") => Ok(()),
                _ => Err(EngineError::Api("its answer to /health does not say ok".to_owned())),
            }
        })
    }

    fn models<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Vec<EngineModel>, EngineError>> {
        Box::pin(async move {
            let items = compatible::listed(session).await?;
            let props = match session.get("/props").await {
                Ok(answer) => answer.document("/props").unwrap_or_default(),
                Err(fault @ (EngineError::Network(_) | EngineError::Timeout(_))) => return Err(fault),
                // A server that guards /props more than /v1/models tells less.
                Err(_other) => Value::Null,
            };
            let router = props.get("role").and_then(Value::as_str) == Some("router");
            Ok(items.iter().filter_map(|item| model(item, (!router).then_some(&props))).collect())
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
            let path = "/v1/chat/completions/input_tokens";
            let answer = session.post(path, &chat).await?;
            if answer.status != StatusCode::NOT_FOUND {
                return Ok(answer.document(path)?.get("input_tokens").and_then(Value::as_u64));
            }
            // Builds before that route: what the template makes of it, cut into tokens.
            if let Some(fields) = chat.as_object_mut() {
                fields.retain(|name, _| matches!(name.as_str(), "messages" | "tools" | "chat_template_kwargs"));
            }
            let path = "/apply-template";
            let document = session.post(path, &chat).await?.document(path)?;
            let Some(prompt) = document.get("prompt") else { return Ok(None) };
            let path = "/tokenize";
            let asked = json!({"content": prompt, "add_special": true, "parse_special": true});
            let document = session.post(path, &asked).await?.document(path)?;
            Ok(document.get("tokens").and_then(Value::as_array).map(|tokens| tokens.len() as u64))
        })
    }

    fn load<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        let deadline = session.deadline;
        Box::pin(async move {
            let loaded = async {
                match router_model(session, model).await? {
                    (_, State::Loaded) => return Ok(()),
                    (_, State::Busy) => {}
                    (Mode::Single, _) => return Err(single()),
                    (Mode::Router, State::Unknown) => return Err(unknown(model)),
                    (Mode::Router, State::Away { .. }) => {
                        let path = "/models/load";
                        manage::done(&session.post(path, &json!({"model": model})).await?, path)?;
                    }
                }
                // It answers before the model is loaded.
                loop {
                    tokio::time::sleep(manage::LOOK_AGAIN).await;
                    match router_model(session, model).await?.1 {
                        State::Loaded => return Ok(()),
                        State::Busy => {}
                        State::Unknown => return Err(unknown(model)),
                        State::Away { exit_code } => {
                            let told = exit_code.map_or_else(String::new, |code| format!(" (exit code {code})"));
                            return Err(ManageError::Refused(format!(
                                "the server could not load it{told}; its own log says why"
                            )));
                        }
                    }
                }
            };
            tokio::time::timeout(deadline, loaded)
                .await
                .unwrap_or(Err(ManageError::Engine(EngineError::Timeout(deadline))))
        })
    }

    fn unload<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            match router_model(session, model).await? {
                (Mode::Single, _) => Err(single()),
                (Mode::Router, State::Unknown) => Err(unknown(model)),
                (Mode::Router, State::Away { .. }) => Ok(()),
                (Mode::Router, State::Loaded | State::Busy) => {
                    let path = "/models/unload";
                    manage::done(&session.post(path, &json!({"model": model})).await?, path).map(drop)
                }
            }
        })
    }

    fn pull<'a>(
        &'a self,
        session: Session<'a>,
        model: &'a str,
        report: Report<'a>,
    ) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let (mode, state) = router_model(session, model).await?;
            match (mode, state) {
                (Mode::Single, _) => return Err(single()),
                (Mode::Router, State::Loaded | State::Away { .. }) => return Ok(()),
                (Mode::Router, State::Busy) => {}
                (Mode::Router, State::Unknown) => {
                    manage::done(&session.post("/models", &json!({"model": model})).await?, "/models")?;
                }
            }
            loop {
                let items = compatible::listed(session).await?;
                let item = items.iter().find(|item| is_called(item, model));
                let status = item.and_then(|item| item.pointer("/status/value")).and_then(Value::as_str);
                if status != Some("downloading") {
                    break;
                }
                report(downloading(item));
                tokio::time::sleep(manage::LOOK_AGAIN).await;
            }
            // The end of a download says nothing about its success: build 11434 tells `download_finished` of a model
            // that does not exist. The list, read anew from the disk, tells.
            let items = compatible::items(&session.get("/models?reload=1").await?, "/models", "data")?;
            if items.iter().any(|item| is_called(item, model)) {
                return Ok(());
            }
            Err(ManageError::Refused(
                "the server ended the download without having the model; check the name, which is USER/REPO:QUANT on \
                 Hugging Face, and the server's own log"
                    .to_owned(),
            ))
        })
    }

    fn cancel_pull<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let path = "/models/unload";
            manage::done(&session.post(path, &json!({"model": model})).await?, path).map(drop)
        })
    }

    fn delete<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            match router_model(session, model).await? {
                (Mode::Single, _) => return Err(single()),
                (Mode::Router, State::Unknown) => return Err(unknown(model)),
                (Mode::Router, _) => {}
            }
            let path = format!("/models?model={}", path_segment(model));
            let answer = session.delete(&path, &Value::Null).await?;
            manage::done(&answer, "/models").map(drop)
        })
    }

    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault {
        fault::from_answer(&INFO, status, headers, body)
    }
}

/// llama.cpp's words (its `tools/server/README.md`; captures of build 11434).
fn words<'a>(
    extras: &Extras,
    body: &'a JsonBody,
    delivery: Delivery,
    edits: &mut Vec<Edit<'a>>,
) -> Result<(), PrepareError> {
    match &extras.thinking {
        Some(Thinking::Enabled { budget: Some(budget) }) => {
            edits.push(Edit::Set("thinking_budget_tokens", Cow::Owned(budget.to_string())));
        }
        Some(Thinking::Disabled) => compatible::template_value(body, "enable_thinking", false.into(), edits)?,
        Some(Thinking::Effort(effort)) if effort == "none" => {
            compatible::template_value(body, "enable_thinking", false.into(), edits)?;
        }
        // Templates of models that know levels read this name.
        Some(Thinking::Effort(effort)) => {
            compatible::template_value(body, "reasoning_effort", effort.as_str().into(), edits)?;
        }
        Some(Thinking::Enabled { budget: None }) | None => {}
    }
    if extras.prompt_tokens == PromptTokens::Early && delivery != Delivery::Whole {
        // The prompt's tokens come before its first token.
        edits.push(Edit::Set("return_progress", Cow::Borrowed("true")));
    }
    Ok(())
}

/// How the server was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// With one model.
    Single,
    /// As a router of several.
    Router,
}

/// What a router says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In memory, or asleep and waking by itself.
    Loaded,
    /// Being loaded or downloaded.
    Busy,
    /// Not in memory.
    Away {
        /// How its last load ended, where that was badly.
        exit_code: Option<i64>,
    },
    /// Not in its list.
    Unknown,
}

async fn router_model(session: Session<'_>, model: &str) -> Result<(Mode, State), EngineError> {
    let items = compatible::listed(session).await?;
    // Only a router tells a status.
    let mode = if items.iter().any(|item| item.get("status").is_some()) { Mode::Router } else { Mode::Single };
    let Some(item) = items.iter().find(|item| is_called(item, model)) else {
        if mode == Mode::Router || items.is_empty() {
            let props = session.get("/props").await?.document("/props")?;
            let router = props.get("role").and_then(Value::as_str) == Some("router");
            return Ok((if router { Mode::Router } else { Mode::Single }, State::Unknown));
        }
        return Ok((mode, State::Unknown));
    };
    let state = match item.pointer("/status/value").and_then(Value::as_str) {
        None | Some("loaded" | "sleeping") => State::Loaded,
        Some("loading" | "downloading") => State::Busy,
        Some(_) => State::Away { exit_code: item.pointer("/status/exit_code").and_then(Value::as_i64) },
    };
    Ok((mode, state))
}

fn is_called(item: &Value, model: &str) -> bool {
    item.get("id").and_then(Value::as_str).is_some_and(|id| id == model || name(id) == model)
}

/// `status.progress` has an entry for each file.
fn downloading(item: Option<&Value>) -> TransferProgress {
    let mut files = Files::default();
    let told = item.and_then(|item| item.pointer("/status/progress")).and_then(Value::as_object);
    for (file, progress) in told.into_iter().flatten() {
        let number = |name: &str| progress.get(name).and_then(Value::as_u64);
        files.note(file, number("done"), number("total"));
    }
    files.progress("downloading".to_owned())
}

fn single() -> ManageError {
    ManageError::NotOffered(
        "this llama-server serves the one model that it was started with; start it without -m, as a router, to load, \
         unload and fetch models"
            .to_owned(),
    )
}

fn unknown(model: &str) -> ManageError {
    ManageError::UnknownModel(escape(model).into_owned())
}

/// One model; `props` only where they are about it (not in router mode).
fn model(item: &Value, props: Option<&Value>) -> Option<EngineModel> {
    let id = compatible::text(item, "/id")?;
    let status = item.pointer("/status/value").and_then(Value::as_str);
    Some(EngineModel {
        name: name(&id).into(),
        capabilities: capabilities(item, props),
        context_length: compatible::tokens(item, "/meta/n_ctx")
            .or_else(|| compatible::tokens(item, "/meta/n_ctx_train")),
        size_bytes: item.pointer("/meta/size").and_then(Value::as_u64),
        parameters: item.pointer("/meta/n_params").and_then(Value::as_u64).map(parameters),
        quantization: compatible::text(item, "/meta/ftype"),
        // A sleeping model wakes by itself; a single one is always loaded.
        loaded: Some(status.is_none_or(|status| status == "loaded")),
        slots: slots(props),
    })
}

/// A single server has one set of slots for all names that it answers to; a router does not tell its servers'.
fn slots(props: Option<&Value>) -> ModelSlots {
    let told = props.and_then(|props| compatible::tokens(props, "/total_slots"));
    told.filter(|slots| *slots > 0).map_or(ModelSlots::Untold, ModelSlots::Shared)
}

/// Started without `--alias`, a single server lists its model under the file's path: told to clients, it would show
/// them this machine's folders, and nobody wants to type it. The server ignores the name that a request carries
/// (ENGINES.md §5), so the file's own name does; a router's names are no paths.
fn name(id: &str) -> &str {
    let path = std::path::Path::new(id);
    match path.file_stem().and_then(std::ffi::OsStr::to_str) {
        Some(stem) if path.is_absolute() || path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) => {
            stem
        }
        _ => id,
    }
}

fn capabilities(item: &Value, props: Option<&Value>) -> BTreeSet<Capability> {
    let mut can: BTreeSet<Capability> = INFO.capabilities.iter().copied().collect();
    let takes = |modality: &str| {
        item.pointer("/architecture/input_modalities")
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|known| known == modality))
    };
    let flag = |pointer: &str| props.and_then(|props| props.pointer(pointer)).and_then(Value::as_bool);
    if !flag("/modalities/vision").unwrap_or_else(|| takes("image")) {
        can.remove(&Capability::Vision);
    }
    if !flag("/modalities/audio").unwrap_or_else(|| takes("audio")) {
        can.remove(&Capability::AudioIn);
    }
    if flag("/chat_template_caps/supports_tools") == Some(false) {
        can.remove(&Capability::Tools);
    }
    // The template is the only place that shows whether the model was made to think.
    let template = props.and_then(|props| props.get("chat_template")).and_then(Value::as_str);
    if template.is_some_and(|template| !template.contains("think") && !template.contains("reasoning")) {
        can.remove(&Capability::Reasoning);
    }
    can
}

/// `7615616512` as `7.6B`.
fn parameters(count: u64) -> String {
    let scaled = |unit: u64, letter: char| {
        let tenths = count.saturating_mul(10) / unit;
        if tenths.is_multiple_of(10) {
            format!("{}{letter}", tenths / 10)
        } else {
            format!("{}.{}{letter}", tenths / 10, tenths % 10)
        }
    };
    match count {
        1_000_000_000.. => scaled(1_000_000_000, 'B'),
        1_000_000.. => scaled(1_000_000, 'M'),
        1_000.. => scaled(1_000, 'K'),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_path_is_told_as_the_files_own_name() {
        for (id, told) in [
            ("/srv/models/qwen-7b-q4.gguf", "qwen-7b-q4"),
            ("models/tiny.GGUF", "tiny"),
            ("flm-tiny", "flm-tiny"),
            ("user/repo:q4", "user/repo:q4"),
            ("qwen2.5", "qwen2.5"),
        ] {
            assert_eq!(name(id), told);
        }
    }

    #[test]
    fn parameter_counts_are_written_short() {
        for (count, text) in [(144_192, "144.1K"), (7_000_000_000, "7B"), (7_615_616_512, "7.6B"), (12, "12")] {
            assert_eq!(parameters(count), text);
        }
    }
}
