//! Tables `ip_blocklist`, `ip_allowlist` and `ip_trusted` (SPEC §5.2, §5.3).

use ipnet::IpNet;
use rusqlite::{Row, params};

use super::columns::{name, named, parsed};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::address::{BlockEntry, BlockRow, ListedNetwork};
use crate::types::calls::addresses::NetworkList;
use crate::types::clock::UnixMillis;

/// Which blocks to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPart {
    /// All of them.
    Whole,
    /// Those whose text is below `2`: half of the IPv4 addresses, 1.0.0.0 to 199.255.255.255 without 20 to 99.
    Lower,
    /// The other half, and nearly all of IPv6 (`2000::/3`).
    Upper,
}

impl SecurityStore {
    /// All blocks that are in force at `now`, by their text.
    pub async fn blocks(&self, now: UnixMillis) -> Result<Vec<BlockEntry>, StorageError> {
        self.read_blocks(BlockPart::Whole, now, Vec::new(), |blocks, row| blocks.push(row.entry()), |blocks| blocks)
            .await
    }

    /// Hands the blocks that are in force at `now` to `put` one by one, and answers what `done` makes of them. On a thread and a
    /// connection of its own: a million of them delay no other read, and two parts are read side by side.
    pub async fn read_blocks<T: Send + 'static>(
        &self,
        part: BlockPart,
        now: UnixMillis,
        mut into: T,
        put: fn(&mut T, &BlockRow<'_>),
        done: fn(T) -> T,
    ) -> Result<T, StorageError> {
        let range = match part {
            BlockPart::Whole => "",
            BlockPart::Lower => "WHERE network < '2'",
            BlockPart::Upper => "WHERE network >= '2'",
        };
        self.read_apart("reading the block list", move |connection| {
            let sql = format!(
                "SELECT network, reason, source, failures, created, expires FROM ip_blocklist {range} ORDER BY network"
            );
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let block = block(row)?;
                if block.expires.is_none_or(|at| at > now) {
                    put(&mut into, &block);
                }
            }
            Ok(done(into))
        })
        .await
    }

    /// Adds or replaces blocks.
    pub async fn put_blocks(&self, entries: Vec<BlockEntry>) -> Result<(), StorageError> {
        self.database
            .write("storing blocks", move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO ip_blocklist (network, reason, source, failures, created, expires)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?;
                for entry in entries {
                    statement.execute(params![
                        entry.network.to_string(),
                        entry.reason,
                        name(&entry.source)?,
                        entry.failures,
                        entry.created.0,
                        entry.expires.map(|at| at.0),
                    ])?;
                }
                Ok(())
            })
            .await
    }

    /// Removes blocks; answers how many there were.
    pub async fn remove_blocks(&self, networks: Vec<IpNet>) -> Result<u64, StorageError> {
        self.database
            .write("removing blocks", move |transaction| {
                let mut statement = transaction.prepare_cached("DELETE FROM ip_blocklist WHERE network = ?1")?;
                let mut removed = 0;
                for network in networks {
                    removed += statement.execute([network.to_string()])? as u64;
                }
                Ok(removed)
            })
            .await
    }

    /// Forgets blocks that lifted by themselves before `now`; answers how many.
    pub async fn forget_lifted_blocks(&self, now: UnixMillis) -> Result<u64, StorageError> {
        self.database
            .write("forgetting lifted blocks", move |transaction| {
                transaction.execute("DELETE FROM ip_blocklist WHERE expires <= ?1", [now.0]).map(|rows| rows as u64)
            })
            .await
    }

    /// A list of networks, by text. A new database trusts `127.0.0.1` and `::1` (SPEC §5.2).
    pub async fn networks(&self, list: NetworkList) -> Result<Vec<ListedNetwork>, StorageError> {
        self.database
            .read("reading a network list", move |connection| {
                let sql = format!("SELECT * FROM {} ORDER BY network", table(list));
                connection.prepare_cached(&sql)?.query_map([], listed)?.collect()
            })
            .await
    }

    /// Adds or replaces one.
    pub async fn put_network(&self, list: NetworkList, entry: ListedNetwork) -> Result<(), StorageError> {
        self.database
            .write("storing a network", move |transaction| {
                let sql =
                    format!("INSERT OR REPLACE INTO {} (network, note, created) VALUES (?1, ?2, ?3)", table(list));
                transaction.execute(&sql, params![entry.network.to_string(), entry.note, entry.created.0]).map(|_| ())
            })
            .await
    }

    /// Removes one; false when there was none.
    pub async fn remove_network(&self, list: NetworkList, network: IpNet) -> Result<bool, StorageError> {
        self.database
            .write("removing a network", move |transaction| {
                let sql = format!("DELETE FROM {} WHERE network = ?1", table(list));
                transaction.execute(&sql, [network.to_string()]).map(|rows| rows > 0)
            })
            .await
    }
}

fn table(list: NetworkList) -> &'static str {
    match list {
        NetworkList::Allow => "ip_allowlist",
        NetworkList::Trusted => "ip_trusted",
    }
}

