//! Model profiles (SPEC §8.2).

use std::sync::Arc;

use super::context::Context;
use super::engines::registered;
use crate::proxy::profile::ProfileTable;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::profiles::{DeleteProfile, ListProfiles, SaveProfile};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::Noun;
use crate::types::profile::{self, ProfileView};
use crate::types::text::{escape, is_hostile};

/// Longest label in characters.
const LABEL_LENGTH: usize = 80;
/// Longest model name in bytes, as in the request log.
const MODEL_LENGTH: usize = 256;

/// Lists profiles.
///
/// # Errors
/// `ENGINE_NOT_FOUND` for an engine that is not registered and left no profile.
pub async fn list(context: &Context, call: ListProfiles) -> Outcome<Vec<ProfileView>> {
    let mut profiles = context.stores.config.profiles().await?;
    if let Some(engine) = &call.engine
        && !profiles.iter().any(|profile| profile.engine == *engine)
    {
        registered(context, engine)?;
    }
    profiles.retain(|profile| {
        call.engine.as_ref().is_none_or(|engine| profile.engine == *engine)
            && call.model.as_ref().is_none_or(|model| profile.model == *model)
    });
    Ok(profiles)
}

/// Saves a profile; in force for the next request.
///
/// # Errors
/// `ENGINE_NOT_FOUND`; `INVALID_ARGUMENT` that names the parameter and its rule, or says that the engine has no word
/// for it.
pub async fn save(context: &Context, call: SaveProfile) -> Outcome<ProfileView> {
    let wrong = |message: String| Failure::new(ErrorCode::InvalidArgument, message);
    let SaveProfile { engine, model, label, parameters } = call;
    profile::check(&parameters).map_err(|why| {
        wrong(why).hint("write them as {\"temperature\": 0.2, \"max_tokens\": 512, \"pinned\": [\"max_tokens\"]}")
    })?;
    let label = label.trim().to_owned();
    if !(1..=LABEL_LENGTH).contains(&label.chars().count()) || label.chars().any(is_hostile) {
        return Err(wrong(format!("a label has 1 to {LABEL_LENGTH} characters without control characters"))
            .hint("say in a few words what the profile is for"));
    }
    if model.is_empty() || model.len() > MODEL_LENGTH || model.chars().any(is_hostile) {
        return Err(wrong(format!("a model's name has 1 to {MODEL_LENGTH} bytes without control characters"))
            .hint("list the models with: flm models list"));
    }
    let info = registered(context, &engine)?.adapter.info();
    for (name, word) in
        [("repeat_penalty", info.parameters.repeat_penalty), ("context_length", info.parameters.context_length)]
    {
        if word.is_none() && parameters.iter().any(|parameter| parameter.name == name) {
            return Err(wrong(format!("{} takes no {name} with a request", info.title))
                .hint("leave it out here and set it where that engine or its model is started"));
        }
    }
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    let saved = context.stores.config.put_profile(engine, model, label, parameters, now).await?;
    publish(context, &saved, "saved").await?;
    Ok(saved)
}

/// Deletes a profile.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn delete(context: &Context, call: DeleteProfile) -> Outcome<ProfileView> {
    let _changing = context.begin_change().await?;
    let deleted = context.stores.config.remove_profile(call.id).await?.ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("there is no model profile {}", call.id))
            .hint("list them with: flm model-profiles list")
    })?;
    publish(context, &deleted, "deleted").await?;
    Ok(deleted)
}

async fn publish(context: &Context, profile: &ProfileView, what: &str) -> Outcome<()> {
    if let Some(live) = &context.live {
        live.proxy.profiles.store(Arc::new(ProfileTable::new(context.stores.config.profiles().await?)));
    }
    let (engine, model) = (&profile.engine, escape(&profile.model));
    let details = format!("profile {} ({}) of {model} on {engine} {what}", profile.id, escape(&profile.label));
    context.record(AuditKind::PromptChanged, Severity::Low, details).await;
    context.changed(Noun::Profiles);
    Ok(())
}
