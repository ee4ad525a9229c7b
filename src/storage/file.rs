//! [`DatabaseFile`]: a database that no thread serves: to copy it page by page, to look through it, and to prepare a
//! copy that takes the place of another (SPEC §5.12).
//!
//! Called by `operations` for backups, restoring, a change of the key and checks, always off the runtime: every method
//! blocks. Must never write into a database that a store has open.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use zeroize::Zeroizing;

use super::columns::unsigned;
use super::database::BUSY_TIMEOUT;
use super::error::{Contents, StorageError};
use super::key_file::DatabaseKey;
use super::migrations;
use crate::config::files::{self, FileError, Found};
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;

/// Pages of 4 KiB that are copied between two looks at whether somebody still wants the copy: about a millisecond.
const PAGES_AT_ONCE: i32 = 256;
/// Virtual machine steps between two such looks while a database is looked through.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;
/// Faults that are told of one database; more say nothing more.
const FAULTS_TOLD: u32 = 20;

/// A database in a file.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is in it.
    pub contents: Contents,
    /// Its key, when it is encrypted.
    pub key: Option<&'a DatabaseKey>,
}

/// Whether others may have the file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAccess {
    /// It has a write-ahead log, and others may write while it is read.
    Live,
    /// It is a finished copy: one file, which may be on a disk that cannot be written.
    Finished,
}

/// What looking through a database found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soundness {
    /// Version of its schema.
    pub schema: u32,
    /// What is wrong, one line each; empty when it is sound.
    pub faults: Vec<String>,
}

/// What a copy of `security.db` takes over before it takes the place of another.
#[derive(Default)]
pub struct Adoption {
    /// The chain key of its rows, when the copy is under another key.
    pub chain_key: Option<Zeroizing<[u8; 32]>>,
    /// Keys that stay revoked: a revocation is final, also when a backup does not know of it.
    pub revoked: Vec<(KeyId, UnixMillis)>,
}

/// The newest schema that this program knows.
#[must_use]
pub fn newest_schema(contents: Contents) -> u32 {
    let steps = match contents {
        Contents::Settings => migrations::CONFIG,
        Contents::Security => migrations::SECURITY,
    };
    u32::try_from(steps.len()).unwrap_or(u32::MAX)
}

