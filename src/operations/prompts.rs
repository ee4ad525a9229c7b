//! API prompts (SPEC §8.1).

use std::sync::Arc;

use super::context::Context;
use crate::proxy::prompt::{self, PromptTable, PromptVariables};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::prompts::{
    DeletePrompt, ListPromptRoutes, ListPrompts, PreviewPrompt, PromptHistory, SetPrompt, ShowPrompt,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::KeyId;
use crate::types::live::Noun;
use crate::types::prompt::PromptView;
use crate::types::text::escape;

/// Longest template in bytes (see `SetPrompt`): it goes in front of every request of its route.
const LONGEST: usize = 64 << 10;

/// Lists the current version of every prompt.
pub async fn list(context: &Context, _call: ListPrompts) -> Outcome<Vec<PromptView>> {
    Ok(context.stores.config.prompts().await?)
}

/// Shows one prompt.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn show(context: &Context, call: ShowPrompt) -> Outcome<PromptView> {
    let prompts = context.stores.config.prompts().await?;
    prompts.into_iter().find(|prompt| prompt.api_id == call.api_id).ok_or_else(|| unknown(&call.api_id))
}

/// Saves a new version; in force for the next request.
///
/// # Errors
/// `INVALID_ARGUMENT` for a route that takes no prompt, a key that does not exist, an empty or too long text, a
/// variable that is not known.
pub async fn set(context: &Context, call: SetPrompt) -> Outcome<PromptView> {
    check_text(&call.text)?;
    let key = checked_api_id(&call.api_id)?;
    let _changing = context.begin_change().await?;
    if let Some(id) = key
        && !context.stores.security.keys().await?.iter().any(|key| key.view.id == id)
    {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("there is no API key {id}"))
            .hint("list them with: flm api-keys list"));
    }
    let now = context.clock.wall();
    let saved = context.stores.config.put_prompt(call.api_id, call.text, now).await?;
    publish(context, format!("prompt {} saved as version {}", saved.api_id, saved.version)).await?;
    Ok(saved)
}

/// Deletes a prompt; its history stays.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn delete(context: &Context, call: DeletePrompt) -> Outcome<()> {
    let _changing = context.begin_change().await?;
    if !context.stores.config.remove_prompt(call.api_id.clone(), context.clock.wall()).await? {
        return Err(unknown(&call.api_id));
    }
    publish(context, format!("prompt {} deleted", escape(&call.api_id))).await
}

/// Lists all versions of one prompt, newest first.
///
/// # Errors
/// `NOT_FOUND` when there never was one.
pub async fn history(context: &Context, call: PromptHistory) -> Outcome<Vec<PromptView>> {
    let versions = context.stores.config.prompt_history(call.api_id.clone()).await?;
    if versions.is_empty() {
        return Err(unknown(&call.api_id));
    }
    Ok(versions)
}

/// Shows what a template becomes, with today's date.
///
/// # Errors
/// As for saving it.
pub async fn preview(context: &Context, call: PreviewPrompt) -> Outcome<String> {
    check_text(&call.text)?;
    let key = checked_api_id(&call.api_id)?;
    let keys = context.stores.security.keys().await?;
    let label = keys.into_iter().map(|record| record.view).find(|view| Some(view.id) == key).map(|view| view.label);
    let listed = || context.registry.models().first().map(|model| model.listed_as.to_string());
    let model = call.model.or_else(listed).unwrap_or_else(|| "MODEL".to_owned());
    let key_label = label.unwrap_or_else(|| "KEY LABEL".to_owned());
    let variables = PromptVariables { now: context.clock.wall(), model: &model, key_label: &key_label };
    Ok(prompt::render(&call.text, variables))
}

/// The route names that take a prompt.
pub async fn routes(_context: &Context, _call: ListPromptRoutes) -> Outcome<Vec<String>> {
    std::future::ready(Ok(prompt::routes().into_iter().map(str::to_owned).collect())).await
}

async fn publish(context: &Context, details: String) -> Outcome<()> {
    if let Some(live) = &context.live {
        live.proxy.prompts.store(Arc::new(PromptTable::new(context.stores.config.prompts().await?)));
    }
    context.record(AuditKind::PromptChanged, Severity::Low, details).await;
    context.changed(Noun::Prompts);
    Ok(())
}

/// Checks `ROUTE` or `ROUTE@KEY_ID`; answers the key.
fn checked_api_id(api_id: &str) -> Outcome<Option<KeyId>> {
    let (route, key) = match api_id.split_once('@') {
        Some((route, key)) => (route, Some(key)),
        None => (api_id, None),
    };
    let routes = prompt::routes();
    if !routes.contains(&route) {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("no route {:?} takes a prompt", escape(route)))
            .hint(format!("routes that do: {}", routes.join(", "))));
    }
    key.map(|key| {
        KeyId::parse(key).map_err(|error| {
            Failure::new(ErrorCode::InvalidArgument, error.to_string())
                .hint(format!("write {route}@KEY_ID for one key, or {route} for all"))
        })
    })
    .transpose()
}

fn check_text(text: &str) -> Outcome<()> {
    if text.trim().is_empty() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "the prompt is empty")
            .hint("to have no prompt, delete it: flm api prompts delete --api-id ID"));
    }
    if text.len() > LONGEST {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the prompt has {} bytes, and {LONGEST} are allowed", text.len()),
        )
        .hint("it goes in front of every request: shorten it"));
    }
    if let Some(name) = prompt::unknown_variable(text) {
        let known: Vec<_> = prompt::VARIABLES.iter().map(|name| format!("{{{{{name}}}}}")).collect();
        let shown = escape(&name.chars().take(80).collect::<String>()).into_owned();
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the prompt has a variable {{{{{shown}}}}}, which is not known"),
        )
        .hint(format!("known variables: {}", known.join(", "))));
    }
    Ok(())
}

fn unknown(api_id: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no prompt {:?}", escape(api_id)))
        .hint("list them with: flm api prompts list")
}
