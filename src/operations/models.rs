//! Models of all engines, and what is done with them there (SPEC §2 `flm models`, §9.2).

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::engines::{self, registered};
use super::progress::Reporter;
use crate::engines::adapter::{EngineError, Session};
use crate::engines::manage::ManageError;
use crate::engines::registry::Engine;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::models::{
    DeleteModel, ListModels, LoadModel, LoadProgress, PullModel, RefreshModels, ShowModel, UnloadModel,
};
use crate::types::engine::ModelView;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::{CanonicalModel, EngineId};
use crate::types::text::escape;

/// Longest load: hundreds of gigabytes from a slow disk.
const LOAD_LIMIT: Duration = Duration::from_mins(30);

/// Longest silence of a pull: Ollama tells nothing while it checks the digest of a large file.
const PULL_SILENCE: Duration = Duration::from_mins(10);

/// Longest wait for what is quick where it works.
const QUICK_LIMIT: Duration = Duration::from_secs(60);

/// Lists models as last seen; without an owner the engines are asked first, since nobody else has.
///
/// # Errors
/// `ENGINE_NOT_FOUND` for an engine that is not registered.
pub async fn list(context: &Context, call: ListModels) -> Outcome<Vec<ModelView>> {
    if let Some(id) = &call.engine {
        registered(context, id)?;
    }
    if context.live.is_none() {
        engines::check_all(context).await?;
    }
    let models = context.registry.models();
    Ok(models.iter().filter(|model| call.engine.as_ref().is_none_or(|id| model.name.engine == *id)).cloned().collect())
}

/// Asks the engines for their models now.
pub async fn refresh(context: &Context, _call: RefreshModels) -> Outcome<Vec<ModelView>> {
    for view in context.registry.views() {
        context.registry.reread_models(&view.record.id);
    }
    engines::check_all(context).await?;
    Ok(context.registry.models().as_ref().clone())
}

/// Shows what is known of a name: one model, or that of every engine that has it.
///
/// # Errors
/// `NOT_FOUND` when no engine lists it.
pub async fn show(context: &Context, call: ShowModel) -> Outcome<Vec<ModelView>> {
    named(context, &call.model).await
}

/// Loads a model, and has its engine's list read again.
///
/// # Errors
/// `NOT_FOUND` for an unknown model, `INVALID_ARGUMENT` when several engines have it, and the engine's own.
pub async fn load(context: &Arc<Context>, call: LoadModel, reporter: Reporter<LoadModel>) -> Outcome<ModelView> {
    let (model, engine) = one(context, &call.model).await?;
    reporter.tell(&LoadProgress { asked: model.clone() });
    let done = engine.adapter.load(session(context, &engine, LOAD_LIMIT), &model.model).await;
    settle(context, &model, done, "loaded", Severity::Low).await?;
    now(context, &model)
}

/// Unloads a model, and has its engine's list read again.
///
/// # Errors
/// As [`load`].
pub async fn unload(context: &Context, call: UnloadModel) -> Outcome<ModelView> {
    let (model, engine) = one(context, &call.model).await?;
    let done = engine.adapter.unload(session(context, &engine, QUICK_LIMIT), &model.model).await;
    settle(context, &model, done, "unloaded", Severity::Low).await?;
    now(context, &model)
}

/// Has an engine fetch a model; answers the engine's models of that name.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not clear which engine is meant, `ENGINE_NOT_FOUND`, and the engine's own.
pub async fn pull(context: &Arc<Context>, call: PullModel, reporter: Reporter<PullModel>) -> Outcome<Vec<ModelView>> {
    let model = pulled_where(context, &call)?;
    let engine = registered(context, &model.engine)?;
    let mut left = LeftPull { context: context.clone(), engine: engine.clone(), model: Some(model.clone()) };
    let report = |progress| reporter.tell(&progress);
    let done = engine.adapter.pull(session(context, &engine, PULL_SILENCE), &model.model, &report).await;
    left.model = None;
    settle(context, &model, done, "pulled", Severity::Low).await?;
    let models = context.registry.models();
    let fetched = |view: &&ModelView| view.name.engine == model.engine && is_pulled_as(&view.name.model, &model.model);
    Ok(models.iter().filter(fetched).cloned().collect())
}

