//! Table `api_keys`: keys with the Argon2id hash of their secret (SPEC §5.1).

use rusqlite::{Row, Transaction, named_params};

use super::columns::{from_json, json, name, named, number};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::key::{KeyLimits, KeyRecord, KeyView};

impl SecurityStore {
    /// All keys, revoked ones included, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StorageError> {
        self.database
            .read("reading API keys", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM api_keys ORDER BY id")?;
                let mut keys = statement.query_map([], key)?.collect::<rusqlite::Result<Vec<_>>>()?;
                // Here and not by SQLite, which would copy every row into a sorter and out of it.
                keys.sort_by_key(|key| key.view.created);
                Ok(keys)
            })
            .await
    }

    /// Adds a key.
    ///
    /// # Errors
    /// `Conflict` when its id exists or its label belongs to a key that is not revoked.
    pub async fn insert_key(&self, key: KeyRecord) -> Result<(), StorageError> {
        self.database.write("adding an API key", move |transaction| insert(transaction, key)).await
    }

    /// Replaces everything but the hash; false when there is no such key. A revocation is final: it stays although
    /// the view has none, and `last_used` never goes back.
    ///
    /// # Errors
    /// `Conflict` when the label belongs to another key that is not revoked.
    pub async fn update_key(&self, view: KeyView) -> Result<bool, StorageError> {
        self.database
            .write("changing an API key", move |transaction| {
                transaction
                    .execute(
                        "UPDATE api_keys SET label = :label, last4 = :last4,
                             requests_per_minute = :requests_per_minute, burst = :burst,
                             tokens_per_day = :tokens_per_day, max_parallel = :max_parallel, priority = :priority,
                             models = :models, routes = :routes, rights = :rights, expires = :expires,
                             capture_until = :capture_until,
                             revoked = coalesce(revoked, :revoked),
                             last_used = nullif(max(coalesce(last_used, -1), coalesce(:last_used, -1)), -1)
                         WHERE id = :id",
                        named_params! {
                            ":id": view.id.as_str(),
                            ":label": view.label,
                            ":last4": view.last4,
                            ":requests_per_minute": view.limits.requests_per_minute,
                            ":burst": view.limits.burst,
                            ":tokens_per_day": view.limits.tokens_per_day.map(number),
                            ":max_parallel": view.limits.max_parallel,
                            ":priority": name(&view.limits.priority)?,
                            ":models": json(&view.limits.models)?,
                            ":routes": json(&view.limits.routes)?,
                            ":rights": json(&view.limits.rights)?,
                            ":expires": view.expires.map(|at| at.0),
                            ":revoked": view.revoked.map(|at| at.0),
                            ":last_used": view.last_used.map(|at| at.0),
                            ":capture_until": view.capture_until.map(|at| at.0),
                        },
                    )
                    .map(|rows| rows > 0)
            })
            .await
    }

    /// Notes when keys were last used; never goes back.
    pub async fn touch_keys(&self, used: Vec<(KeyId, UnixMillis)>) -> Result<(), StorageError> {
        self.database
            .write("noting the use of API keys", move |transaction| {
                let mut statement = transaction
                    .prepare_cached("UPDATE api_keys SET last_used = max(coalesce(last_used, 0), ?2) WHERE id = ?1")?;
                for (id, at) in used {
                    statement.execute((id.as_str(), at.0))?;
                }
                Ok(())
            })
            .await
    }
}

/// Adds a key within a transaction; its bodies are not captured before somebody switches that on.
pub(super) fn insert(transaction: &Transaction<'_>, key: KeyRecord) -> rusqlite::Result<()> {
    let KeyRecord { view, hash } = key;
    transaction
        .execute(
            "INSERT INTO api_keys (id, label, last4, hash, requests_per_minute, burst, tokens_per_day,
                 max_parallel, priority, models, routes, rights, created, expires, revoked, last_used)
             VALUES (:id, :label, :last4, :hash, :requests_per_minute, :burst, :tokens_per_day,
                 :max_parallel, :priority, :models, :routes, :rights, :created, :expires, :revoked,
                 :last_used)",
            named_params! {
                ":id": view.id.as_str(),
                ":label": view.label,
                ":last4": view.last4,
                ":hash": hash,
                ":requests_per_minute": view.limits.requests_per_minute,
                ":burst": view.limits.burst,
                ":tokens_per_day": view.limits.tokens_per_day.map(number),
                ":max_parallel": view.limits.max_parallel,
                ":priority": name(&view.limits.priority)?,
                ":models": json(&view.limits.models)?,
                ":routes": json(&view.limits.routes)?,
                ":rights": json(&view.limits.rights)?,
                ":created": view.created.0,
                ":expires": view.expires.map(|at| at.0),
                ":revoked": view.revoked.map(|at| at.0),
                ":last_used": view.last_used.map(|at| at.0),
            },
        )
        .map(|_| ())
}