fn block<'a>(row: &'a Row<'_>) -> rusqlite::Result<BlockRow<'a>> {
    Ok(BlockRow {
        network: parsed(row, 0)?,
        reason: row.get_ref(1)?.as_str()?,
        source: named(row, 2)?,
        failures: row.get(3)?,
        created: UnixMillis(row.get(4)?),
        expires: row.get::<_, Option<i64>>(5)?.map(UnixMillis),
    })
}

fn listed(row: &Row<'_>) -> rusqlite::Result<ListedNetwork> {
    Ok(ListedNetwork {
        network: parsed(row, "network")?,
        note: row.get("note")?,
        created: UnixMillis(row.get("created")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;
    use crate::types::address::BlockSource;

    fn block_of(network: &str, expires: Option<i64>) -> BlockEntry {
        BlockEntry {
            network: network.parse().expect("network"),
            reason: "20 wrong keys".into(),
            source: BlockSource::FailedAuthentication,
            failures: 20,
            created: UnixMillis(1),
            expires: expires.map(UnixMillis),
        }
    }

    #[tokio::test]
    async fn only_blocks_in_force_are_read_and_lifted_ones_can_be_forgotten() {
        let (_folder, store) = store();
        let for_ever = block_of("2001:db8::/64", None);
        let short = block_of("192.0.2.1/32", Some(100));
        store.put_blocks(vec![for_ever.clone(), short.clone()]).await.expect("stores");
        assert_eq!(store.blocks(UnixMillis(99)).await.expect("reads"), [short.clone(), for_ever.clone()]);
        assert_eq!(store.blocks(UnixMillis(100)).await.expect("reads"), vec![for_ever.clone()]);
        let longer = BlockEntry { expires: Some(UnixMillis(200)), failures: 21, ..short };
        store.put_blocks(vec![longer.clone()]).await.expect("replaces");
        assert_eq!(store.blocks(UnixMillis(100)).await.expect("reads"), [longer.clone(), for_ever.clone()]);
        assert_eq!(store.forget_lifted_blocks(UnixMillis(200)).await.expect("forgets"), 1);
        let gone = vec![for_ever.network, longer.network];
        assert_eq!(store.remove_blocks(gone).await.expect("removes"), 1);
        assert_eq!(store.blocks(UnixMillis(0)).await.expect("reads"), []);
    }

    #[tokio::test]
    async fn both_parts_of_the_block_list_are_the_whole_of_it() {
        let (_folder, store) = store();
        let networks = ["1.2.3.4/32", "199.0.0.0/8", "::1/128", "2.0.0.0/7", "2001:db8::/64", "30.0.0.0/8", "fd00::/8"];
        let entries = networks.map(|network| block_of(network, None));
        store.put_blocks(entries.to_vec()).await.expect("stores");
        let read = async |part| {
            let put = |texts: &mut Vec<String>, row: &BlockRow<'_>| texts.push(row.network.to_string());
            store.read_blocks(part, UnixMillis(0), Vec::new(), put, |texts| texts).await.expect("reads")
        };
        assert_eq!(read(BlockPart::Lower).await, ["1.2.3.4/32", "199.0.0.0/8"]);
        assert_eq!(read(BlockPart::Upper).await, ["2.0.0.0/7", "2001:db8::/64", "30.0.0.0/8", "::1/128", "fd00::/8"]);
        assert_eq!(read(BlockPart::Whole).await.len(), networks.len());
    }

    #[tokio::test]
    async fn a_block_that_cannot_be_read_and_a_closed_store_are_errors() {
        let (_folder, store) = store();
        store.tamper("INSERT INTO ip_blocklist VALUES ('192.0.2', '', 'manual', 0, 0, NULL)").await.expect("writes");
        let error = store.blocks(UnixMillis(0)).await.expect_err("no network");
        assert!(matches!(error, StorageError::Sqlite { operation: "reading the block list", .. }), "{error:?}");
        store.close().await.expect("closes");
        assert!(matches!(store.blocks(UnixMillis(0)).await, Err(StorageError::Closed { .. })));
    }

    #[tokio::test]
    async fn the_lists_are_apart_and_loopback_is_trusted_from_the_start() {
        let (_folder, store) = store();
        let names = |list: Vec<ListedNetwork>| list.iter().map(|n| n.network.to_string()).collect::<Vec<_>>();
        assert_eq!(names(store.networks(NetworkList::Trusted).await.expect("reads")), ["127.0.0.1/32", "::1/128"]);
        let office = ListedNetwork {
            network: "203.0.113.0/24".parse().expect("network"),
            note: "office".into(),
            created: UnixMillis(3),
        };
        store
            .put_network(NetworkList::Allow, ListedNetwork { note: String::new(), ..office.clone() })
            .await
            .expect("adds");
        store.put_network(NetworkList::Allow, office.clone()).await.expect("replaces");
        assert_eq!(store.networks(NetworkList::Allow).await.expect("reads"), vec![office.clone()]);
        assert!(!store.remove_network(NetworkList::Trusted, office.network).await.expect("is not there"));
        assert!(store.remove_network(NetworkList::Allow, office.network).await.expect("removes"));
        assert_eq!(store.networks(NetworkList::Allow).await.expect("reads"), []);
    }
}
