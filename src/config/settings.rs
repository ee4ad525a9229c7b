//! The settings table: key, type, default, unit, reload class and doc of every setting, and the values in force
//! with their source (SPEC §1.4).

use std::collections::BTreeMap;
use std::path::Path;

use crate::types::calls::settings::SettingView;
use crate::types::failure::Outcome;

/// The values in force: an immutable snapshot, shared as `Arc` and swapped on reload.
///
/// Precedence: flag > environment (`FLM_` + key in upper case with `_` for `.`) > `flm.toml` > database > default.
#[derive(Debug, Clone, Default)]
pub struct Settings {}

/// Where values come from, strongest first.
#[derive(Debug, Clone, Default)]
pub struct SettingLayers {
    /// From the command line.
    pub flags: BTreeMap<String, String>,
    /// From the environment.
    pub environment: BTreeMap<String, String>,
    /// From `flm.toml`.
    pub file: BTreeMap<String, String>,
    /// From `config.db`.
    pub database: BTreeMap<String, String>,
}

impl SettingLayers {
    /// Reads `flm.toml` into dotted keys; an absent file is empty. The error names line, column and reason.
    pub fn read_file(path: &Path) -> Outcome<BTreeMap<String, String>> {
        let _ = path;
        todo!()
    }
    /// Picks the `FLM_…` variables that name settings out of the given environment.
    pub fn from_environment(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let _ = variables;
        todo!()
    }
}

impl Settings {
    /// Parses and checks every layer. The first wrong value is an error that names key, layer, value and rule.
    pub fn build(layers: &SettingLayers) -> Outcome<Self> {
        let _ = layers;
        todo!()
    }
    /// Checks one value for the table without storing it.
    pub fn check(key: &str, value: &str) -> Outcome<()> {
        let _ = (key, value);
        todo!()
    }
    /// All settings for people.
    pub fn list(&self) -> Vec<SettingView> {
        todo!()
    }
    /// One setting for people. NOT_FOUND names near matches.
    pub fn view(&self, key: &str) -> Outcome<SettingView> {
        let _ = key;
        todo!()
    }
}
