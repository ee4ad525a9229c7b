//! What all OpenAI-compatible engines share: the client's body passed byte for byte with few edits, and the reader of
//! their answers.
//!
//! Called by the adapters of such engines. Must never pass the client's key on, nor touch a byte of the body that
//! needs no change (SPEC §4.5).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::engines::adapter::{
    AdapterInfo, AnswerProgress, AnswerReader, Delivery, EngineError, EngineFault, EngineRequest, Identity,
    PrepareError, Prepared, Session,
};
use crate::engines::ask::{Answer, authorization};
use crate::engines::fault;
use crate::engines::inference_route::{Answers, InferenceRoute, RouteFacts, Takes};
use crate::engines::media::{Format, MediaReader};
use crate::net::message::Outgoing;
use crate::types::request::{TokenSource, TokenUsage};
use crate::types::secret::Secret;
use crate::types::text::escape;
use crate::wire::form::{FormSpec, Word};
use crate::wire::json_body::{Edit, JsonBody, json_string};
use crate::wire::ollama_client_request::carries_option;
use crate::wire::openai::{self, Document};
use crate::wire::openai_tap::{Tap, UsageForClient};
use crate::wire::pivot::{Extras, OllamaNative, Thinking, Work};
use crate::wire::token_estimate;

/// Whether an engine can give several answers to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choices {
    /// `n` is honoured.
    Many,
    /// `n` above 1 is ignored by the engine, so FLM refuses it.
    One,
}

/// What the usage of a whole answer with several choices counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageCounts {
    /// All of them.
    Everything,
    /// The first choice and its prompt: what the others cost is estimated.
    TheFirstChoice,
}

/// How many answers a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    prompts: u64,
    /// Answers to each of them.
    each: u64,
}

/// What an engine makes of fields that others take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Takes or ignores every field.
    Lenient,
    /// llama.cpp: an object as `tool_choice` counts as `auto` (seen with build 11434).
    LlamaCpp,
    /// LM Studio: `response_format` of type `json_object` and an object as `tool_choice` are errors.
    LmStudio,
}

/// The manners of one engine.
pub(super) struct Dialect {
    pub(super) info: &'static AdapterInfo,
    pub(super) choices: Choices,
    pub(super) usage_counts: UsageCounts,
    pub(super) strictness: Strictness,
    /// The engine's words for what another dialect's client says beyond OpenAI's shape.
    pub(super) words: Words,
    /// Routes that it does not have although its models could (ENGINES.md §4).
    pub(super) lacks: &'static [InferenceRoute],
    /// Whose fields of a form it takes.
    pub(super) form_words: Word,
}

/// Adds the edits for what a client of another dialect said. Not called for OpenAI's own clients.
pub(super) type Words = for<'a> fn(&Extras, &'a JsonBody, Delivery, &mut Vec<Edit<'a>>) -> Result<(), PrepareError>;

/// A request to an engine, with its key.
pub(super) fn post(
    path: &'static str,
    content_type: HeaderValue,
    accept: &'static str,
    body: Bytes,
    api_key: Option<&Secret>,
) -> Outgoing {
    let mut fields = Vec::with_capacity(3);
    fields.push((CONTENT_TYPE, content_type));
    fields.push((ACCEPT, HeaderValue::from_static(accept)));
    fields.extend(authorization(api_key));
    Outgoing { method: Method::POST, target: Cow::Borrowed(path), fields, body }
}

/// The media type of JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What an engine is asked to answer with.
fn accept(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Whole => "application/json",
        Delivery::Stream { .. } => "text/event-stream",
        Delivery::Bytes => "audio/*",
    }
}

/// Whether the client gets the usage chunk.
pub(super) fn usage_for_client(delivery: Delivery) -> UsageForClient {
    match delivery {
        Delivery::Stream { usage_wanted: false } => UsageForClient::Strip,
        Delivery::Stream { usage_wanted: true } | Delivery::Whole | Delivery::Bytes => UsageForClient::Pass,
    }
}

