//! One SQLite file with its two threads: a writer and a read-only reader, each behind a bounded queue.
//!
//! Used by `ConfigStore` and `SecurityStore`. Must never run a statement on the caller's thread once it is open, so
//! that no disk ever blocks a runtime.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::error::{Contents, ReadOnlyReason, StorageError};
use super::file::DatabaseFile;
use super::key_file::DatabaseKey;
use super::migrations::{Migration, NotMigrated, StepFault, migrate, withhold};
use crate::config::files::{self, FileError, PRIVATE_FILE};
use crate::telemetry::priority::Priority;

/// Jobs that may wait for a thread; beyond it callers wait for a place.
const QUEUE: usize = 256;

/// How long a statement waits for a lock of another program, such as `sqlite3` or a backup.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Virtual machine steps between two looks at whether the caller of a read is still there; a few microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Pages that are kept for a query that goes through a table once: it meets none of them again.
const PAGES_OF_A_SCAN: i32 = 64;

/// Keeps a `-wal` that a burst made large from staying so, bytes.
const WAL_LIMIT: i64 = 64 << 20;

/// How to open a database.
pub(super) struct Opening<'a> {
    /// The file.
    pub(super) path: &'a Path,
    /// What is in it.
    pub(super) contents: Contents,
    /// Its key, when it is encrypted.
    pub(super) key: Option<&'a DatabaseKey>,
    /// Its migrations.
    pub(super) steps: &'a [Migration],
    /// Why no migration may run now, such as that there is no backup of what it changes.
    pub(super) withheld: Option<&'a str>,
    /// How long a statement waits for a lock of another program: [`BUSY_TIMEOUT`] outside tests.
    pub(super) patience: Duration,
}

/// A database that is open. Cloned freely; its threads end by [`Database::close`], which tells what went wrong, or else with
/// the last clone, which waits for them: for what is queued, which is little where nobody closes.
#[derive(Clone)]
pub(super) struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    contents: Contents,
    read_only: Option<ReadOnlyReason>,
    repaired: Vec<String>,
    /// The writer thread has the other end; it ends when told to close or when every sender is gone.
    writer: mpsc::Sender<Job>,
    /// The same for the reader thread.
    reader: mpsc::Sender<Job>,
    /// Waits when it is dropped, so it comes after both senders.
    threads: Threads,
}

/// Both threads, until they were waited for. What OpenSSL keeps for a thread is given back when the thread ends: that must not
/// meet the end of the program, which gives back everything.
struct Threads(Mutex<Vec<thread::JoinHandle<()>>>);

impl Threads {
    fn take(&self) -> Vec<thread::JoinHandle<()>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let own = thread::current().id();
        // A job may hold the last clone: its thread ends by itself.
        for thread in self.take().into_iter().filter(|thread| thread.thread().id() != own) {
            if thread.join().is_err() {
                tracing::error!("a thread of the database panicked");
            }
        }
    }
}

enum Job {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    Close(oneshot::Sender<rusqlite::Result<()>>),
}

/// Tells the thread that reads that nobody waits for the answer any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The query, and what interrupts it when it is dropped.
fn interruptible<T>(
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> (Abandon, impl FnOnce(&mut Connection) -> rusqlite::Result<T>) {
    let abandoned = Arc::new(AtomicBool::new(false));
    let abandon = Abandon(abandoned.clone());
    let query = move |connection: &mut Connection| {
        if abandoned.load(Ordering::Relaxed) {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        }
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || abandoned.load(Ordering::Relaxed)))?;
        query(connection)
    };
    (abandon, query)
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.shared.path).field("read_only", &self.shared.read_only).finish()
    }
}

