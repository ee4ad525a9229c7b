//! Aliases (SPEC §3.5).

use super::context::Context;
use crate::types::alias::{AliasView, MAX_TARGETS};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::aliases::{ListAliases, RemoveAlias, SetAlias};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::CanonicalModel;
use crate::types::live::Noun;
use crate::types::text::{escape, is_hostile};

/// Longest name in bytes, as in the request log.
const NAME_LENGTH: usize = 256;

/// Lists aliases.
pub async fn list(context: &Context, _call: ListAliases) -> Outcome<Vec<AliasView>> {
    Ok(context.stores.config.aliases().await?)
}

/// Sets an alias; in force for the next request.
///
/// # Errors
/// `INVALID_ARGUMENT` for a name that no request could carry or that means something else, for no target or too many,
/// and for a target that is an alias.
pub async fn set(context: &Context, call: SetAlias) -> Outcome<AliasView> {
    let wrong = |message: String, hint: &str| Failure::new(ErrorCode::InvalidArgument, message).hint(hint);
    let SetAlias { name, targets, order } = call;
    for text in std::iter::once(&name).chain(&targets) {
        let blank = text.chars().any(|character| character.is_whitespace() || is_hostile(character));
        if text.is_empty() || text.len() > NAME_LENGTH || blank {
            return Err(wrong(
                format!("{:?} is no name for a model: it has 1 to {NAME_LENGTH} bytes without blanks", escape(text)),
                "list the models with: flm models list",
            ));
        }
    }
    if name.starts_with(CanonicalModel::SCHEME) {
        return Err(wrong(
            format!("an alias cannot begin with {}: such names mean one engine's model", CanonicalModel::SCHEME),
            "choose a name of your own, such as fast or gpt-4o",
        ));
    }
    if targets.is_empty() || targets.len() > MAX_TARGETS {
        return Err(wrong(
            format!("an alias has 1 to {MAX_TARGETS} targets"),
            "name them after the alias: flm aliases set fast ollama/llama3.2:3b",
        ));
    }
    let _changing = context.begin_change().await?;
    let others = context.stores.config.aliases().await?;
    if let Some(target) = targets.iter().find(|target| **target == name || others.iter().any(|a| a.name == **target)) {
        return Err(wrong(
            format!("the target {:?} is an alias itself", escape(target)),
            "give the model that you mean, such as ENGINE_ID/MODEL or flm://ENGINE_ID/MODEL",
        ));
    }
    if let Some(other) = others.iter().find(|other| other.targets.contains(&name)) {
        return Err(wrong(
            format!("the alias {:?} has {:?} as a target", escape(&other.name), escape(&name)),
            "choose another name, or give that alias the model as flm://ENGINE_ID/MODEL",
        ));
    }
    let alias = AliasView { name, targets, order, updated: context.clock.wall() };
    context.stores.config.put_alias(alias.clone()).await?;
    let targets: Vec<_> = alias.targets.iter().map(|target| escape(target)).collect();
    publish(context, format!("alias {} set to {}", escape(&alias.name), targets.join(", "))).await?;
    Ok(alias)
}

/// Removes an alias.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn remove(context: &Context, call: RemoveAlias) -> Outcome<AliasView> {
    let _changing = context.begin_change().await?;
    let known = context.stores.config.aliases().await?.into_iter().find(|alias| alias.name == call.name);
    let known = known.ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("there is no alias {:?}", escape(&call.name)))
            .hint("list them with: flm aliases list")
    })?;
    context.stores.config.remove_alias(call.name.to_string()).await?;
    publish(context, format!("alias {} removed", escape(&call.name))).await?;
    Ok(known)
}

async fn publish(context: &Context, details: String) -> Outcome<()> {
    context.registry.set_aliases(context.stores.config.aliases().await?);
    context.record(AuditKind::EngineChanged, Severity::Low, details).await;
    context.changed(Noun::Aliases);
    Ok(())
}