impl DatabaseFile<'_> {
    /// Opens a connection of one's own and reads from it once: that is what finds a wrong key.
    pub(super) fn connect(&self, access: OpenFlags, patience: Duration) -> Result<Connection, StorageError> {
        let fail = |error: &rusqlite::Error| self.fault("opening", error);
        // Without a mutex: each connection stays on its own thread.
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.path, flags).map_err(|e| fail(&e))?;
        // SQLCipher writes its complaints to stderr by default, which would be the console's screen.
        connection.execute_batch("PRAGMA cipher_log_level = NONE").map_err(|e| fail(&e))?;
        if let Some(key) = self.key {
            connection.execute_batch(&key.pragma()).map_err(|_| StorageError::Sqlite {
                database: self.path.to_owned(),
                operation: "setting the key",
                // The error's text would quote the statement, and with it the key.
                detail: "SQLCipher refused it".to_owned(),
            })?;
        }
        connection.busy_timeout(patience).map_err(|e| fail(&e))?;
        // SQLCipher cannot tell a wrong key from a damaged first page.
        let first = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
        if let Err(error) = first {
            return Err(match (fail(&error), self.key) {
                (StorageError::Corrupt { .. }, Some(key)) => {
                    StorageError::WrongKey { database: self.path.to_owned(), key_file: key.origin().to_owned() }
                }
                (other, _) => other,
            });
        }
        // Temporary tables and sorters stay in memory: on disk they would be in clear.
        connection
            .execute_batch("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")
            .map_err(|e| fail(&e))?;
        Ok(connection)
    }

    fn read(&self, access: ReadAccess) -> Result<Connection, StorageError> {
        let flags = match access {
            // The write-ahead log's index is shared memory that every reader writes.
            ReadAccess::Live => OpenFlags::SQLITE_OPEN_READ_WRITE,
            ReadAccess::Finished => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let connection = self.connect(flags, BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true).map_err(|e| self.fault("opening for reading", &e))?;
        Ok(connection)
    }

    fn fault(&self, operation: &'static str, error: &rusqlite::Error) -> StorageError {
        StorageError::from_sqlite(self.path, self.contents, operation, error)
    }

    /// Whether the key opens it. A database that is not there, or empty, is opened by every key.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn opens(&self) -> Result<bool, StorageError> {
        if !files::exists(self.path)? || files::size(self.path)? == 0 {
            return Ok(true);
        }
        match self.read(ReadAccess::Live) {
            Ok(_connection) => Ok(true),
            Err(StorageError::WrongKey { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Version of its schema; 0 when it is empty or not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn schema(&self, access: ReadAccess) -> Result<u32, StorageError> {
        if !files::exists(self.path)? || files::size(self.path)? == 0 {
            return Ok(0);
        }
        migrations::version(&self.read(access)?).map_err(|e| self.fault("reading the schema version", &e))
    }

    /// Copies it as it is now into a new file of mode 0600, under the key of `target`; writers go on meanwhile. `told`
    /// hears how many bytes of how many are done, and may break it off. The copy is one file, flushed to disk.
    ///
    /// # Errors
    /// `Interrupted`, `DiskFull`, or that either file cannot be used. What was copied is left for the caller to remove.
    pub fn copy_to(
        &self,
        target: &DatabaseFile<'_>,
        access: ReadAccess,
        told: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        const OPERATION: &str = "copying";
        const PAGE: u64 = 4096;
        if files::ensure_private_file(target.path)? == Found::Existing {
            let there = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(FileError::new("make", target.path, there).into());
        }
        let source = self.read(access)?;
        // One snapshot for all steps: without it, each commit of a writer would begin the copy anew. It holds up no
        // writer, since the log before the snapshot is only written back later.
        source
            .execute_batch("BEGIN")
            .and_then(|()| source.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0)))
            .map_err(|e| self.fault(OPERATION, &e))?;

        let mut copy = target.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT)?;
        let written = |e: &rusqlite::Error| target.fault(OPERATION, e);
        // Flushed once, at the end.
        copy.execute_batch("PRAGMA synchronous = OFF").map_err(|e| written(&e))?;
        {
            let pages = Backup::new(&source, &mut copy).map_err(|e| written(&e))?;
            loop {
                let step = pages.step(PAGES_AT_ONCE).map_err(|e| written(&e))?;
                let progress = pages.progress();
                let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0) * PAGE;
                let (all, left) = (bytes(progress.pagecount), bytes(progress.remaining));
                if told(all.saturating_sub(left), all).is_break() {
                    return Err(StorageError::Interrupted { operation: OPERATION });
                }
                match step {
                    StepResult::Done => break,
                    StepResult::More => {}
                    // A snapshot waits for nobody, and nobody else knows the copy.
                    _ => return Err(StorageError::Locked { database: self.path.to_owned(), operation: OPERATION }),
                }
            }
        }
        // The copy says of itself that it has a write-ahead log; without one it is a single file.
        copy.pragma_update(None, "journal_mode", "DELETE").map_err(|e| written(&e))?;
        copy.close().map_err(|(_, e)| written(&e))?;
        Ok(files::sync(target.path)?)
    }

    /// Takes captured bodies out of a copy, so that they are nowhere once their time is over; what they filled is overwritten
    /// and given back. Nothing is done to a schema that has none.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn forget_captures(&self) -> Result<(), StorageError> {
        let copy = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT)?;
        let fault = |error| self.fault("taking captures out of a copy", &error);
        let has_any: bool = copy
            .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'captures'", [], |row| {
                row.get(0)
            })
            .and_then(|there: bool| {
                if there {
                    copy.query_row("SELECT EXISTS (SELECT 1 FROM captures)", [], |row| row.get(0))
                } else {
                    Ok(false)
                }
            })
            .map_err(fault)?;
        if has_any {
            copy.execute_batch("PRAGMA secure_delete = ON; DELETE FROM captures; VACUUM").map_err(fault)?;
        }
        copy.close().map_err(|(_, error)| fault(error))?;
        Ok(files::sync(self.path)?)
    }

    /// Looks through the whole database: pages, indexes, references, and of an encrypted one the code of every page.
    /// `stop` breaks it off.
    ///
    /// # Errors
    /// `Interrupted`, `WrongKey`, or that it cannot be read at all; a fault inside is a finding.
    pub fn inspect(&self, access: ReadAccess, stop: &Arc<AtomicBool>) -> Result<Soundness, StorageError> {
        const OPERATION: &str = "looking through";
        let told = |error: rusqlite::Error| {
            if stop.load(Ordering::Relaxed) {
                return StorageError::Interrupted { operation: OPERATION };
            }
            self.fault(OPERATION, &error)
        };
        let mut connection = match self.read(access) {
            Ok(connection) => connection,
            Err(StorageError::Corrupt { detail, .. }) => return Ok(Soundness { schema: 0, faults: vec![detail] }),
            Err(error) => return Err(error),
        };
        let flag = stop.clone();
        let look = move || flag.load(Ordering::Relaxed);
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(look)).map_err(told)?;
        let schema = migrations::version(&connection).map_err(told)?;
        let mut faults = Vec::new();
        let mut checks = vec![format!("PRAGMA integrity_check({FAULTS_TOLD})")];
        if self.key.is_some() {
            checks.push("PRAGMA cipher_integrity_check".to_owned());
        }
        for check in checks {
            if stop.load(Ordering::Relaxed) {
                return Err(StorageError::Interrupted { operation: OPERATION });
            }
            let lines = connection.prepare(&check).and_then(|mut statement| {
                statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
            });
            match lines {
                Ok(lines) => faults.extend(lines.into_iter().filter(|line| line != "ok")),
                Err(error) => match told(error) {
                    // Damage can end the very search for it.
                    StorageError::Corrupt { detail, .. } => faults.push(detail),
                    other => return Err(other),
                },
            }
        }
        if faults.is_empty() {
            let orphans = connection.prepare("PRAGMA foreign_key_check").and_then(|mut statement| {
                let orphan = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?));
                statement.query_map([], orphan)?.collect::<Result<Vec<_>, _>>()
            });
            let orphans = orphans.map_err(told)?;
            faults.extend(orphans.iter().map(|(table, parent)| format!("a row of {table} names no row of {parent}")));
        }
        faults.truncate(FAULTS_TOLD as usize);
        Ok(Soundness { schema, faults })
    }

    /// Number and code of the newest row of the audit log, archived ones included; `None` when it never had one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn audit_head(&self, access: ReadAccess) -> Result<Option<(u64, [u8; 32])>, StorageError> {
        let connection = self.read(access)?;
        let newest =
            |sql| connection.query_row(sql, [], |row| Ok((unsigned(row, "number")?, row.get("code")?))).optional();
        let head = newest("SELECT sequence AS number, code FROM audit_logs ORDER BY sequence DESC LIMIT 1");
        let head = head.and_then(|head| match head {
            Some(head) => Ok(Some(head)),
            None if !has_table(&connection, "audit_anchors")? => Ok(None),
            None => newest("SELECT through AS number, code FROM audit_anchors ORDER BY through DESC LIMIT 1"),
        });
        head.map_err(|e| self.fault("reading the audit log's head", &e))
    }

    /// Keys that are revoked, with when.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn revocations(&self, access: ReadAccess) -> Result<Vec<(KeyId, UnixMillis)>, StorageError> {
        let connection = self.read(access)?;
        let rows = connection.prepare("SELECT id, revoked FROM api_keys WHERE revoked IS NOT NULL").and_then(
            |mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, UnixMillis(row.get(1)?)));
                statement.query_map([], row)?.collect::<Result<Vec<_>, _>>()
            },
        );
        let rows = rows.map_err(|e| self.fault("reading revoked keys", &e))?;
        Ok(rows.into_iter().filter_map(|(id, at)| Some((KeyId::parse(&id).ok()?, at))).collect())
    }

    /// Prepares a finished copy of `security.db` to take the place of another: no key of it is captured any more, and those that are
    /// revoked stay so; answers how many keys it revoked.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn adopt(&self, adoption: &Adoption) -> Result<u64, StorageError> {
        let fail = |e: &rusqlite::Error| self.fault("preparing the copy", e);
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT)?;
        if adoption.chain_key.is_some() {
            // An old schema has no place for the chain's earlier key.
            migrations::migrate(&mut connection, migrations::SECURITY).map_err(|fault| StorageError::Sqlite {
                database: self.path.to_owned(),
                operation: "migrating the copy",
                detail: format!("{fault:?}"),
            })?;
        }
        let written = (|| {
            let transaction = connection.transaction()?;
            if let Some(key) = &adoption.chain_key {
                // Rows up to now stay chained with it. Two changes without a row between: the older key holds.
                transaction.execute(
                    "INSERT OR IGNORE INTO audit_chain_keys (through, key)
                     SELECT newest, ?1 FROM (SELECT max(
                         (SELECT coalesce(max(sequence), 0) FROM audit_logs),
                         (SELECT coalesce(max(through), 0) FROM audit_anchors)) AS newest)
                     WHERE newest > 0",
                    [key.as_slice()],
                )?;
            }
            if has_column(&transaction, "api_keys", "capture_until")? {
                // What somebody set going then is not meant to go on now.
                transaction.execute("UPDATE api_keys SET capture_until = NULL", [])?;
            }
            let mut revoked = 0;
            for (id, at) in &adoption.revoked {
                let sql = "UPDATE api_keys SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL";
                revoked += number_of(transaction.execute(sql, (id.to_string(), at.0))?);
            }
            transaction.commit()?;
            Ok(revoked)
        })();
        let revoked = written.map_err(|e| fail(&e))?;
        connection.close().map_err(|(_, e)| fail(&e))?;
        files::sync(self.path)?;
        Ok(revoked)
    }

    /// Writes the write-ahead log back into the file, so that the file alone is the whole database.
    ///
    /// # Errors
    /// When it cannot be opened, or another program reads it.
    pub fn write_back(&self) -> Result<(), StorageError> {
        const OPERATION: &str = "writing back";
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT)?;
        let busy: i64 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|e| self.fault(OPERATION, &e))?;
        if busy != 0 {
            return Err(StorageError::Locked { database: self.path.to_owned(), operation: OPERATION });
        }
        connection.close().map_err(|(_, e)| self.fault(OPERATION, &e))
    }
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?1", [name], |row| {
        row.get(0)
    })
}