impl Database {
    /// Opens or makes the file, narrows wide modes, checks it and migrates it. Blocks: call it at start.
    pub(super) fn open(opening: &Opening<'_>) -> Result<Self, StorageError> {
        let path = opening.path;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::make_dir(folder)?;
        }
        files::ensure_private_file(path)?;
        if path.is_dir() {
            return Err(FileError::new("open", path, io::Error::from(io::ErrorKind::IsADirectory)).into());
        }
        let mut repaired = Vec::new();
        for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
            repaired.extend(files::narrow(&file, PRIVATE_FILE)?);
        }

        let file = opening.file();
        let mut writer = file.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, opening.patience)?;
        let fail =
            |operation, error: &rusqlite::Error| StorageError::from_sqlite(path, opening.contents, operation, error);
        // SQLite opens a file that it may not write for reading, and says nothing.
        let immutable = writer.is_readonly("main").map_err(|e| fail("opening", &e))?;
        // Committed is kept also after a power cut: a revoked key must stay revoked.
        writer
            .execute_batch(&format!(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = {WAL_LIMIT};"
            ))
            .map_err(|e| fail("switching to write-ahead logging", &e))?;
        if opening.contents == Contents::Settings {
            quick_check(&writer, path)?;
        }
        let read_only = match migrate_unless_withheld(&mut writer, opening) {
            Ok(()) => immutable.then_some(ReadOnlyReason::File),
            Err(NotMigrated::Newer { found, known }) => {
                return Err(StorageError::NewerSchema { database: path.to_owned(), found, known });
            }
            Err(NotMigrated::Unreadable(error)) => return Err(fail("reading the schema version", &error)),
            Err(NotMigrated::Failed { from, to, fault }) => {
                let detail = match fault {
                    StepFault::Withheld(why) => why,
                    StepFault::Sqlite(error) => match fail("migrating", &error) {
                        cause @ (StorageError::Locked { .. } | StorageError::Corrupt { .. }) => return Err(cause),
                        _ => error.to_string(),
                    },
                };
                let failed = StorageError::Migration { database: path.to_owned(), from, to, detail };
                // Keys that exist must go on working (SPEC §5.12); without a schema there are none.
                if opening.contents == Contents::Settings || from == 0 {
                    return Err(failed);
                }
                Some(ReadOnlyReason::Migration(failed.to_string()))
            }
        };
        let reader = file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY, opening.patience)?;
        reader.pragma_update(None, "query_only", true).map_err(|e| fail("opening for reading", &e))?;

        // Nobody waits for the logs that are written there.
        let (write_name, read_name, priority) = match opening.contents {
            Contents::Settings => ("config-writer", "config-reader", Priority::Ordinary),
            Contents::Security => ("security-writer", "security-reader", Priority::GivesWay),
        };
        let (writer, writes) = spawn(write_name, writer, path, priority)?;
        let (reader, reads) = spawn(read_name, reader, path, Priority::Ordinary)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                contents: opening.contents,
                read_only,
                repaired,
                writer,
                reader,
                threads: Threads(Mutex::new(vec![reads, writes])),
            }),
        })
    }

    /// Why the database only reads, or `None`.
    pub(super) fn read_only(&self) -> Option<String> {
        self.shared.read_only.as_ref().map(ToString::to_string)
    }

    /// File modes that were narrowed when it was opened.
    pub(super) fn repaired(&self) -> &[String] {
        &self.shared.repaired
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs a query on the reader thread. Dropping the future interrupts it.
    pub(super) async fn read<T, F>(&self, operation: &'static str, query: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (abandon, query) = interruptible(query);
        let _until_answered = abandon;
        self.run(&self.shared.reader, operation, query).await
    }

    /// Runs a query that reads much on a thread and a connection of its own, with the key of the database: it waits for no other
    /// read and holds none up. Dropping the future interrupts it.
    pub(super) async fn read_apart<T, F>(
        &self,
        key: &DatabaseKey,
        operation: &'static str,
        query: F,
    ) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let closed = || StorageError::Closed { database: self.shared.path.clone(), operation };
        if self.shared.reader.is_closed() {
            return Err(closed());
        }
        let (abandon, query) = interruptible(query);
        let _until_answered = abandon;
        let (path, contents, key) = (self.shared.path.clone(), self.shared.contents, key.clone());
        let read = move || {
            let file = DatabaseFile { path: &path, contents, key: Some(&key) };
            let mut connection = file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY, BUSY_TIMEOUT)?;
            connection
                .pragma_update(None, "cache_size", PAGES_OF_A_SCAN)
                .and_then(|()| query(&mut connection))
                .map_err(|error| StorageError::from_sqlite(&path, contents, operation, &error))
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| closed())?
    }

    /// The same of what a schema of an earlier version may lack: after a migration that failed, that reads as nothing
    /// stored, so that the keys that exist are served (SPEC §5.12).
    pub(super) async fn read_if_there<T, F>(&self, operation: &'static str, query: F) -> Result<T, StorageError>
    where
        T: Default + Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match self.read(operation, query).await {
            Err(StorageError::Sqlite { detail, .. }) if self.is_of_an_earlier_version() && names_a_lack(&detail) => {
                tracing::warn!(operation, detail, "the schema of an earlier version lacks this; it reads as nothing");
                Ok(T::default())
            }
            other => other,
        }
    }

    fn is_of_an_earlier_version(&self) -> bool {
        matches!(self.shared.read_only, Some(ReadOnlyReason::Migration(_)))
    }

    /// Runs a change on the writer thread, in a transaction of its own. Once queued it runs to its end, also when
    /// the future is dropped.
    pub(super) async fn write<T, F>(&self, operation: &'static str, change: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        if let Some(reason) = &self.shared.read_only {
            return Err(StorageError::ReadOnly { database: self.shared.path.clone(), reason: reason.clone() });
        }
        let job = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        self.run(&self.shared.writer, operation, job).await
    }

    async fn run<T, F>(&self, thread: &mpsc::Sender<Job>, operation: &'static str, job: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |connection| {
            // The caller may have gone; a change is kept all the same.
            let _caller_gone = reply.send(job(connection));
        }));
        let closed = || StorageError::Closed { database: self.shared.path.clone(), operation };
        thread.send(job).await.map_err(|_| closed())?;
        let result = answer.await.map_err(|_| closed())?;
        result.map_err(|error| StorageError::from_sqlite(&self.shared.path, self.shared.contents, operation, &error))
    }

    /// Runs statements outside a transaction on the writer's connection: what someone with the key could do.
    #[cfg(test)]
    pub(super) async fn tamper(&self, sql: String) -> Result<(), StorageError> {
        self.run(&self.shared.writer, "tampering", move |connection| connection.execute_batch(&sql)).await
    }

    /// Ends the threads after what is queued, and writes the `-wal` back into the file. Closing twice is fine.
    pub(super) async fn close(&self) -> Result<(), StorageError> {
        // The reader first: the write-back can only empty the `-wal` when nobody reads from it.
        for thread in [&self.shared.reader, &self.shared.writer] {
            let (reply, answer) = oneshot::channel();
            if thread.send(Job::Close(reply)).await.is_err() {
                continue;
            }
            if let Ok(Err(error)) = answer.await {
                let operation = "writing back";
                return Err(StorageError::from_sqlite(&self.shared.path, self.shared.contents, operation, &error));
            }
        }
        let threads = self.shared.threads.take();
        let ended = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(thread::JoinHandle::join));
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::error!(path = %self.shared.path.display(), "a thread of the database panicked");
        }
        Ok(())
    }
}