/// How many answers a request asks for. Refused above one where the engine would silently give one.
pub(super) fn choices_asked(info: &AdapterInfo, body: &JsonBody, can: Choices) -> Result<u64, PrepareError> {
    let asked: u64 = body.value("n", "a whole number")?.unwrap_or(1);
    if asked > 1 && can == Choices::One {
        return Err(PrepareError::Unsupported {
            param: "n".to_owned(),
            message: format!("{} gives one answer per request; leave n out or set it to 1", info.title),
        });
    }
    Ok(asked)
}

/// How many prompts a text completion has: a list is several, unless it is one that is in tokens, or in texts and tokens.
fn prompts(body: &JsonBody) -> u64 {
    let list: Vec<&RawValue> = body.raw("prompt").and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let is_token = |item: &&RawValue| item.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if list.iter().any(is_token) { 1 } else { (list.len() as u64).max(1) }
}

/// Puts a request into the engine's words.
pub(super) fn prepare(dialect: &Dialect, request: &EngineRequest<'_>) -> Result<Prepared, PrepareError> {
    let &EngineRequest { route, body, model, delivery, api_key, .. } = request;
    let facts = route.facts();
    if dialect.lacks.contains(&route) {
        return Err(PrepareError::NotOffered(format!("{} has no route {}", dialect.info.title, facts.path)));
    }
    if let Takes::Form(spec) = facts.takes {
        return form(dialect, request, facts, spec);
    }
    let mut edits: Vec<Edit<'_>> = Vec::new();
    // Most clients name the model as its engine does.
    let same = body.raw("model").and_then(|raw| raw.strip_prefix('"')?.strip_suffix('"')) == Some(model);
    if !same || model.contains(['"', '\\']) {
        edits.push(Edit::Set("model", Cow::Owned(json_string(model))));
    }
    let mut asked = Asked { prompts: 1, each: 1 };
    if route.writes_text() {
        asked.each = choices_asked(dialect.info, body, dialect.choices)?;
    }
    if route == InferenceRoute::Completions && dialect.choices == Choices::Many {
        asked.prompts = prompts(body);
    }
    if route.writes_text() {
        stream_edits(body, delivery, &mut edits)?;
        if let Some(temperature) = body.value::<f64>("temperature", "a number")?
            && !(0.0..=2.0).contains(&temperature)
        {
            edits.push(Edit::Set("temperature", Cow::Owned(temperature.clamp(0.0, 2.0).to_string())));
        }
    }
    if let Some(extras) = request.extras {
        (dialect.words)(extras, body, delivery, &mut edits)?;
        if let Some(native) = &extras.ollama {
            ollama_edits(dialect.info, native, body, &mut edits)?;
        }
    }
    if route == InferenceRoute::Chat {
        if let Some(messages) = body.raw("messages").and_then(openai::messages_with_reasoning) {
            edits.push(Edit::Set("messages", Cow::Owned(messages)));
        }
        if dialect.strictness != Strictness::Lenient {
            named_tool_edits(dialect.info.title, body, &mut edits);
        }
        if dialect.strictness == Strictness::LmStudio {
            lmstudio_edits(body, &mut edits);
        }
    }
    let body = if edits.is_empty() { body.bytes().clone() } else { body.edited(&edits) };
    Ok(Prepared {
        request: post(facts.path, JSON, accept(delivery), body, api_key),
        reader: reader(dialect, request, facts, asked)?,
    })
}