/// Columns by their place, which migrations never change: they only add at the end.
fn key(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    Ok(KeyRecord {
        view: KeyView {
            id: named(row, 0)?,
            label: row.get(1)?,
            last4: row.get(2)?,
            limits: KeyLimits {
                requests_per_minute: row.get(4)?,
                burst: row.get(5)?,
                tokens_per_day: row.get::<_, Option<i64>>(6)?.map(|tokens| u64::try_from(tokens).unwrap_or(0)),
                max_parallel: row.get(7)?,
                priority: named(row, 8)?,
                models: from_json(row, 9)?,
                routes: from_json(row, 10)?,
                rights: from_json(row, 11)?,
            },
            created: UnixMillis(row.get(12)?),
            expires: row.get::<_, Option<i64>>(13)?.map(UnixMillis),
            revoked: row.get::<_, Option<i64>>(14)?.map(UnixMillis),
            last_used: row.get::<_, Option<i64>>(15)?.map(UnixMillis),
            // Counted in the other database and in memory.
            tokens_today: None,
            capture_until: capture_until(row)?,
        },
        hash: row.get(3)?,
    })
}

/// A schema of an earlier version, which is left when a migration failed, has no such column: its keys are served.
fn capture_until(row: &Row<'_>) -> rusqlite::Result<Option<UnixMillis>> {
    match row.get::<_, Option<i64>>(16) {
        Ok(until) => Ok(until.map(UnixMillis)),
        Err(rusqlite::Error::InvalidColumnIndex(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::storage::security_store::tests::store;
    use crate::types::key::{Priority, Right};

    fn record(id: &str, label: &str) -> KeyRecord {
        KeyRecord {
            view: KeyView {
                id: KeyId::parse(id).expect("id"),
                label: label.into(),
                last4: "wxyz".into(),
                limits: KeyLimits {
                    requests_per_minute: 0,
                    burst: 5,
                    tokens_per_day: Some(u64::from(u32::MAX) + 1),
                    max_parallel: Some(2),
                    priority: Priority::High,
                    models: vec!["flm://*/llama*".into()],
                    routes: vec!["/v1/*".into()],
                    rights: BTreeSet::from([Right::Infer, Right::Manage]),
                },
                created: UnixMillis(1),
                expires: Some(UnixMillis(99)),
                revoked: None,
                last_used: None,
                tokens_today: None,
                capture_until: None,
            },
            hash: "$argon2id$v=19$...".into(),
        }
    }

    #[tokio::test]
    async fn keys_come_back_as_they_were_given() {
        let (_folder, store) = store();
        let mut second = record("bbbbbbbb", "second");
        second.view.created = UnixMillis(2);
        second.view.limits = KeyLimits::default();
        store.insert_key(second.clone()).await.expect("adds");
        store.insert_key(record("aaaaaaaa", "first")).await.expect("adds");
        assert_eq!(store.keys().await.expect("reads"), [record("aaaaaaaa", "first"), second]);
    }

    #[tokio::test]
    async fn a_label_is_free_again_once_its_key_is_revoked() {
        let (_folder, store) = store();
        let first = record("aaaaaaaa", "laptop");
        store.insert_key(first.clone()).await.expect("adds");
        let error = store.insert_key(record("bbbbbbbb", "laptop")).await.expect_err("the label is taken");
        assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
        store.update_key(KeyView { revoked: Some(UnixMillis(5)), ..first.view }).await.expect("revokes");
        store.insert_key(record("bbbbbbbb", "laptop")).await.expect("adds");
    }

    #[tokio::test]
    async fn a_change_keeps_the_hash_and_can_neither_unrevoke_nor_go_back_in_time() {
        let (_folder, store) = store();
        let first = record("aaaaaaaa", "first");
        store.insert_key(first.clone()).await.expect("adds");
        store.touch_keys(vec![(first.view.id, UnixMillis(50)), (first.view.id, UnixMillis(40))]).await.expect("notes");
        let revoked = KeyView {
            label: "renamed".into(),
            revoked: Some(UnixMillis(60)),
            capture_until: Some(UnixMillis(77)),
            ..first.view.clone()
        };
        assert!(store.update_key(revoked.clone()).await.expect("changes"));
        assert!(store.update_key(KeyView { revoked: None, ..revoked.clone() }).await.expect("changes"));
        let stored = store.keys().await.expect("reads").remove(0);
        assert_eq!(
            stored,
            KeyRecord { view: KeyView { last_used: Some(UnixMillis(50)), ..revoked }, hash: first.hash }
        );
        assert!(!store.update_key(record("zzzzzzzz", "nobody").view).await.expect("no such key"));
    }
}