/// Whether `SQLite` says that a table or column is not there; it has no code of its own for that.
fn names_a_lack(detail: &str) -> bool {
    detail.starts_with("no such table") || detail.starts_with("no such column")
}

/// The name of a file that `SQLite` keeps beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl<'a> Opening<'a> {
    fn file(&self) -> DatabaseFile<'a> {
        DatabaseFile { path: self.path, contents: self.contents, key: self.key }
    }
}

fn migrate_unless_withheld(writer: &mut Connection, opening: &Opening<'_>) -> Result<(), NotMigrated> {
    match opening.withheld {
        Some(why) => withhold(writer, opening.steps, why),
        None => migrate(writer, opening.steps),
    }
}

/// Looks through the whole file. Only for `config.db`, which stays small (SPEC §3.4 rolls its largest table up).
fn quick_check(connection: &Connection, path: &Path) -> Result<(), StorageError> {
    let corrupt = |detail| StorageError::Corrupt { database: path.to_owned(), detail, contents: Contents::Settings };
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(corrupt(verdict)),
        Err(error) => Err(StorageError::from_sqlite(path, Contents::Settings, "checking", &error)),
    }
}

fn spawn(
    name: &str,
    connection: Connection,
    path: &Path,
    priority: Priority,
) -> Result<(mpsc::Sender<Job>, thread::JoinHandle<()>), StorageError> {
    let (sender, jobs) = mpsc::channel(QUEUE);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            priority.take();
            serve(connection, jobs);
        })
        .map_err(|e| FileError::new("start a thread for", path, e))?;
    Ok((sender, thread))
}

fn serve(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Run(run) => run(&mut connection),
            Job::Close(reply) => {
                let written = write_back(&connection);
                let closed = connection.close().map_err(|(_, error)| error);
                // Whoever closes may have stopped waiting.
                let _caller_gone = reply.send(written.and(closed));
                return;
            }
        }
    }
}

