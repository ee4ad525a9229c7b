//! Table `security_policies`: the one row `default` (SPEC §10).

use rusqlite::{OptionalExtension as _, params};

use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::clock::UnixMillis;

impl SecurityStore {
    /// The stored policy as JSON, as it was set; `None` when there is none and the default holds.
    pub async fn policy(&self) -> Result<Option<String>, StorageError> {
        self.database
            .read_if_there("reading the security policy", |connection| {
                let sql = "SELECT policy FROM security_policies WHERE name = 'default'";
                connection.query_row(sql, [], |row| row.get(0)).optional()
            })
            .await
    }

    /// Stores a policy.
    pub async fn put_policy(&self, policy: String, now: UnixMillis) -> Result<(), StorageError> {
        self.database
            .write("storing the security policy", move |transaction| {
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO security_policies (name, policy, updated) VALUES ('default', ?1, ?2)",
                        params![policy, now.0],
                    )
                    .map(|_| ())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;

    #[tokio::test]
    async fn there_is_one_policy_and_the_newest_counts() {
        let (_folder, store) = store();
        assert_eq!(store.policy().await.expect("reads"), None);
        for text in ["{}", r#"{"honeypot_paths":["/x"]}"#] {
            store.put_policy(text.to_owned(), UnixMillis(1)).await.expect("stores");
            assert_eq!(store.policy().await.expect("reads").as_deref(), Some(text));
        }
        assert!(store.put_policy("no JSON".to_owned(), UnixMillis(1)).await.is_err());
    }
}
