//! Operations on settings (SPEC §1.4, §2 `flm config`).

use serde::{Deserialize, Serialize};

use super::call;

/// Where a value comes from, strongest first (SPEC §1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// A command line flag.
    Flag,
    /// An environment variable.
    Environment,
    /// `flm.toml`.
    File,
    /// `config.db`.
    Database,
    /// The built-in default.
    Default,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReloadClass {
    /// At once.
    Live,
    /// When the listener or the owner starts again.
    Restart,
}

/// A setting with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SettingView {
    /// Dotted name.
    pub key: String,
    /// Value in force, as text.
    pub value: String,
    /// Built-in default, as text.
    pub default: String,
    /// Unit, such as "ms"; empty when there is none.
    pub unit: String,
    /// One line for people.
    pub doc: String,
    /// Where the value comes from.
    pub source: SettingSource,
    /// When a change takes effect.
    pub reload: ReloadClass,
}

/// Shows one setting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowSetting {
    /// Dotted name.
    pub key: String,
}
call!(ShowSetting, "settings/show", Reads, SettingView);

/// Stores a value in `config.db`. Fails with `PROXY_INVALID_CONFIG` when it has the wrong type or range, and
/// says so when a flag, the environment or `flm.toml` still overrides it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetSetting {
    /// Dotted name.
    pub key: String,
    /// New value as text.
    pub value: String,
}
call!(SetSetting, "settings/set", Changes, SettingView);

/// Takes a value out of `config.db`, so that the default holds again; one that is not stored is left as it is. Answers what holds
/// now, and nothing for a name that only another version knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnsetSetting {
    /// Dotted name.
    pub key: String,
}
call!(UnsetSetting, "settings/unset", Changes, Option<SettingView>);

/// Lists all settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListSettings {}
call!(ListSettings, "settings/list", Reads, Vec<SettingView>);

/// The files of this home.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowPaths {}
call!(ShowPaths, "settings/paths", Reads, PathsView);

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PathsView {
    /// Settings database.
    pub config_db: String,
    /// Encrypted database.
    pub security_db: String,
    /// Key file of the encrypted database.
    pub key_file: String,
    /// `flm.toml`, whether it exists or not.
    pub config_file: String,
    /// Control socket.
    pub socket: String,
    /// Folder of log files.
    pub logs: String,
}
