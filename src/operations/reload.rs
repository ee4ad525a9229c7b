//! Reading file and stores again without dropping a connection (SPEC §4.9): parse, try-build, publish, audit. What is
//! wrong keeps the old state whole and is told: in the answer, the log, the status and the audit log.

use super::context::{Context, Live};
use super::{limits, loading, settings};
use crate::config::settings::Settings;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::proxy::{Reload, ReloadReport};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::{LiveEvent, Noun};
use crate::types::text::escape;

/// What a reload of everything reads, for people.
const PARTS: [&str; 12] = [
    "settings",
    "security policy",
    "keys",
    "block list",
    "allow list",
    "trusted list",
    "prompts",
    "model profiles",
    "engines",
    "aliases",
    "certificates",
    "alert channels",
];

/// Reads settings, keys, lists, prompts, profiles and engines from file and stores again.
///
/// # Errors
/// Of `flm.toml` and the stores, `NOT_FOUND` for a port without a listener; nothing was changed then.
pub async fn reload(context: &Context, call: Reload) -> Outcome<ReloadReport> {
    let live = context.live()?;
    if let Some(port) = call.port {
        let running: Vec<u16> = live.host.status().listeners.iter().map(|listener| listener.config.port).collect();
        if !running.contains(&port) {
            let ports: Vec<_> = running.iter().map(u16::to_string).collect();
            return Err(Failure::new(ErrorCode::NotFound, format!("no listener runs on port {port}"))
                .hint(format!("listeners run on: {}; --all reloads without naming one", ports.join(", "))));
        }
    }
    let _changing = context.begin_change().await?;
    let outcome = everything(context, live).await;
    settle(context, outcome, "the operator").await
}

async fn everything(context: &Context, live: &Live) -> Outcome<ReloadReport> {
    // Everything is read and built before anything is published.
    let file = settings::read_file(context).await?;
    let newer = build(context, file.clone()).await?;
    let prompts = loading::prompt_table(context).await?;
    let profiles = loading::profile_table(context).await?;
    let engines = context.stores.config.engines().await?;
    let aliases = context.stores.config.aliases().await?;
    let guard = loading::read_guard(context).await?;
    let channels = context.stores.security.alert_channels().await?;
    // A certificate that is good is served whatever follows; one that is not leaves everything as it was.
    live.host.renew_certificates().await?;
    // From here on nothing fails.
    let changed = publish(context, newer, file);
    guard.publish(&live.proxy.guard);
    live.proxy.prompts.store(prompts);
    live.proxy.profiles.store(profiles);
    context.registry.set_aliases(aliases);
    loading::put_engines(context, engines);
    live.alerts.set(channels);
    live.blocks_changed.notify_one();
    for noun in [
        Noun::Policy,
        Noun::Keys,
        Noun::Blocklist,
        Noun::Allowlist,
        Noun::Trusted,
        Noun::Prompts,
        Noun::Profiles,
        Noun::Aliases,
        Noun::Alerts,
    ] {
        context.changed(noun);
    }
    context.hub.publish(LiveEvent::Status(Box::new(live.host.status())));
    let reloaded = PARTS.map(str::to_owned).to_vec();
    Ok(ReloadReport { reloaded, changed, needs_restart: context.settings.needing_restart() })
}

/// Reads `flm.toml` again, when it says something else than what is in force; `None` when it does not.
///
/// # Errors
/// `PROXY_INVALID_CONFIG` with line, column and reason; the old settings stay.
pub async fn reload_file(context: &Context) -> Outcome<Option<ReloadReport>> {
    let _changing = context.begin_change().await?;
    let outcome = changed_file(context).await;
    if matches!(outcome, Ok(None)) && context.settings.fault().is_none() {
        return Ok(None);
    }
    // A file that was mended to what is in force takes the complaint back.
    let outcome = outcome.map(|changed| changed.unwrap_or_else(|| report(context, Vec::new())));
    settle(context, outcome, "flm.toml").await.map(Some)
}

async fn changed_file(context: &Context) -> Outcome<Option<ReloadReport>> {
    let file = settings::read_file(context).await?;
    if file == *context.settings.file() {
        return Ok(None);
    }
    let newer = build(context, file.clone()).await?;
    let changed = publish(context, newer, file);
    Ok(Some(report(context, changed)))
}

fn report(context: &Context, changed: Vec<String>) -> ReloadReport {
    ReloadReport { reloaded: vec![PARTS[0].to_owned()], changed, needs_restart: context.settings.needing_restart() }
}

async fn build(context: &Context, file: std::collections::BTreeMap<String, String>) -> Outcome<Settings> {
    let database = context.stores.config.settings().await?.into_iter().collect();
    context.settings.build(file, database)
}

/// Puts settings in force; answers the keys whose value changed.
fn publish(context: &Context, newer: Settings, file: std::collections::BTreeMap<String, String>) -> Vec<String> {
    let changed = context.settings.load().changes(&newer).into_iter().map(str::to_owned).collect();
    limits::publish(&newer, context.live.as_ref());
    context.settings.store(newer, file);
    context.changed(Noun::Settings);
    changed
}

/// Tells how a reload went, wherever somebody may look. The caller holds the change.
async fn settle(context: &Context, outcome: Outcome<ReloadReport>, asked_by: &str) -> Outcome<ReloadReport> {
    match &outcome {
        Ok(report) => {
            context.settings.set_fault(None);
            let list = |keys: &[String]| if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
            let (parts, changed) = (report.reloaded.join(", "), list(&report.changed));
            tracing::info!(asked_by, parts, changed, needs_restart = list(&report.needs_restart), "read again");
            let details = format!("{parts} read again, asked by {asked_by}; changed settings: {changed}");
            context.record(AuditKind::PolicyChanged, Severity::Low, details).await;
        }
        Err(failure) => {
            context.settings.set_fault(Some(failure.message.clone()));
            let why = escape(&failure.message).into_owned();
            tracing::error!(asked_by, why, hint = failure.hint, "reload refused: the old state stays");
            let details = format!("reload refused, asked by {asked_by}; the old state stays: {why}");
            context.record(AuditKind::PolicyChanged, Severity::Medium, details).await;
        }
    }
    context.status_changed();
    outcome
}
