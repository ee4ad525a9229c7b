//! What Ollama's clients ask about models: `/api/tags`, `/api/ps`, `/api/show` and `/api/version`, answered from FLM's own
//! list of all engines, with what the key may use (SPEC §4.1).
//!
//! Called by the pipeline. What no engine tells FLM is left out rather than made up.

use bytes::Bytes;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::exchange::{Answer, Exchange, Routed};
use super::refusal::Refusal;
use super::resolve::{self, may_use};
use super::sanity::cut;
use super::{body, model_list};
use crate::types::clock::UnixMillis;
use crate::types::engine::{Capability, ModelView};
use crate::types::text::{escape, hex};
use crate::wire::json_body::JsonBody;

/// The version of Ollama's API that FLM speaks; clients refuse to talk to older ones than they know.
const API_VERSION: &str = "0.33.0";
/// When a model that is not unloaded by itself expires: Ollama's clients show this as "forever".
const NEVER: &str = "9999-12-31T23:59:59Z";

/// `GET /api/version`.
pub(super) fn version() -> Answer {
    Answer::json(Bytes::from(json!({"version": API_VERSION}).to_string()))
}

/// `GET /api/tags`: every model.
pub(super) fn tags(exchange: &Exchange, routed: &Routed) -> Answer {
    list(exchange, routed, |_model| true, |_model, _item| {})
}

/// `GET /api/ps`: those in memory, as far as their engines tell.
pub(super) fn ps(exchange: &Exchange, routed: &Routed) -> Answer {
    list(
        exchange,
        routed,
        |model| model.loaded == Some(true),
        |model, item| {
            item.insert("expires_at".into(), NEVER.into());
            if let Some(context) = model.context_length {
                item.insert("context_length".into(), context.into());
            }
        },
    )
}

fn list(
    exchange: &Exchange,
    routed: &Routed,
    wanted: impl Fn(&ModelView) -> bool,
    complete: impl Fn(&ModelView, &mut Map<String, Value>),
) -> Answer {
    let globs = &routed.key.record.view.limits.models;
    let registry = &exchange.peer.worker.shared.registry;
    let models = registry.listed(&|named| may_use(globs, named));
    let items: Vec<Value> = models
        .iter()
        .filter(|model| wanted(model))
        .map(|model| {
            let mut item = describe(exchange, model);
            item.insert("name".into(), (*model.listed_as).into());
            item.insert("model".into(), (*model.listed_as).into());
            complete(model, &mut item);
            item.into()
        })
        .collect();
    Answer::json(Bytes::from(json!({"models": items}).to_string()))
}

/// `POST /api/show`: one model by any name that a request could use.
pub(super) async fn show(exchange: &mut Exchange, routed: &Routed, incoming: Incoming) -> Result<Answer, Refusal> {
    let bytes = body::collect(exchange, incoming, exchange.limits.json_body_bytes).await?;
    exchange.account.note(|row| row.bytes_in = bytes.len() as u64);
    let body = JsonBody::parse(bytes)?;
    // `name` is what older clients send.
    let name = match body.string("model")? {
        Some(model) => Some(model),
        None => body.string("name")?,
    };
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(Refusal::invalid_model("The field 'model' is missing; GET /api/tags lists what there is."));
    };
    let shown = escape(&cut(&name, 200)).into_owned();
    exchange.account.note(|row| row.model = Some(cut(&name, 256).into()));
    let globs = &routed.key.record.view.limits.models;
    let registry = &exchange.peer.worker.shared.registry;
    let models = registry.listed(&|named| may_use(globs, named));
    let resolve = || resolve::as_ollama_names(registry, &name, globs);
    let model = model_list::named(&models, &name, resolve).map_err(|near| Refusal::model_not_found(&shown, &near))?;
    let mut item = describe(exchange, model);
    for field in ["size", "digest"] {
        item.remove(field);
    }
    let mut info = Map::new();
    // Clients look for the context length under the architecture's name, which FLM does not know.
    info.insert("general.architecture".into(), "unknown".into());
    if let Some(context) = model.context_length {
        info.insert("unknown.context_length".into(), context.into());
    }
    item.insert("model_info".into(), info.into());
    for field in ["modelfile", "parameters", "template"] {
        item.insert(field.into(), "".into());
    }
    Ok(Answer::json(Bytes::from(Value::from(item).to_string())))
}

/// What is said of a model wherever one is told.
fn describe(exchange: &Exchange, model: &ModelView) -> Map<String, Value> {
    let registry = &exchange.peer.worker.shared.registry;
    let since = registry.engine(&model.name.engine).map_or(UnixMillis(0), |engine| engine.record.created);
    let mut item = Map::new();
    let modified = jiff::Timestamp::from_millisecond(since.0).map(|time| time.to_string()).unwrap_or_default();
    item.insert("modified_at".into(), modified.into());
    item.insert("size".into(), model.size_bytes.unwrap_or(0).into());
    // Clients cut the digest to tell models apart; nothing else is done with it.
    let digest = Sha256::digest(model.name.to_string());
    item.insert("digest".into(), hex(&digest).into());
    let details = json!({
        "parent_model": "", "format": "", "family": model.kind, "families": [model.kind],
        "parameter_size": model.parameters.as_deref().unwrap_or_default(),
        "quantization_level": model.quantization.as_deref().unwrap_or_default(),
    });
    item.insert("details".into(), details);
    item.insert("capabilities".into(), capabilities(model).into());
    item
}

/// Capabilities under Ollama's names.
fn capabilities(model: &ModelView) -> Vec<Value> {
    let names = [
        (Capability::Chat, "completion"),
        (Capability::Embeddings, "embedding"),
        (Capability::Tools, "tools"),
        (Capability::Vision, "vision"),
        (Capability::Reasoning, "thinking"),
        (Capability::AudioIn, "audio"),
    ];
    names.iter().filter(|(can, _)| model.capabilities.contains(can)).map(|(_, name)| Value::from(*name)).collect()
}
