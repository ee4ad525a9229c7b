//! Settings and the files of the home (SPEC §1.4).

use std::path::Path;

use super::context::{Context, blocking_panicked};
use super::limits;
use crate::config::settings::{SettingLayers, Settings};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::settings::{ListSettings, PathsView, SetSetting, SettingView, ShowPaths, ShowSetting};
use crate::types::failure::Outcome;
use crate::types::live::Noun;
use crate::types::text::escape;

/// Shows one setting.
///
/// # Errors
/// `NOT_FOUND` that names near matches.
pub async fn show(context: &Context, call: ShowSetting) -> Outcome<SettingView> {
    std::future::ready(context.settings.load().view(&call.key)).await
}

/// Lists all settings.
pub async fn list(context: &Context, _call: ListSettings) -> Outcome<Vec<SettingView>> {
    std::future::ready(Ok(context.settings.load().list())).await
}

/// Stores a value; the answered view tells the value in force and where it comes from, so that a stronger layer
/// that still overrides the stored value shows.
///
/// # Errors
/// `NOT_FOUND` for an unknown setting, `PROXY_INVALID_CONFIG` for a value that breaks its rule.
pub async fn set(context: &Context, call: SetSetting) -> Outcome<SettingView> {
    Settings::check(&call.key, &call.value)?;
    let _changing = context.begin_change().await?;
    let mut database: std::collections::BTreeMap<_, _> = context.stores.config.settings().await?.into_iter().collect();
    database.insert(call.key.clone(), call.value.clone());
    let file = read_file(context).await?;
    let settings = context.settings.build(file.clone(), database)?;
    context.stores.config.set_setting(call.key.clone(), Some(call.value.clone())).await?;
    let view = settings.view(&call.key)?;
    limits::publish(&settings, context.live.as_ref());
    context.settings.store(settings, file);
    let details = format!("setting {} stored as {:?}", call.key, escape(&call.value));
    context.record(AuditKind::PolicyChanged, Severity::Low, details).await;
    context.changed(Noun::Settings);
    // It may need a restart, which the status tells.
    context.status_changed();
    Ok(view)
}

/// The files of this home.
pub async fn paths(context: &Context, _call: ShowPaths) -> Outcome<PathsView> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let paths = &context.paths;
    let view = PathsView {
        config_db: text(&paths.config_db),
        security_db: text(&paths.security_db),
        key_file: text(&paths.key_file),
        config_file: text(&paths.config_file()),
        socket: text(&paths.socket()),
        logs: text(&paths.log_dir),
    };
    std::future::ready(Ok(view)).await
}

/// Reads `flm.toml` off the runtime.
pub(super) async fn read_file(context: &Context) -> Outcome<std::collections::BTreeMap<String, String>> {
    let path = context.paths.config_file();
    tokio::task::spawn_blocking(move || SettingLayers::read_file(&path))
        .await
        .map_err(|_| blocking_panicked("reading flm.toml"))?
}
