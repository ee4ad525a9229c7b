//! Ollama: chat through its own `/api/chat`, translated both ways; the rest through its `/v1` routes
//! (ENGINES.md; source of the 0.33 line).
//!
//! Called through `registry::ADAPTERS`. Must never answer a stream that ended without `done:true` as complete.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::engines::adapter::{
    Adapter, AdapterInfo, AnswerProgress, AnswerReader, BoxFuture, Delivery, EmptyRequests, EngineError, EngineFault,
    EngineModel, EngineRequest, Identity, ModelSlots, OwnParameters, ParameterWords, PrepareError, Prepared, Session,
};
use crate::engines::compatible::{self, Choices, Dialect, Strictness, UsageCounts};
use crate::engines::fault;
use crate::engines::inference_route::InferenceRoute;
use crate::engines::manage::{self, Files, ManageError, Report};
use crate::engines::own_routes::{Effect, OwnRoute, infers, manages, reads};
use crate::types::engine::{Capability, EngineKind};
use crate::types::request::TokenUsage;
use crate::types::text::escape;
use crate::wire::form::Word;
use crate::wire::json_body::{BodyFault, JsonBody};
use crate::wire::ollama_answer::{self, ChatTranslator, TimingsForClient};
use crate::wire::ollama_request;
use crate::wire::pivot::{Extras, OllamaCall, OllamaNative};

/// The adapter.
pub(super) struct Ollama;

static INFO: AdapterInfo = AdapterInfo {
    kind: EngineKind::named("ollama"),
    title: "Ollama",
    ports: &[11434],
    binaries: &["ollama"],
    address_variables: &["OLLAMA_HOST"],
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
        context_length: Some("num_ctx"),
        own: OwnParameters::Options,
    },
    empty_requests: EmptyRequests::Load,
    own_routes: OWN_ROUTES,
};

/// Its own API and its OpenAI and Anthropic routes (`ollama/ollama` `server/routes.go`). Without blobs: uploads of any size.
static OWN_ROUTES: &[OwnRoute] = &[
    reads("/api/version"),
    reads("/api/tags"),
    reads("/api/ps"),
    OwnRoute { method: Method::POST, path: "/api/show", effect: Effect::Reads, names_model: NAMES },
    infers("/api/chat"),
    infers("/api/generate"),
    infers("/api/embed"),
    infers("/api/embeddings"),
    reads("/v1/models"),
    infers("/v1/chat/completions"),
    infers("/v1/completions"),
    infers("/v1/embeddings"),
    infers("/v1/responses"),
    infers("/v1/messages"),
    manages(Method::POST, "/api/create", &["model", "name", "from"]),
    manages(Method::POST, "/api/copy", &["source", "destination"]),
    manages(Method::DELETE, "/api/delete", NAMES),
    manages(Method::POST, "/api/pull", NAMES),
    manages(Method::POST, "/api/push", NAMES),
];

/// The field with a model's name, and the one that older clients send.
const NAMES: &[&str] = &["model", "name"];

/// Its `/v1` routes ignore `n` (ENGINES.md §4).
static DIALECT: Dialect = Dialect {
    info: &INFO,
    choices: Choices::One,
    usage_counts: UsageCounts::Everything,
    strictness: Strictness::Lenient,
    words: compatible::effort_only,
    lacks: &[InferenceRoute::Rerank, InferenceRoute::Translations, InferenceRoute::Speech],
    form_words: Word::OpenAi,
};

/// Models whose details are asked for at the same time.
const SHOW_AT_ONCE: usize = 4;