/// What reads the answer of a route.
fn reader(
    dialect: &Dialect,
    request: &EngineRequest<'_>,
    facts: &'static RouteFacts,
    asked: Asked,
) -> Result<Box<dyn AnswerReader>, PrepareError> {
    let info = dialect.info;
    let streams = request.delivery != Delivery::Whole;
    match facts.answers {
        Answers::Document(document) if request.route.writes_text() || !streams => {
            let counts_first = dialect.usage_counts == UsageCounts::TheFirstChoice;
            let uncounted = (counts_first && !streams && asked.prompts.max(asked.each) > 1).then(|| {
                let prompts = request.body.raw("prompt").filter(|_| asked.prompts > 1);
                let prompts = prompts.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
                Uncounted { prompts: token_estimate::prompts_beyond_the_first(&prompts) }
            });
            Ok(Box::new(CompatibleReader {
                info,
                document,
                tap: Tap::new(usage_for_client(request.delivery), asked.each).of_prompts(asked.prompts),
                whole: Whole::NotYet,
                uncounted,
            }))
        }
        Answers::Document(_) | Answers::Audio => Ok(Box::new(MediaReader::new(info, facts.answers, Format::Json))),
        Answers::Transcript => {
            let format = Format::of(request.body.string("response_format")?.as_deref());
            Ok(Box::new(MediaReader::new(info, facts.answers, format)))
        }
    }
}

/// Writes the form that an engine gets.
fn form(
    dialect: &Dialect,
    request: &EngineRequest<'_>,
    facts: &'static RouteFacts,
    spec: &FormSpec,
) -> Result<Prepared, PrepareError> {
    let &EngineRequest { body, files, model, delivery, api_key, .. } = request;
    let (media_type, form, left_out) = spec.write(body, files, model, dialect.form_words, || fastrand::u128(..));
    warn_dropped(dialect.info.title, &left_out);
    let media_type = HeaderValue::from_str(&media_type).unwrap_or(JSON);
    let accept = match (facts.answers, delivery) {
        (Answers::Transcript, Delivery::Whole) => "application/json, text/plain, */*",
        _ => accept(delivery),
    };
    Ok(Prepared {
        request: post(facts.path, media_type, accept, form, api_key),
        reader: reader(dialect, request, facts, Asked { prompts: 1, each: 1 })?,
    })
}

/// FLM needs usage of every stream; `stream_options` without a stream is an error for vLLM and OpenAI.
fn stream_edits<'a>(body: &'a JsonBody, delivery: Delivery, edits: &mut Vec<Edit<'a>>) -> Result<(), PrepareError> {
    match delivery {
        Delivery::Whole | Delivery::Bytes => {
            if body.raw("stream").is_some_and(|raw| raw == "true") {
                edits.push(Edit::Set("stream", Cow::Borrowed("false")));
            }
            if body.raw("stream_options").is_some() {
                edits.push(Edit::Remove("stream_options"));
            }
        }
        Delivery::Stream { .. } => {
            if body.raw("stream") != Some("true") {
                edits.push(Edit::Set("stream", Cow::Borrowed("true")));
            }
            match body.value::<Map<String, Value>>("stream_options", "an object")? {
                Some(options) if options.get("include_usage") == Some(&Value::Bool(true)) => {}
                Some(mut options) => {
                    options.insert("include_usage".to_owned(), Value::Bool(true));
                    edits.push(Edit::Set("stream_options", Cow::Owned(Value::from(options).to_string())));
                }
                None => edits.push(Edit::Set("stream_options", Cow::Borrowed(r#"{"include_usage":true}"#))),
            }
        }
    }
    Ok(())
}

/// The option of an Ollama client that each engine has its own word for.
const REPEAT_PENALTY: &str = "repeat_penalty";

/// Takes out what only an Ollama engine understands of an Ollama client's request, and names what is lost by it.
fn ollama_edits<'a>(
    info: &AdapterInfo,
    native: &OllamaNative,
    body: &'a JsonBody,
    edits: &mut Vec<Edit<'a>>,
) -> Result<(), PrepareError> {
    if native.work != Work::Answer {
        return Err(PrepareError::NotOffered(format!(
            "{} keeps its models as its operator wants: a request cannot unload one",
            info.title
        )));
    }
    let mut lost: Vec<String> = Vec::new();
    if let Some(options) = body.value::<Map<String, Value>>("options", "an object")? {
        if let (Some(word), Some(penalty)) = (info.parameters.repeat_penalty, options.get(REPEAT_PENALTY))
            && body.raw(word).is_none()
        {
            edits.push(Edit::Set(word, Cow::Owned(penalty.to_string())));
        }
        let is_carried = |option: &str| option == REPEAT_PENALTY || carries_option(option);
        lost.extend(options.keys().filter(|option| !is_carried(option)).cloned());
        edits.push(Edit::Remove("options"));
    }
    if body.raw("keep_alive").is_some() {
        edits.push(Edit::Remove("keep_alive"));
    }
    let carried = ["prompt", "suffix", "images", "system", "raw", "format", "input", "dimensions"];
    lost.extend(native.fields.keys().filter(|field| !carried.contains(&field.as_str())).cloned());
    warn_dropped(info.title, &lost);
    Ok(())
}

/// Engines that know no more than OpenAI's own `reasoning_effort`.
#[expect(clippy::unnecessary_wraps, reason = "the signature of every engine's words")]
pub(super) fn effort_only<'a>(
    extras: &Extras,
    _body: &'a JsonBody,
    _delivery: Delivery,
    edits: &mut Vec<Edit<'a>>,
) -> Result<(), PrepareError> {
    if let Some(Thinking::Effort(effort)) = &extras.thinking {
        edits.push(Edit::Set("reasoning_effort", Cow::Owned(json_string(effort))));
    }
    Ok(())
}