fn has_column(connection: &Connection, table: &str, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 FROM pragma_table_info(?1) WHERE name = ?2";
    connection.query_row(sql, [table, name], |row| row.get(0))
}

fn number_of(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::Audience;
    use crate::storage::security_store::tests::store;
    use crate::storage::{ConfigStore, SecurityStore};
    use crate::types::address::ListedNetwork;
    use crate::types::calls::addresses::NetworkList;

    fn entry(number: u32) -> ListedNetwork {
        let network = format!("10.{}.{}.{}/32", number >> 16, number >> 8 & 255, number & 255);
        ListedNetwork { network: network.parse().expect("a network"), note: "x".repeat(2_000), created: UnixMillis(1) }
    }

    async fn fill(store: &SecurityStore, rows: u32) {
        for number in 0..rows {
            store.put_network(NetworkList::Allow, entry(number)).await.expect("writes");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_copy_is_one_moment_and_neither_holds_up_a_writer_nor_is_begun_anew_by_it() {
        let (folder, store) = store();
        fill(&store, 1_500).await;
        let path = folder.path().join("copy.db");
        let (written, key, original) = (store.clone(), store.key().clone(), store.path().to_owned());
        let runtime = tokio::runtime::Handle::current();
        let copying = tokio::task::spawn_blocking(move || {
            let original = DatabaseFile { path: &original, contents: Contents::Security, key: Some(&key) };
            let copy = DatabaseFile { path: &path, ..original };
            let mut seen = Vec::new();
            let mut told = |done, total| {
                seen.push((done, total));
                // A commit between every two steps.
                let number = 100_000 + u32::try_from(seen.len()).expect("small");
                runtime.block_on(written.put_network(NetworkList::Allow, entry(number))).expect("the writer goes on");
                ControlFlow::Continue(())
            };
            original.copy_to(&copy, ReadAccess::Live, &mut told).expect("copies");
            assert_eq!(
                files::names(path.parent().expect("a folder"))
                    .expect("lists")
                    .iter()
                    .filter(|name| name.starts_with("copy.db"))
                    .count(),
                1
            );
            let found = copy.inspect(ReadAccess::Finished, &Arc::default()).expect("looks");
            assert_eq!(found, Soundness { schema: newest_schema(Contents::Security), faults: Vec::new() });
            let rows: i64 = copy
                .read(ReadAccess::Finished)
                .and_then(|copy| {
                    let count = copy.query_row("SELECT count(*) FROM ip_allowlist", [], |row| row.get(0));
                    count.map_err(|error| original.fault("counting", &error))
                })
                .expect("counts");
            (seen, rows)
        });
        let (seen, rows) = copying.await.expect("runs");
        assert!(seen.len() >= 3, "{seen:?}");
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "never begun anew: {seen:?}");
        assert_eq!(rows, 1_500, "what came later is not in it");
        let now = store.networks(NetworkList::Allow).await.expect("reads").len();
        assert_eq!(now, 1_500 + seen.len());
    }

    #[tokio::test]
    async fn a_changed_page_and_an_orphan_are_findings() {
        let (folder, store) = store();
        fill(&store, 200).await;
        store.close().await.expect("closes");
        let (path, key) = (store.path().to_owned(), store.key().clone());
        let database = DatabaseFile { path: &path, contents: Contents::Security, key: Some(&key) };
        assert!(database.opens().expect("reads"));
        let mut content = files::read(&path).expect("reads");
        let middle = content.len() / 2;
        content[middle] ^= 1;
        files::replace(&path, &content, Audience::Owner).expect("damages");
        let found = database.inspect(ReadAccess::Live, &Arc::default()).expect("looks");
        assert!(!found.faults.is_empty());

        let config = folder.path().join("config.db");
        drop(ConfigStore::open(&config).expect("makes"));
        let plain = Connection::open(&config).expect("opens");
        plain.execute_batch("PRAGMA foreign_keys = OFF; INSERT INTO api_prompts VALUES ('chat', 7)").expect("writes");
        drop(plain);
        let database = DatabaseFile { path: &config, contents: Contents::Settings, key: None };
        let found = database.inspect(ReadAccess::Live, &Arc::default()).expect("looks");
        assert_eq!(found.faults, ["a row of api_prompts names no row of api_prompt_history"]);
    }

    #[tokio::test]
    async fn looking_through_ends_when_nobody_waits() {
        let (_folder, store) = store();
        fill(&store, 50).await;
        let database = DatabaseFile { path: store.path(), contents: Contents::Security, key: Some(store.key()) };
        let stopped = Arc::new(AtomicBool::new(true));
        let error = database.inspect(ReadAccess::Live, &stopped).expect_err("is broken off");
        assert!(matches!(error, StorageError::Interrupted { .. }), "{error}");
    }
}
