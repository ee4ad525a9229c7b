//! The security policy: one value, checked before it is stored, in force with the next request (SPEC §5).

use super::context::Context;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::policy::{SetPolicy, ShowPolicy, ValidatePolicy};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::{LiveEvent, Noun};
use crate::types::policy::{PolicyFault, SecurityPolicy};

/// The policy in force.
pub async fn show(context: &Context, _call: ShowPolicy) -> Outcome<SecurityPolicy> {
    stored(context).await
}

/// Puts a policy in force.
///
/// # Errors
/// `POLICY_INVALID` that names the field; the old policy stays.
pub async fn set(context: &Context, call: SetPolicy) -> Outcome<SecurityPolicy> {
    let policy = SecurityPolicy::parse(&call.json).map_err(|fault| refused(&fault))?;
    let _changing = context.begin_change().await?;
    let before = stored(context).await?;
    // Whole: a later version with other defaults must not change what was decided.
    let text = serde_json::to_string(&policy)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the policy cannot be written: {error}")))?;
    context.stores.security.put_policy(text, context.clock.wall()).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.set_policy(policy.clone());
    }
    let details = format!("security policy set: {}", differences(&before, &policy));
    context.record(AuditKind::PolicyChanged, Severity::High, details).await;
    context.changed(Noun::Policy);
    if let Some(live) = &context.live {
        // It tells which rules only simulate.
        context.hub.publish(LiveEvent::Status(Box::new(live.host.status())));
    }
    Ok(policy)
}

/// Checks a policy and changes nothing.
///
/// # Errors
/// `POLICY_INVALID` that names the field.
pub async fn validate(_context: &Context, call: ValidatePolicy) -> Outcome<SecurityPolicy> {
    std::future::ready(SecurityPolicy::parse(&call.json).map_err(|fault| refused(&fault))).await
}

/// The stored policy, or the default.
///
/// # Errors
/// `POLICY_INVALID` when a later version or a hand wrote what this version cannot read.
pub async fn stored(context: &Context) -> Outcome<SecurityPolicy> {
    match context.stores.security.policy().await? {
        None => Ok(SecurityPolicy::default()),
        Some(text) => SecurityPolicy::parse(&text).map_err(|fault| {
            Failure::new(ErrorCode::PolicyInvalid, format!("the stored security policy cannot be used: {fault}"))
                .hint("set another one: flm security policy set --json FILE")
        }),
    }
}

/// The stored policy for a start: what cannot be read must not keep the proxy from guarding, so the default, which
/// enforces everything, takes its place and the log says so.
pub async fn for_start(context: &Context) -> SecurityPolicy {
    match stored(context).await {
        Ok(policy) => policy,
        Err(failure) => {
            tracing::error!(%failure, "the default security policy is in force");
            SecurityPolicy::default()
        }
    }
}

fn refused(fault: &PolicyFault) -> Failure {
    Failure::new(ErrorCode::PolicyInvalid, format!("the policy is wrong at {fault}"))
        .hint("see what it may hold with: flm security policy schema")
}

/// Which fields differ, for the audit log.
fn differences(before: &SecurityPolicy, after: &SecurityPolicy) -> String {
    fn walk(path: &str, before: &serde_json::Value, after: &serde_json::Value, found: &mut Vec<String>) {
        match (before, after) {
            (serde_json::Value::Object(before), serde_json::Value::Object(after)) => {
                for (name, value) in after {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, before.get(name).unwrap_or(&serde_json::Value::Null), value, found);
                }
            }
            (before, after) if before != after => found.push(format!("{path} {before} -> {after}")),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after)) {
        walk("", &before, &after, &mut found);
    }
    if found.is_empty() { "nothing changed".to_owned() } else { found.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_fields() {
        let after = SecurityPolicy::parse(r#"{"rules":{"honeypot":{"points":7}}}"#).expect("a policy");
        assert_eq!(differences(&SecurityPolicy::default(), &after), "rules.honeypot.points 10 -> 7");
        assert_eq!(differences(&after, &after), "nothing changed");
    }
}
