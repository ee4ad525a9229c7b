//! Many rows of several tables at once, in one transaction for each database (SPEC §10, `flm migrate legacy`).
//!
//! Called by `operations::legacy`. Must never replace what is there without being told to: the caller names what it adds.

use super::config_store::ConfigStore;
use super::error::StorageError;
use super::security_store::SecurityStore;
use super::{aliases, api_keys, api_prompts, engines, model_profiles, settings};
use crate::types::alias::AliasView;
use crate::types::clock::UnixMillis;
use crate::types::engine::EngineRecord;
use crate::types::ids::EngineId;
use crate::types::key::KeyRecord;
use crate::types::profile::Parameter;

/// What goes into `config.db` together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigImport {
    /// Engines.
    pub engines: Vec<EngineRecord>,
    /// Aliases.
    pub aliases: Vec<AliasView>,
    /// Model profiles.
    pub profiles: Vec<ImportedProfile>,
    /// Prompts: api id and text.
    pub prompts: Vec<(String, String)>,
    /// Settings: key and value.
    pub settings: Vec<(String, String)>,
}

/// One profile of an import.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedProfile {
    /// The engine.
    pub engine: EngineId,
    /// The engine's own name for the model.
    pub model: String,
    /// The operator's name for it.
    pub label: String,
    /// Its values.
    pub parameters: Vec<Parameter>,
}

impl ConfigStore {
    /// Adds all of it or nothing.
    pub async fn import(&self, import: ConfigImport, now: UnixMillis) -> Result<(), StorageError> {
        self.database
            .write("importing", move |transaction| {
                import.engines.iter().try_for_each(|engine| engines::put(transaction, engine))?;
                import.aliases.iter().try_for_each(|alias| aliases::put(transaction, alias))?;
                for ImportedProfile { engine, model, label, parameters } in &import.profiles {
                    model_profiles::put(transaction, engine, model, label, parameters, now)?;
                }
                for (api_id, text) in import.prompts {
                    api_prompts::put(transaction, api_id, text, now)?;
                }
                import.settings.into_iter().try_for_each(|(key, value)| settings::put(transaction, key, Some(value)))
            })
            .await
    }
}

impl SecurityStore {
    /// Adds all keys or none.
    ///
    /// # Errors
    /// `Conflict` when an id exists or a label belongs to a key that is not revoked.
    pub async fn import_keys(&self, keys: Vec<KeyRecord>) -> Result<(), StorageError> {
        self.database
            .write("importing API keys", move |transaction| {
                keys.into_iter().try_for_each(|key| api_keys::insert(transaction, key))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::KeyId;
    use crate::types::key::{KeyLimits, KeyView};

    #[tokio::test]
    async fn keys_are_imported_all_or_none() {
        let (_folder, store) = crate::storage::security_store::tests::store();
        let key = |id: &str, label: &str| KeyRecord {
            view: KeyView::unused(KeyId::parse(id).expect("id"), label, "abcd", KeyLimits::default(), UnixMillis(1)),
            hash: "hash".into(),
        };
        let twice = vec![key("aaaaaaaa", "one"), key("bbbbbbbb", "one")];
        assert!(matches!(store.import_keys(twice).await, Err(StorageError::Conflict { .. })));
        assert_eq!(store.keys().await.expect("reads"), []);
        store.import_keys(vec![key("aaaaaaaa", "one"), key("bbbbbbbb", "two")]).await.expect("imports");
        assert_eq!(store.keys().await.expect("reads").len(), 2);
    }
}