impl Adapter for Ollama {
    fn info(&self) -> &'static AdapterInfo {
        &INFO
    }

    fn identify<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Option<Identity>, EngineError>> {
        Box::pin(async move {
            let Some(answer) = compatible::probe(session, "/api/version").await? else { return Ok(None) };
            let version = answer.json().and_then(|document| compatible::text(&document, "/version"));
            if answer.status != StatusCode::OK || version.is_none() {
                return Ok(None);
            }
            // Others imitate /api/version; the greeting of the root is Ollama's own.
            let Some(root) = compatible::probe(session, "/").await? else { return Ok(None) };
            let greets = root.body.trim_ascii() == b"Ollama is running";
            Ok(greets.then(|| compatible::identity(version, false)))
        })
    }

    fn check<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let document = session.get("/api/version").await?.document("/api/version")?;
            match compatible::text(&document, "/version") {
                Some(_version) => Ok(()),
                None => Err(EngineError::Api("its answer to /api/version has no version".to_owned())),
            }
        })
    }

    fn models<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Vec<EngineModel>, EngineError>> {
        Box::pin(async move {
            let installed = compatible::items(&session.get("/api/tags").await?, "/api/tags", "models")?;
            let running = compatible::items(&session.get("/api/ps").await?, "/api/ps", "models")?;
            let running: HashMap<String, Option<u32>> = running
                .iter()
                .filter_map(|item| {
                    Some((compatible::text(item, "/name")?, compatible::tokens(item, "/context_length")))
                })
                .collect();
            let running = &running;
            let questions: Vec<_> = installed.iter().map(|item| model(session, item, running)).collect();
            let models: Vec<_> = futures_util::stream::iter(questions).buffered(SHOW_AT_ONCE).collect().await;
            Ok(models.into_iter().flatten().collect())
        })
    }

    fn prepare(&self, request: &EngineRequest<'_>) -> Result<Prepared, PrepareError> {
        if let Some(extras) = request.extras
            && let Some(native) = &extras.ollama
            && native.call != OllamaCall::Chat
        {
            return prepare_native(request, extras, native);
        }
        match request.route {
            InferenceRoute::Chat => prepare_chat(request),
            _ => compatible::prepare(&DIALECT, request),
        }
    }

    fn load<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            // Empty requests load. Who loads a model by hand wants it to stay: -1 is until it is unloaded.
            let empty = json!({"model": model, "keep_alive": -1, "stream": false});
            match manage::done(&session.post("/api/generate", &empty).await?, "/api/generate") {
                // An embedding model refuses to generate, and loads by its own route.
                Err(ManageError::Refused(reason)) if reason.contains("does not support generate") => {
                    let empty = json!({"model": model, "keep_alive": -1, "input": []});
                    manage::done(&session.post("/api/embed", &empty).await?, "/api/embed").map(drop)
                }
                other => other.map(drop),
            }
        })
    }

    fn unload<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let empty = json!({"model": model, "keep_alive": 0, "stream": false});
            manage::done(&session.post("/api/generate", &empty).await?, "/api/generate").map(drop)
        })
    }

    fn pull<'a>(
        &'a self,
        session: Session<'a>,
        model: &'a str,
        report: Report<'a>,
    ) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let mut files = Files::default();
            let mut succeeded = false;
            let asked = json!({"model": model, "stream": true});
            let answer = session
                .post_for_lines("/api/pull", &asked, |line| {
                    if let Some(fault) = compatible::text(line, "/error") {
                        return Err(pull_refused(&fault));
                    }
                    let number = |name: &str| line.get(name).and_then(Value::as_u64);
                    // One digest is one file; the total may come before anything is fetched.
                    if let Some(digest) = compatible::text(line, "/digest") {
                        files.note(&digest, number("completed"), number("total"));
                    }
                    let stage = compatible::text(line, "/status").unwrap_or_default();
                    succeeded = stage == "success";
                    report(files.progress(escape(&stage).into_owned()));
                    Ok(())
                })
                .await?;
            if answer.status != StatusCode::OK {
                return manage::done(&answer, "/api/pull").map(drop);
            }
            if !succeeded {
                let cut = "it ended the download without saying that it succeeded; pull again to go on from there";
                return Err(ManageError::Refused(cut.to_owned()));
            }
            Ok(())
        })
    }

    fn delete<'a>(&'a self, session: Session<'a>, model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(async move {
            let answer = session.delete("/api/delete", &json!({"model": model})).await?;
            // 200 with an empty body.
            match answer.status {
                StatusCode::OK => Ok(()),
                _ => manage::done(&answer, "/api/delete").map(drop),
            }
        })
    }

    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault {
        fault::from_answer(&INFO, status, headers, body)
    }
}

/// A line `{"error":…}` of a pull. An unknown name is one, under status 200.
fn pull_refused(words: &str) -> ManageError {
    let shown = escape(words).into_owned();
    match words {
        words if words.contains("file does not exist") => ManageError::UnknownModel(shown),
        _ => ManageError::Refused(shown),
    }
}

fn prepare_chat(request: &EngineRequest<'_>) -> Result<Prepared, PrepareError> {
    let &EngineRequest { body, model, delivery, .. } = request;
    compatible::choices_asked(&INFO, body, DIALECT.choices)?;
    let stream = matches!(delivery, Delivery::Stream { .. });
    let chat = ollama_request::chat(&fields(body)?, request.extras, model, stream)?;
    compatible::warn_dropped(INFO.title, &chat.dropped);
    Ok(chat_prepared(request, "/api/chat", &chat.body))
}

/// A request in Ollama's own words.
fn prepare_native(
    request: &EngineRequest<'_>,
    extras: &Extras,
    native: &OllamaNative,
) -> Result<Prepared, PrepareError> {
    let stream = matches!(request.delivery, Delivery::Stream { .. });
    let body = ollama_request::native(&fields(request.body)?, extras, native, request.model, stream)?;
    let path = match native.call {
        OllamaCall::Chat | OllamaCall::Generate => return Ok(chat_prepared(request, "/api/generate", &body)),
        OllamaCall::Embed => "/api/embed",
        OllamaCall::Embeddings => "/api/embeddings",
    };
    let body = Bytes::from(body.to_string());
    Ok(Prepared {
        request: compatible::post(path, compatible::JSON, "application/json", body, request.api_key),
        reader: Box::new(EmbedReader { model: request.model.to_owned(), usage: None }),
    })
}

