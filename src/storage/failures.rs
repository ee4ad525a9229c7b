//! Table `failures`: failed authentications of the last 24 hours, by network (SPEC §5.3, §10).

use ipnet::IpNet;
use rusqlite::params;

use super::columns::{from_json, json, parsed};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::clock::UnixMillis;

impl SecurityStore {
    /// Networks with a failure after `since`, those that failed last first, at most `most`.
    pub async fn failures(&self, since: UnixMillis, most: u32) -> Result<Vec<(IpNet, Vec<UnixMillis>)>, StorageError> {
        self.database
            .read_if_there("reading failures", move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT * FROM failures WHERE newest > ?1 ORDER BY newest DESC LIMIT ?2")?;
                let rows = statement.query_map((since.0, most), |row| {
                    Ok((parsed(row, "network")?, from_json::<Vec<i64>>(row, "times")?))
                })?;
                rows.map(|row| row.map(|(network, times)| (network, times.into_iter().map(UnixMillis).collect())))
                    .collect()
            })
            .await
    }

    /// Replaces the failures of networks.
    pub async fn put_failures(&self, failures: Vec<(IpNet, Vec<UnixMillis>)>) -> Result<(), StorageError> {
        self.database
            .write("storing failures", move |transaction| {
                let mut statement = transaction
                    .prepare_cached("INSERT OR REPLACE INTO failures (network, newest, times) VALUES (?1, ?2, ?3)")?;
                for (network, times) in failures {
                    let times: Vec<i64> = times.into_iter().map(|at| at.0).collect();
                    let newest = times.iter().copied().max().unwrap_or(0);
                    statement.execute(params![network.to_string(), newest, json(&times)?])?;
                }
                Ok(())
            })
            .await
    }

    /// Forgets networks whose last failure is older than `before`; answers how many.
    pub async fn forget_failures(&self, before: UnixMillis) -> Result<u64, StorageError> {
        self.database
            .write("forgetting failures", move |transaction| {
                transaction.execute("DELETE FROM failures WHERE newest <= ?1", [before.0]).map(|rows| rows as u64)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;

    #[tokio::test]
    async fn failures_come_back_as_they_were_until_they_are_old() {
        let (_folder, store) = store();
        let one: (IpNet, _) = ("192.0.2.1/32".parse().expect("network"), vec![UnixMillis(5), UnixMillis(9)]);
        let wide: (IpNet, _) = ("2001:db8::/48".parse().expect("network"), vec![UnixMillis(20)]);
        store.put_failures(vec![(one.0, vec![UnixMillis(5)]), wide.clone()]).await.expect("stores");
        store.put_failures(vec![one.clone()]).await.expect("replaces");
        assert_eq!(store.failures(UnixMillis(0), 10).await.expect("reads"), [wide.clone(), one]);
        assert_eq!(store.failures(UnixMillis(9), 10).await.expect("reads"), vec![wide.clone()]);
        assert_eq!(store.failures(UnixMillis(0), 1).await.expect("reads"), vec![wide.clone()]);
        assert_eq!(store.forget_failures(UnixMillis(9)).await.expect("forgets"), 1);
        assert_eq!(store.failures(UnixMillis(0), 10).await.expect("reads"), [wide]);
    }
}