fn write_back(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_readonly("main")? || connection.pragma_query_value(None, "query_only", |row| row.get(0))? {
        return Ok(());
    }
    // Another program that still reads only leaves the `-wal` longer: `busy` in the first column is no error.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ConfigStore;

    const ENDLESS: &str = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

    fn store() -> (tempfile::TempDir, ConfigStore) {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        (folder, store)
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_is_interrupted() {
        let (_folder, store) = store();
        let endless = store.database.read("counting", |c| c.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)));
        assert!(tokio::time::timeout(Duration::from_millis(50), endless).await.is_err(), "it is endless");
        let next = tokio::time::timeout(Duration::from_secs(20), store.settings());
        assert_eq!(next.await.expect("the reader is free again").expect("reads"), []);
    }

    #[tokio::test]
    async fn so_is_one_on_a_connection_of_its_own_and_it_holds_up_no_other() {
        let (_folder, store) = crate::storage::security_store::tests::store();
        let (running, runs) = oneshot::channel();
        let (ended, end) = oneshot::channel::<()>();
        let endless = store.read_apart("counting", move |connection| {
            let _ended = ended;
            running.send(()).expect("somebody waits");
            connection.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
        });
        let other = async {
            runs.await.expect("it runs");
            store.keys().await
        };
        tokio::select! {
            _ = endless => panic!("it is endless"),
            keys = other => assert_eq!(keys.expect("reads"), []),
        }
        let end = tokio::time::timeout(Duration::from_secs(20), end).await;
        assert!(end.expect("it was interrupted").is_err(), "dropped with the query");
    }

    #[tokio::test]
    async fn the_reader_cannot_write() {
        let (_folder, store) = store();
        let error = store
            .database
            .read("writing", |c| c.execute("INSERT INTO settings VALUES ('a', 'b')", []))
            .await
            .expect_err("read-only");
        assert!(matches!(error, StorageError::ReadOnly { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_change_that_fails_halfway_leaves_nothing() {
        let (_folder, store) = store();
        let error = store
            .database
            .write("changing", |transaction| {
                transaction.execute("INSERT INTO settings VALUES ('a', 'b')", [])?;
                transaction.execute("INSERT INTO settings VALUES ('a', 'c')", [])
            })
            .await
            .expect_err("the key exists");
        assert!(matches!(error, StorageError::Conflict { operation: "changing", .. }), "{error}");
        assert_eq!(store.settings().await.expect("reads"), []);
    }

    #[tokio::test]
    async fn a_change_is_kept_although_its_caller_left() {
        let (_folder, store) = store();
        let (begun, has_begun) = oneshot::channel();
        let change = store.database.write("changing", move |transaction| {
            let _test_waits = begun.send(());
            transaction.execute("INSERT INTO settings VALUES ('a', 'b')", [])
        });
        tokio::select! {
            _ = change => {}
            begun = has_begun => begun.expect("the writer has it"),
        }
        // Queued behind the change, so it is over when this is answered.
        store.set_setting("z".into(), None).await.expect("writes");
        assert_eq!(store.settings().await.expect("reads"), [("a".to_owned(), "b".to_owned())]);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_nothing_is_half_written() {
        let (_folder, store) = store();
        store.set_setting("kept".into(), Some("value".into())).await.expect("writes");
        // SQLite answers SQLITE_FULL at this limit, as it does when a write gets ENOSPC.
        store.database.tamper("PRAGMA max_page_count = 1".into()).await.expect("limits");
        let error = store.set_setting("large".into(), Some("x".repeat(1 << 20))).await.expect_err("full");
        assert!(matches!(error, StorageError::DiskFull { .. }), "{error}");
        assert_eq!(store.settings().await.expect("reads").len(), 1);
        store.database.tamper("PRAGMA max_page_count = 1000000".into()).await.expect("space again");
        store.set_setting("large".into(), Some("x".repeat(1 << 20))).await.expect("writes again");
    }

    #[tokio::test]
    async fn the_last_clone_waits_for_what_is_queued() {
        let (folder, store) = store();
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let change = store.database.write("changing", move |transaction| {
            let _test_waits = begun.send(());
            let _test_says_so = may_go.recv();
            transaction.execute("INSERT INTO settings VALUES ('a', 'b')", [])
        });
        tokio::select! {
            _ = change => {}
            begun = has_begun => begun.expect("the writer has it"),
        }
        let mut dropped = tokio::task::spawn_blocking(move || drop(store));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut dropped).await;
        assert!(early.is_err(), "the writer is still at it");
        go.send(()).expect("the writer waits");
        tokio::time::timeout(Duration::from_secs(20), dropped).await.expect("the writer is done").expect("drops");
        let reader = Connection::open(folder.path().join("config.db")).expect("opens");
        let stored: String = reader.query_row("SELECT value FROM settings", [], |row| row.get(0)).expect("is there");
        assert_eq!(stored, "b");
    }

    #[tokio::test]
    async fn a_closed_store_says_so_and_closing_twice_is_fine() {
        let (folder, store) = store();
        store.set_setting("a".into(), Some("b".into())).await.expect("writes");
        store.close().await.expect("closes");
        store.close().await.expect("is closed");
        assert!(matches!(store.settings().await, Err(StorageError::Closed { .. })));
        assert!(matches!(store.set_setting("a".into(), None).await, Err(StorageError::Closed { .. })));
        let path = folder.path().join("config.db");
        assert!(!beside(&path, "-wal").exists(), "everything is in the database itself");
    }
}
