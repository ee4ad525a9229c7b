//! Sixth stage: which engines can serve the model, in which order, and may the key use it? (SPEC §3.5, §3.6.)

use super::account::Stage;
use super::exchange::{Exchange, Parsed, Resolved};
use super::refusal::Refusal;
use super::sanity::cut;
use crate::engines::registry::{Registry, Resolution};
use crate::guard::key_glob;
use crate::types::audit::{AuditKind, Severity};
use crate::types::engine::Capability;
use crate::types::ids::CanonicalModel;
use crate::types::text::escape;
use crate::wire::client::ClientDialect;

/// Resolves the model's name.
pub(super) fn model(exchange: &mut Exchange, parsed: Parsed) -> Result<Resolved, Refusal> {
    let Parsed { key, inference, body, mut extras, model, delivery, client } = parsed;
    let registry = &exchange.peer.worker.shared.registry;
    let shown = || escape(&cut(&model, 200)).into_owned();
    let globs = &key.record.view.limits.models;
    let found = match inference.dialect {
        ClientDialect::Ollama(_) => as_ollama_names(registry, &model, globs),
        _ => registry.resolve(&model, &|canonical| may_use(globs, canonical)),
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
                !globs.is_empty() && !matches!(registry.resolve(&model, &|_| true), Resolution::Unknown { .. });
            if !exists {
                return Err(Refusal::model_not_found(&shown(), &near));
            }
            let refusal = Refusal::model_not_allowed(&shown());
            exchange.audit(AuditKind::PermissionDenied, Severity::Medium, refusal.status, refusal.message.clone());
            return Err(refusal);
        }
    };
    candidates.retain(|candidate| candidate.target.capabilities.contains(&inference.needs));
    if candidates.is_empty() {
        return Err(Refusal::unsupported_modalities(&shown(), inference.needs_title));
    }
    if let Some(extras) = &mut extras
        && extras.thinking.is_some()
        && !candidates.iter().all(|candidate| candidate.target.capabilities.contains(&Capability::Reasoning))
    {
        // Some clients ask every model to think; an engine whose model cannot would refuse (SPEC §4.5).
        tracing::debug!(model = %shown(), "the model does not reason: the wish was dropped");
        extras.thinking = None;
    }
    exchange.account.note(|row| row.engine = candidates.first().map(|first| first.engine.record.id.clone()));
    exchange.account.mark(Stage::Resolved);
    Ok(Resolved { key, inference, body, extras, model, delivery, candidates, client })
}

/// Resolves a name as Ollama's clients write it: the tag `latest` goes without saying, on either side.
pub(super) fn as_ollama_names(registry: &Registry, name: &str, globs: &[String]) -> Resolution {
    let allowed = |canonical: &CanonicalModel| may_use(globs, canonical);
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

/// Whether the key's globs allow a model.
pub(super) fn may_use(globs: &[String], model: &CanonicalModel) -> bool {
    globs.is_empty() || key_glob::allowed(globs, &model.to_string())
}
