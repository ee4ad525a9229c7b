//! Models of all engines (SPEC §9.2).

use super::context::Context;
use super::engines;
use crate::types::calls::models::{ListModels, RefreshModels};
use crate::types::engine::ModelView;
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Lists models as last seen; without an owner the engines are asked first, since nobody else has.
///
/// # Errors
/// `ENGINE_NOT_FOUND` for an engine that is not registered.
pub async fn list(context: &Context, call: ListModels) -> Outcome<Vec<ModelView>> {
    if let Some(id) = &call.engine
        && context.registry.engine(id).is_none()
    {
        return Err(Failure::new(ErrorCode::EngineNotFound, format!("no engine is registered as {id}"))
            .hint("list them with: flm engines list"));
    }
    if context.live.is_none() {
        engines::check_all(context).await?;
    }
    let models = context.registry.models();
    Ok(models.iter().filter(|model| call.engine.as_ref().is_none_or(|id| model.name.engine == *id)).cloned().collect())
}

/// Asks the engines for their models now.
pub async fn refresh(context: &Context, _call: RefreshModels) -> Outcome<Vec<ModelView>> {
    engines::check_all(context).await?;
    Ok(context.registry.models().as_ref().clone())
}