fn chat_prepared(request: &EngineRequest<'_>, path: &'static str, body: &Value) -> Prepared {
    let delivery = request.delivery;
    let accept = if delivery == Delivery::Whole { "application/json" } else { "application/x-ndjson" };
    // An Ollama client's dialect has words for the durations; OpenAI's has none.
    let timings = match request.extras.and_then(|extras| extras.ollama.as_ref()) {
        Some(_) => TimingsForClient::Tell,
        None => TimingsForClient::Leave,
    };
    let translator = ChatTranslator::new(answer_id(), compatible::usage_for_client(delivery)).with_timings(timings);
    let body = Bytes::from(body.to_string());
    Prepared {
        request: compatible::post(path, compatible::JSON, accept, body, request.api_key),
        reader: Box::new(ChatReader(translator)),
    }
}

fn fields(body: &JsonBody) -> Result<Map<String, Value>, PrepareError> {
    let fields = serde_json::from_slice(body.bytes());
    Ok(fields.map_err(|fault| BodyFault::Malformed(fault.to_string()))?)
}

/// `chatcmpl-` and 96 random bits. Only tells answers apart; nothing trusts it.
fn answer_id() -> String {
    let mut bits = [0_u8; 12];
    if let Err(fault) = getrandom::fill(&mut bits) {
        tracing::warn!(%fault, "no random bytes for the id of an answer");
    }
    let mut id = String::from("chatcmpl-");
    for byte in bits {
        id.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        id.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    id
}

struct ChatReader(ChatTranslator);

impl AnswerReader for ChatReader {
    fn whole(&mut self, body: Bytes) -> Result<Bytes, EngineFault> {
        self.0.whole(&body).map_err(|fault| fault::from_stream(&INFO, &fault))
    }

    fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        self.0.push(&piece, out).map_err(|fault| fault::from_stream(&INFO, &fault))
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        self.0.finish(out).map_err(|fault| fault::from_stream(&INFO, &fault))
    }

    fn progress(&self) -> AnswerProgress {
        AnswerProgress { usage: self.0.usage(), deltas: self.0.deltas(), done: self.0.done() }
    }
}

/// Reads the answers of `/api/embed` and `/api/embeddings`.
struct EmbedReader {
    model: String,
    usage: Option<TokenUsage>,
}

impl AnswerReader for EmbedReader {
    fn whole(&mut self, body: Bytes) -> Result<Bytes, EngineFault> {
        let (document, usage) =
            ollama_answer::embeddings(&body, &self.model).map_err(|fault| fault::from_stream(&INFO, &fault))?;
        self.usage = Some(usage);
        Ok(document)
    }

    fn push(&mut self, _piece: Bytes, _out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        Err(fault::broken(&INFO, "it streams embeddings"))
    }

    fn finish(&mut self, _out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        Err(fault::broken(&INFO, "it streams embeddings"))
    }

    fn progress(&self) -> AnswerProgress {
        AnswerProgress { usage: self.usage, deltas: 0, done: self.usage.is_some() }
    }
}

async fn model(session: Session<'_>, item: &Value, running: &HashMap<String, Option<u32>>) -> Option<EngineModel> {
    let name = compatible::text(item, "/name").or_else(|| compatible::text(item, "/model"))?;
    let mut told = item.get("capabilities").cloned();
    let mut context = compatible::tokens(item, "/details/context_length");
    if told.is_none() {
        // Older versions tell it only here. A model that cannot be shown keeps what the engine can at best.
        if let Ok(answer) = session.post("/api/show", &json!({"model": name})).await
            && let Ok(details) = answer.document("/api/show")
        {
            told = details.get("capabilities").cloned();
            context = context.or_else(|| trained_context(&details));
        }
    }
    let in_use = running.get(&name);
    Some(EngineModel {
        capabilities: capabilities(told.as_ref()),
        context_length: in_use.copied().flatten().or(context),
        size_bytes: item.get("size").and_then(Value::as_u64),
        parameters: compatible::text(item, "/details/parameter_size"),
        quantization: compatible::text(item, "/details/quantization_level"),
        loaded: Some(in_use.is_some()),
        // OLLAMA_NUM_PARALLEL is not told anywhere (ENGINES.md §3).
        slots: ModelSlots::Untold,
        name: name.into(),
    })
}

/// `model_info["<arch>.context_length"]`.
fn trained_context(details: &Value) -> Option<u32> {
    let info = details.get("model_info")?.as_object()?;
    let found = info.iter().find(|(key, _)| key.ends_with(".context_length"))?.1.as_u64()?;
    u32::try_from(found).ok()
}

fn capabilities(told: Option<&Value>) -> BTreeSet<Capability> {
    let Some(list) = told.and_then(Value::as_array) else { return INFO.capabilities.iter().copied().collect() };
    let mut can = BTreeSet::new();
    for capability in list.iter().filter_map(Value::as_str) {
        match capability {
            "completion" => can.extend([Capability::Chat, Capability::Completions, Capability::Stream]),
            "embedding" => can.extend([Capability::Embeddings]),
            "tools" => can.extend([Capability::Tools]),
            "thinking" => can.extend([Capability::Reasoning]),
            "vision" => can.extend([Capability::Vision]),
            "audio" => can.extend([Capability::AudioIn]),
            // Of versions before its images were taken out (ENGINES.md §4).
            "image" => can.extend([Capability::Images]),
            _ => {}
        }
    }
    can
}