/// Deletes a model from its engine's disk.
///
/// # Errors
/// As [`load`].
pub async fn delete(context: &Context, call: DeleteModel) -> Outcome<CanonicalModel> {
    let (model, engine) = one(context, &call.model).await?;
    let done = engine.adapter.delete(session(context, &engine, QUICK_LIMIT), &model.model).await;
    settle(context, &model, done, "deleted", Severity::Medium).await?;
    Ok(model)
}

/// A pull on its way; dropped before its end, it tells the engine to stop.
struct LeftPull {
    context: Arc<Context>,
    engine: Arc<Engine>,
    /// `None` once it has ended by itself.
    model: Option<CanonicalModel>,
}

impl Drop for LeftPull {
    fn drop(&mut self) {
        let Some(model) = self.model.take() else { return };
        let (context, engine) = (self.context.clone(), self.engine.clone());
        self.context.tasks.spawn("left pull", async move {
            let told = engine.adapter.cancel_pull(session(&context, &engine, QUICK_LIMIT), &model.model).await;
            if let Err(error) = told {
                tracing::warn!(%model, error = %escape(&error.to_string()), "an engine was not told to end a pull");
            }
        });
    }
}

/// Ollama lists what was pulled as `tiny` under `tiny:latest`.
fn is_pulled_as(listed: &str, asked: &str) -> bool {
    listed == asked || listed.strip_suffix(":latest") == Some(asked)
}

fn session<'a>(context: &'a Context, engine: &'a Engine, deadline: Duration) -> Session<'a> {
    let deadline = deadline + context.pool.allowance(&engine.upstream);
    Session { pool: &context.pool, upstream: &engine.upstream, api_key: engine.api_key.as_ref(), deadline }
}

/// What a name means: `flm://…`, the name as listed, a bare name of several engines, then `ENGINE_ID/MODEL`.
async fn named(context: &Context, name: &str) -> Outcome<Vec<ModelView>> {
    if context.live.is_none() {
        engines::check_all(context).await?;
    }
    let models = context.registry.models();
    let rules: [fn(&ModelView, &str) -> bool; 4] = [
        |view, name| view.name.to_string() == name,
        |view, name| *view.listed_as == *name,
        |view, name| *view.name.model == *name,
        |view, name| {
            name.split_once('/')
                .is_some_and(|(id, model)| view.name.engine.as_str() == id && *view.name.model == *model)
        },
    ];
    for rule in rules {
        let found: Vec<_> = models.iter().filter(|view| rule(view, name)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(Failure::new(ErrorCode::NotFound, format!("no engine has a model {:?}", escape(name)))
        .hint("list them with: flm models list; fetch one with: flm models pull MODEL"))
}

async fn one(context: &Context, name: &str) -> Outcome<(CanonicalModel, Arc<Engine>)> {
    let mut found = named(context, name).await?;
    match (found.pop(), found.is_empty()) {
        (Some(view), true) => {
            let engine = registered(context, &view.name.engine)?;
            Ok((view.name, engine))
        }
        (last, _) => {
            found.extend(last);
            let names: Vec<_> = found.iter().map(|view| escape(&view.name.to_string()).into_owned()).collect();
            Err(Failure::new(ErrorCode::InvalidArgument, format!("several engines have {:?}", escape(name)))
                .hint(format!("name one of them: {}", names.join(", "))))
        }
    }
}

/// Which engine is to fetch which model.
fn pulled_where(context: &Context, call: &PullModel) -> Outcome<CanonicalModel> {
    if call.model.trim().is_empty() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "the name of the model is missing")
            .hint("give the name under which the engine gets it, such as llama3.2:3b"));
    }
    let canonical = CanonicalModel::parse(&call.model);
    let engine = call.engine.clone().or_else(|| canonical.as_ref().map(|name| name.engine.clone()));
    let model = canonical.map_or_else(|| call.model.as_str().into(), |name| name.model);
    if let Some(engine) = engine {
        return Ok(CanonicalModel { engine, model });
    }
    let mut ids: Vec<_> = context.registry.views().into_iter().map(|view| view.record.id).collect();
    match (ids.pop(), ids.is_empty()) {
        (Some(engine), true) => Ok(CanonicalModel { engine, model }),
        (None, _) => Err(Failure::new(ErrorCode::EngineNotFound, "no engine is registered that could fetch a model")
            .hint("look for some with: flm engines detect")),
        (Some(last), false) => {
            ids.push(last);
            let ids: Vec<_> = ids.iter().map(EngineId::as_str).collect();
            Err(Failure::new(ErrorCode::InvalidArgument, "it is not clear which engine is to fetch the model")
                .hint(format!("name one with --engine: {}", ids.join(", "))))
        }
    }
}

