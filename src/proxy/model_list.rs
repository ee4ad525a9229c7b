//! `GET /v1/models` and `GET /v1/models/{id}`: what the key may use, in OpenAI's shape (SPEC §3.5), with the fields of
//! Anthropic's lists beside: both ask the same path, and neither minds what it does not know.

use bytes::Bytes;
use serde_json::{Value, json};

use super::exchange::{Answer, Exchange, Routed};
use super::refusal::Refusal;
use super::resolve::may_use;
use super::sanity::cut;
use crate::engines::resolution::Resolution;
use crate::types::engine::ModelView;
use crate::types::text::escape;

/// All models.
pub(super) fn all(exchange: &Exchange, routed: &Routed) -> Answer {
    let globs = &routed.key.record.view.limits.models;
    let registry = &exchange.peer.worker.shared.registry;
    let listed = registry.listed(&|named| may_use(globs, named));
    let data: Vec<Value> = listed.iter().map(|model| document(exchange, model)).collect();
    let id = |model: Option<&ModelView>| model.map(|model| model.listed_as.clone());
    let (first, last) = (id(listed.first()), id(listed.last()));
    let list = json!({"object": "list", "data": data, "has_more": false, "first_id": first, "last_id": last});
    Answer::json(Bytes::from(list.to_string()))
}

/// One model, by any name that a request could use.
pub(super) fn one(exchange: &Exchange, routed: &Routed, name: &str) -> Result<Answer, Refusal> {
    let globs = &routed.key.record.view.limits.models;
    let registry = &exchange.peer.worker.shared.registry;
    let shown = escape(&cut(name, 200)).into_owned();
    let models = registry.listed(&|named| may_use(globs, named));
    let resolve = || registry.resolve(name, &|named| may_use(globs, named));
    let model = named(&models, name, resolve).map_err(|near| Refusal::model_not_found(&shown, &near))?;
    Ok(Answer::json(Bytes::from(document(exchange, model).to_string())))
}

/// The model of a name among those that the key may use: as it is listed, else as a request would be resolved.
///
/// # Errors
/// There is none for this key; near matches, best first.
pub(super) fn named<'a>(
    models: &'a [ModelView],
    name: &str,
    resolve: impl FnOnce() -> Resolution,
) -> Result<&'a ModelView, Vec<String>> {
    if let Some(listed) = models.iter().find(|model| *model.listed_as == *name) {
        return Ok(listed);
    }
    match resolve() {
        Resolution::Candidates(candidates) => {
            let first = candidates.first().map(|first| &first.target.canonical);
            // Aliases come first, and one that happens to mean the same is not what was asked for.
            models.iter().rfind(|model| Some(&model.name) == first).ok_or_else(Vec::new)
        }
        Resolution::Unknown { near } => Err(near),
        Resolution::Unavailable { .. } => Err(Vec::new()),
    }
}

fn document(exchange: &Exchange, model: &ModelView) -> Value {
    let registry = &exchange.peer.worker.shared.registry;
    let created = registry.engine(&model.name.engine).map_or(0, |engine| engine.record.created.0 / 1000);
    let created_at = jiff::Timestamp::from_second(created).map(|time| time.to_string()).unwrap_or_default();
    json!({
        "id": model.listed_as,
        "object": "model",
        "created": created,
        "owned_by": model.kind,
        "flm": model.name.to_string(),
        "type": "model",
        "display_name": model.listed_as,
        "created_at": created_at,
    })
}
