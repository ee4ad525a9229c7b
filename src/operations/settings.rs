//! Settings and the files of the home (SPEC §1.4).

use std::collections::BTreeMap;
use std::path::Path;

use super::context::{Context, blocking_panicked};
use super::limits;
use crate::config::settings::{SettingLayers, Settings};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::settings::{
    ListSettings, PathsView, SetSetting, SettingView, ShowPaths, ShowSetting, UnsetSetting,
};
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
    let mut stored = stored(context).await?;
    stored.insert(call.key.clone(), call.value.clone());
    put(context, stored, &call.key, Some(&call.value)).await?;
    context.settings.load().view(&call.key)
}

/// Takes a value out of the store; answers what holds then. One that this version does not know can be taken out too.
///
/// # Errors
/// `NOT_FOUND` for an unknown setting that is not stored.
pub async fn unset(context: &Context, call: UnsetSetting) -> Outcome<Option<SettingView>> {
    let _changing = context.begin_change().await?;
    let mut stored = stored(context).await?;
    let view = || context.settings.load().view(&call.key);
    if stored.remove(&call.key).is_none() {
        return view().map(Some);
    }
    put(context, stored, &call.key, None).await?;
    Ok(view().ok())
}

async fn stored(context: &Context) -> Outcome<BTreeMap<String, String>> {
    Ok(context.stores.config.settings().await?.into_iter().collect())
}

/// Stores one value, or takes it out, and puts all of them in force. The caller holds the change.
async fn put(context: &Context, stored: BTreeMap<String, String>, key: &str, value: Option<&str>) -> Outcome<()> {
    let file = read_file(context).await?;
    let settings = context.settings.build(file.clone(), stored)?;
    context.stores.config.set_setting(key.to_owned(), value.map(str::to_owned)).await?;
    limits::publish(&settings, context.live.as_ref());
    context.settings.store(settings, file);
    let details = match value {
        Some(value) => format!("setting {key} stored as {:?}", escape(value)),
        None => format!("setting {} is not stored any more", escape(key)),
    };
    context.record(AuditKind::PolicyChanged, Severity::Low, details).await;
    context.changed(Noun::Settings);
    // It may need a restart, which the status tells.
    context.status_changed();
    Ok(())
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
pub(super) async fn read_file(context: &Context) -> Outcome<BTreeMap<String, String>> {
    let path = context.paths.config_file();
    tokio::task::spawn_blocking(move || SettingLayers::read_file(&path))
        .await
        .map_err(|_| blocking_panicked("reading flm.toml"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::backup::tests::TestHome;

    /// A home that another version wrote: what nobody here reads is told as long as it is stored.
    #[tokio::test]
    async fn a_stored_setting_that_is_not_known_here_can_be_taken_out() {
        let home = TestHome::new();
        let key = || "old.setting".to_owned();
        let context = home.open().await;
        context.stores.config.set_setting(key(), Some("7".to_owned())).await.expect("stores");
        context.close().await;
        let context = home.open().await;
        assert_eq!(context.settings.load().warnings().len(), 1);
        let unset = || unset(&context, UnsetSetting { key: key() });
        assert_eq!(unset().await.expect("takes it out"), None);
        assert!(context.settings.load().warnings().is_empty());
        assert_eq!(unset().await.expect_err("is not there any more").code, crate::types::failure::ErrorCode::NotFound);
        context.close().await;
    }
}