/// Sets one of the values that an engine hands to its chat template; the client's own ones stay.
pub(super) fn template_value<'a>(
    body: &'a JsonBody,
    name: &str,
    value: Value,
    edits: &mut Vec<Edit<'a>>,
) -> Result<(), PrepareError> {
    let mut values: Map<String, Value> = body.value("chat_template_kwargs", "an object")?.unwrap_or_default();
    if !values.contains_key(name) {
        values.insert(name.to_owned(), value);
        edits.push(Edit::Set("chat_template_kwargs", Cow::Owned(Value::from(values).to_string())));
    }
    Ok(())
}

/// An engine that takes `tool_choice` only as a word gets the one tool that was named, and must use it.
fn named_tool_edits<'a>(title: &str, body: &'a JsonBody, edits: &mut Vec<Edit<'a>>) {
    let Some(choice) = body.raw("tool_choice").filter(|raw| raw.starts_with('{')) else { return };
    let name_of = |raw: &str| {
        let value: Value = serde_json::from_str(raw).ok()?;
        Some(value.pointer("/function/name")?.as_str()?.to_owned())
    };
    let tools: Vec<&RawValue> = body.raw("tools").and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let named = name_of(choice).and_then(|name| {
        let mut tools = tools.iter().map(|tool| tool.get());
        tools.find(|tool| name_of(tool).as_deref() == Some(&*name))
    });
    if let Some(tool) = named {
        edits.push(Edit::Set("tools", Cow::Owned(format!("[{tool}]"))));
        edits.push(Edit::Set("tool_choice", Cow::Borrowed("\"required\"")));
    } else {
        warn_dropped(title, &["tool_choice".to_owned()]);
        edits.push(Edit::Remove("tool_choice"));
    }
}

/// LM Studio takes `json_schema` and `text` only (ENGINES.md §4).
fn lmstudio_edits(body: &JsonBody, edits: &mut Vec<Edit<'_>>) {
    let json_object = body
        .raw("response_format")
        .and_then(|raw| serde_json::from_str::<Value>(raw).ok())
        .is_some_and(|format| format.get("type").and_then(Value::as_str) == Some("json_object"));
    if json_object {
        let any_object = r#"{"type":"json_schema","json_schema":{"name":"json_object","schema":{"type":"object"}}}"#;
        edits.push(Edit::Set("response_format", Cow::Borrowed(any_object)));
    }
}

