//! Sixth stage: which engines can serve the model, in which order, and may the key use it? (SPEC §3.5, §3.6.)

use serde_json::value::RawValue;

use super::account::Stage;
use super::exchange::{Exchange, Parsed, Resolved};
use super::limits::Affine;
use super::refusal::Refusal;
use super::sanity::cut;
use crate::engines::affinity::{Affinity, Conversation};
use crate::engines::registry::Registry;
use crate::engines::resolution::{Candidate, Named, Resolution};
use crate::guard::key_glob;
use crate::types::audit::{AuditKind, Severity};
use crate::types::engine::Capability;
use crate::types::ids::KeyId;
use crate::types::text::escape;
use crate::wire::client::ClientDialect;
use crate::wire::json_body::JsonBody;

/// Resolves the model's name.
pub(super) fn model(exchange: &mut Exchange, mut parsed: Box<Parsed>) -> Result<Resolved, Refusal> {
    let Parsed { key, inference, body, media, extras, model, .. } = parsed.as_mut();
    let registry = &exchange.peer.worker.shared.registry;
    let shown = || escape(&cut(model, 200)).into_owned();
    let globs = &key.record.view.limits.models;
    let found = match inference.dialect {
        ClientDialect::Ollama(_) => as_ollama_names(registry, model, globs),
        _ => registry.resolve(model, &|named| may_use(globs, named)),
    };
    let mut candidates = match found {
        Resolution::Candidates(candidates) => candidates,
        Resolution::Unavailable { engines } => {
            let why: Vec<_> = engines.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
            return Err(Refusal::engine_unavailable(format!(
                "No engine that has the model '{}' answers now ({}).",
                shown(),
                why.join("; ")
            )));
        }
        Resolution::Unknown { near } => {
            let exists =
                !globs.is_empty() && !matches!(registry.resolve(model, &|_named| true), Resolution::Unknown { .. });
            if !exists {
                return Err(Refusal::model_not_found(&shown(), &near));
            }
            let refusal = Refusal::model_not_allowed(&shown());
            exchange.audit(AuditKind::PermissionDenied, Severity::Medium, refusal.status, refusal.message.clone());
            return Err(refusal);
        }
    };
    let facts = inference.route.facts();
    for (capability, title) in std::iter::once((facts.needs, facts.needs_title)).chain(media.needs()) {
        candidates.retain(|candidate| candidate.target.capabilities.contains(&capability));
        if candidates.is_empty() {
            return Err(Refusal::unsupported_modalities(&shown(), title));
        }
    }
    if let Some(extras) = extras
        && extras.thinking.is_some()
        && !candidates.iter().all(|candidate| candidate.target.capabilities.contains(&Capability::Reasoning))
    {
        // Some clients ask every model to think; an engine whose model cannot would refuse (SPEC §4.5).
        tracing::debug!(model = %shown(), "the model does not reason: the wish was dropped");
        extras.thinking = None;
    }
    let conversation = match exchange.limits.affinity {
        Affine::Prefers => {
            let affinity = &exchange.peer.worker.shared.affinity;
            prefer_warm(affinity, key.record.view.id, model, body, &mut candidates)
        }
        Affine::Ignores => None,
    };
    exchange.account.note(|row| row.engine = candidates.first().map(|first| first.engine.record.id.clone()));
    exchange.account.mark(Stage::Resolved);
    Ok(Resolved { parsed, candidates, conversation })
}

/// Resolves a name as Ollama's clients write it: the tag `latest` goes without saying, on either side.
pub(super) fn as_ollama_names(registry: &Registry, name: &str, globs: &[String]) -> Resolution {
    let allowed = |named: Named<'_>| may_use(globs, named);
    let found = registry.resolve(name, &allowed);
    if !matches!(found, Resolution::Unknown { .. }) {
        return found;
    }
    let other = match name.strip_suffix(":latest") {
        Some(bare) => bare.to_owned(),
        None => format!("{name}:latest"),
    };
    match registry.resolve(&other, &allowed) {
        Resolution::Unknown { .. } => found,
        other => other,
    }
}

/// Whether the key's globs allow a model: by its canonical name, or by the alias under which it was asked for.
pub(super) fn may_use(globs: &[String], named: Named<'_>) -> bool {
    globs.is_empty()
        || named.alias.is_some_and(|alias| key_glob::allowed(globs, alias))
        || key_glob::allowed(globs, &named.canonical.to_string())
}

/// Bytes of a plain prompt that count as one message: a cache is worth something from about a hundred tokens on.
const PROMPT_BLOCK: usize = 512;

/// Puts the engine that served the conversation before the others of the first tier (SPEC §3.9). Costs nothing while
/// only one engine has the model.
fn prefer_warm(
    affinity: &Affinity,
    key: KeyId,
    model: &str,
    body: &JsonBody,
    candidates: &mut [Candidate],
) -> Option<Conversation> {
    if candidates.len() < 2 {
        return None;
    }
    let owner = [key.as_str().as_bytes(), model.as_bytes()];
    let conversation = match (body.raw("messages"), body.string("prompt")) {
        (Some(messages), _) => {
            let messages: Vec<&RawValue> = serde_json::from_str(messages).ok()?;
            affinity.conversation(&owner, messages.iter().map(|message| message.get().as_bytes()))
        }
        (None, Ok(Some(prompt))) => affinity.conversation(&owner, prompt.as_bytes().chunks_exact(PROMPT_BLOCK)),
        _ => return None,
    };
    let first_tier = candidates.iter().take_while(|candidate| candidate.tier == candidates[0].tier).count();
    let ids = candidates[..first_tier].iter().map(|candidate| &candidate.engine.record.id);
    if let Some(place) = affinity.preferred(&conversation, ids) {
        candidates[..=place].rotate_right(1);
    }
    Some(conversation)
}
