//! Sixth stage: which engines can serve the model, in which order, and may the key use it? (SPEC §3.5, §3.6.)

use super::account::Stage;
use super::exchange::{Exchange, Parsed, Resolved};
use super::refusal::Refusal;
use super::sanity::cut;
use crate::engines::registry::Resolution;
use crate::guard::key_glob;
use crate::types::audit::{AuditKind, Severity};
use crate::types::ids::CanonicalModel;
use crate::types::text::escape;

/// Resolves the model's name.
pub(super) fn model(exchange: &mut Exchange, parsed: Parsed) -> Result<Resolved, Refusal> {
    let Parsed { key, inference, body, model, delivery } = parsed;
    let registry = &exchange.peer.worker.shared.registry;
    let shown = escape(&cut(&model, 200)).into_owned();
    let globs = &key.record.view.limits.models;
    let mut candidates = match registry.resolve(&model, &|_| true) {
        Resolution::Candidates(candidates) => candidates,
        Resolution::Unavailable { engines } => {
            let why: Vec<_> = engines.iter().map(|(id, reason)| format!("{id}: {}", escape(reason))).collect();
            return Err(Refusal::engine_unavailable(format!(
                "No engine that has the model '{shown}' answers now ({}).",
                why.join("; ")
            )));
        }
        Resolution::Unknown { near } => {
            // Names of models that the key may not use are not told.
            let near: Vec<_> = near
                .into_iter()
                .filter(|name| globs.is_empty() || names_allowed_model(exchange, name, globs))
                .map(|name| escape(&name).into_owned())
                .collect();
            return Err(Refusal::model_not_found(&shown, &near));
        }
    };
    if !globs.is_empty() {
        candidates.retain(|candidate| may_use(globs, &candidate.canonical));
        if candidates.is_empty() {
            let refusal = Refusal::model_not_allowed(&shown);
            exchange.audit(AuditKind::PermissionDenied, Severity::Medium, refusal.status, refusal.message.clone());
            return Err(refusal);
        }
    }
    let before = candidates.len();
    candidates.retain(|candidate| registry.offers(&candidate.canonical, inference.needs));
    if candidates.is_empty() && before > 0 {
        return Err(Refusal::unsupported_modalities(&shown, inference.needs_title));
    }
    exchange.account.note(|row| row.engine = candidates.first().map(|first| first.engine.record.id.clone()));
    exchange.account.mark(Stage::Resolved);
    Ok(Resolved { key, inference, body, model, delivery, candidates })
}

/// Whether the key's globs allow a model.
pub(super) fn may_use(globs: &[String], model: &CanonicalModel) -> bool {
    globs.is_empty() || key_glob::allowed(globs, &model.to_string())
}

fn names_allowed_model(exchange: &Exchange, listed: &str, globs: &[String]) -> bool {
    let models = exchange.peer.worker.shared.registry.models();
    models.iter().any(|model| &*model.listed_as == listed && may_use(globs, &model.name))
}