/// After the engine has answered: its list is read again, and what was done is recorded.
async fn settle(
    context: &Context,
    model: &CanonicalModel,
    done: Result<(), ManageError>,
    what: &str,
    severity: Severity,
) -> Outcome<()> {
    done.map_err(|error| failure(model, &error))?;
    context.registry.reread_models(&model.engine);
    engines::check(context, &model.engine).await?;
    let details = format!("model {} {what}", escape(&model.to_string()));
    let event = AuditEvent::new(context.clock.wall(), AuditKind::EngineChanged, severity, details);
    context.record_event(AuditEvent { engine: Some(model.engine.clone()), ..event }).await;
    Ok(())
}

/// The model as the engine lists it now.
fn now(context: &Context, model: &CanonicalModel) -> Outcome<ModelView> {
    let models = context.registry.models();
    models.iter().find(|view| view.name == *model).cloned().ok_or_else(|| {
        Failure::new(ErrorCode::EngineApiError, format!("{} no longer lists {}", model.engine, escape(&model.model)))
            .hint("look at its models with: flm models refresh")
    })
}

fn failure(model: &CanonicalModel, error: &ManageError) -> Failure {
    let name = escape(&model.to_string()).into_owned();
    let code = match error {
        ManageError::UnknownModel(_) => ErrorCode::NotFound,
        ManageError::Engine(EngineError::Network(_)) => ErrorCode::EngineNetworkError,
        ManageError::Engine(EngineError::Timeout(_)) => ErrorCode::EngineTimeout,
        ManageError::NotOffered(_) | ManageError::Refused(_) | ManageError::Engine(_) => ErrorCode::EngineApiError,
    };
    let hint = match error {
        // It says what to do itself.
        ManageError::NotOffered(_) => None,
        ManageError::UnknownModel(_) => Some("check the name; list what is there with: flm models list"),
        ManageError::Refused(_) => Some("the engine's own log may say more"),
        ManageError::Engine(_) => Some("see the state of the engine with: flm engines list"),
    };
    let failure = Failure::new(code, format!("{name}: {}", escape(&error.to_string())));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pulled_is_found_under_the_name_that_the_engine_lists() {
        assert!(is_pulled_as("tiny:latest", "tiny") && is_pulled_as("a/b:q4", "a/b:q4"));
        assert!(!is_pulled_as("tiny:7b", "tiny"));
    }

    #[test]
    fn a_failure_of_an_engine_has_its_code_and_a_way_out() {
        let model = CanonicalModel::parse("flm://ollama/tiny").expect("parses");
        for (error, code) in [
            (ManageError::UnknownModel("x".to_owned()), ErrorCode::NotFound),
            (ManageError::Refused("x".to_owned()), ErrorCode::EngineApiError),
            (ManageError::Engine(EngineError::Network("x".to_owned())), ErrorCode::EngineNetworkError),
            (ManageError::Engine(EngineError::Timeout(QUICK_LIMIT)), ErrorCode::EngineTimeout),
        ] {
            let told = failure(&model, &error);
            assert_eq!(told.code, code);
            assert!(told.message.starts_with("flm://ollama/tiny: ") && told.hint.is_some());
        }
    }
}