/// Tells the log which fields of a request an engine did not get (SPEC §4.5).
pub(super) fn warn_dropped(engine: &str, fields: &[String]) {
    if fields.is_empty() {
        return;
    }
    let shown = fields.iter().take(20).map(|field| field.chars().take(64).collect::<String>()).collect::<Vec<_>>();
    tracing::warn!(engine, fields = %escape(&shown.join(", ")), "fields that the engine would refuse or ignore were dropped");
}

/// Reads answers that are in OpenAI's shape already.
pub(super) struct CompatibleReader {
    info: &'static AdapterInfo,
    document: Document,
    tap: Tap,
    whole: Whole,
    uncounted: Option<Uncounted>,
}

/// What the engine's count of a whole answer leaves out.
struct Uncounted {
    /// A guess at the prompts after the first.
    prompts: u64,
}

impl Uncounted {
    /// The engine's count with what is missing in it.
    fn add_to(&self, told: TokenUsage, answer: &[u8]) -> TokenUsage {
        let answers =
            serde_json::from_slice(answer).map_or(0, |answer| token_estimate::answers_beyond_the_first(&answer));
        TokenUsage {
            prompt: told.prompt.saturating_add(self.prompts),
            completion: told.completion.saturating_add(answers),
            cached: told.cached,
            source: TokenSource::Estimated,
        }
    }
}

/// Whether a whole answer was read.
enum Whole {
    NotYet,
    Read(Option<TokenUsage>),
}

impl AnswerReader for CompatibleReader {
    fn whole(&mut self, body: Bytes) -> Result<Bytes, EngineFault> {
        let (body, usage) =
            openai::read_whole(self.document, body).map_err(|fault| fault::from_whole(self.info, &fault))?;
        let usage = match (&self.uncounted, usage) {
            (Some(uncounted), Some(told)) => Some(uncounted.add_to(told, &body)),
            (_, usage) => usage,
        };
        self.whole = Whole::Read(usage);
        Ok(body)
    }

    fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        self.tap.push(piece, out).map_err(|fault| fault::from_stream(self.info, &fault))
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        self.tap.finish(out).map_err(|fault| fault::from_stream(self.info, &fault))
    }

    fn progress(&self) -> AnswerProgress {
        match self.whole {
            Whole::Read(usage) => AnswerProgress { usage, deltas: 0, done: true },
            Whole::NotYet => {
                AnswerProgress { usage: self.tap.usage(), deltas: self.tap.deltas(), done: self.tap.done() }
            }
        }
    }
}

/// A request's body as a value, with the engine's own name for the model.
pub(super) fn with_model(body: &JsonBody, model: &str) -> Result<Value, EngineError> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body.bytes()).map_err(|fault| EngineError::Api(fault.to_string()))?;
    fields.insert("model".to_owned(), model.into());
    Ok(fields.into())
}

/// The items of `/v1/models`.
pub(super) async fn listed(session: Session<'_>) -> Result<Vec<Value>, EngineError> {
    items(&session.get("/v1/models").await?, "/v1/models", "data")
}

/// The list under `key` of a 200 answer.
pub(super) fn items(answer: &Answer, path: &str, key: &'static str) -> Result<Vec<Value>, EngineError> {
    match answer.document(path)?.get_mut(key).map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(EngineError::Api(format!("its answer to {path} has no list {key:?}"))),
    }
}

/// A text field of a JSON object, when it is not empty.
pub(super) fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A count that fits a context length.
pub(super) fn tokens(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer).and_then(Value::as_u64).filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok())
}

/// A question about identity: not being reachable is an error, any other trouble means "not this engine".
pub(super) async fn probe(session: Session<'_>, path: &str) -> Result<Option<Answer>, EngineError> {
    match session.get(path).await {
        Ok(answer) => Ok(Some(answer)),
        Err(fault @ (EngineError::Network(_) | EngineError::Timeout(_))) => Err(fault),
        Err(_other) => Ok(None),
    }
}

/// An identity.
pub(super) fn identity(version: Option<String>, locked: bool) -> Identity {
    Identity { version: version.map(|version| version.chars().take(80).collect()), locked }
}
