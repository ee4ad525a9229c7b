//! [`ConfigStore`]: the handle to `config.db`. Its methods are in one file per table.

use std::path::Path;
use std::time::Duration;

use super::database::{BUSY_TIMEOUT, Database, Opening};
use super::error::{Contents, StorageError};
use super::migrations;

/// Handle to `config.db`. Cloned freely; every method is answered by the database's own threads.
///
/// Dropping a future of a read interrupts it; a change that was queued runs to its end. What a method answered is
/// on disk.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    pub(super) database: Database,
}

impl ConfigStore {
    /// Opens or makes the database and migrates it. Blocks: call it at start.
    ///
    /// # Errors
    /// `Corrupt` with the command that moves the file aside, `NewerSchema`, `Migration`, `Locked`, or that the file
    /// cannot be made. A damaged file is never replaced.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_unless_withheld(path, None)
    }

    /// The same; when a migration is missing, it does not run and `withheld` is the reason of the failure.
    ///
    /// # Errors
    /// As [`ConfigStore::open`].
    pub fn open_unless_withheld(path: &Path, withheld: Option<&str>) -> Result<Self, StorageError> {
        Self::open_with(path, BUSY_TIMEOUT, withheld)
    }

    fn open_with(path: &Path, patience: Duration, withheld: Option<&str>) -> Result<Self, StorageError> {
        let steps = migrations::CONFIG;
        let opening = Opening { path, contents: Contents::Settings, key: None, steps, withheld, patience };
        Ok(Self { database: Database::open(&opening)? })
    }

    /// Why the store only reads (a read-only disk), or `None`.
    #[must_use]
    pub fn read_only(&self) -> Option<String> {
        self.database.read_only()
    }

    /// File modes that were narrowed when it was opened, for the log.
    #[must_use]
    pub fn repaired(&self) -> &[String] {
        self.database.repaired()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// Writes everything back and closes; later calls fail.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.database.close().await
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::config::files::{self, Audience};
    use crate::storage::database::beside;
    use crate::types::failure::{ErrorCode, Failure};

    #[tokio::test]
    async fn what_was_answered_survives_a_kill() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.db");
        let store = ConfigStore::open(&path).expect("opens");
        store.set_setting("a".into(), Some("b".into())).await.expect("writes");
        // The files as they are now are what a kill would leave.
        let copy = folder.path().join("copy.db");
        for suffix in ["", "-wal"] {
            let content = files::read(&beside(&path, suffix)).expect("reads");
            files::replace(&beside(&copy, suffix), &content, Audience::Owner).expect("copies");
        }
        let after_kill = ConfigStore::open(&copy).expect("recovers");
        assert_eq!(after_kill.settings().await.expect("reads"), [("a".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn a_damaged_file_is_told_with_the_command_that_helps_and_never_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("it's config.db");
        files::replace(&path, b"this is no database at all, only text", Audience::Owner).expect("writes");
        let failure = Failure::from(ConfigStore::open(&path).expect_err("damaged"));
        assert_eq!(failure.code, ErrorCode::DbError);
        assert!(failure.message.contains("it's config.db is damaged"), "{}", failure.message);
        let hint = failure.hint.expect("hint");
        assert!(hint.contains("API keys"), "{hint}");
        assert_eq!(files::read(&path).expect("reads"), b"this is no database at all, only text");

        // The command in the hint works as it is.
        let command =
            hint.split_once("next start: ").and_then(|(_, rest)| rest.split_once(". API")).expect("command").0;
        let status = std::process::Command::new("sh").args(["-c", command]).status().expect("runs");
        assert!(status.success(), "{command}");
        assert!(folder.path().join("damaged/it's config.db").exists());
        ConfigStore::open(&path).expect("makes a new one");
    }

    #[tokio::test]
    async fn damage_inside_the_file_is_found_at_start() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.db");
        let store = ConfigStore::open(&path).expect("opens");
        for number in 0..200 {
            store.set_setting(format!("key {number}"), Some("x".repeat(100))).await.expect("writes");
        }
        store.close().await.expect("closes");
        let mut content = files::read(&path).expect("reads");
        // Every page but the first, whose header says that this is a database.
        content[4096..].fill(0xa5);
        files::replace(&path, &content, Audience::Owner).expect("damages");
        assert!(matches!(ConfigStore::open(&path), Err(StorageError::Corrupt { .. })));
    }

    #[test]
    fn a_database_of_a_newer_flm_is_refused_and_untouched() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.db");
        drop(ConfigStore::open(&path).expect("makes"));
        Connection::open(&path).expect("opens").pragma_update(None, "user_version", 99).expect("sets");
        let failure = Failure::from(ConfigStore::open(&path).expect_err("newer"));
        assert!(failure.message.contains("version 99"), "{}", failure.message);
        assert!(failure.hint.expect("hint").contains("newer FLM"));
    }

    #[test]
    fn a_database_that_another_program_holds_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.db");
        let holder = Connection::open(&path).expect("opens");
        holder.execute_batch("BEGIN EXCLUSIVE").expect("locks");
        let error = ConfigStore::open_with(&path, Duration::from_millis(20), None).expect_err("locked");
        assert!(matches!(error, StorageError::Locked { .. }), "{error}");
        assert!(Failure::from(error).hint.expect("hint").contains("other program"));
    }

    #[test]
    fn a_path_that_cannot_hold_a_file_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        files::replace(&file, b"", Audience::Owner).expect("writes");
        let failure = Failure::from(ConfigStore::open(&file.join("config.db")).expect_err("a file is in the way"));
        assert_eq!(failure.code, ErrorCode::IoError);
        let failure = Failure::from(ConfigStore::open(folder.path()).expect_err("a folder"));
        assert_eq!(failure.code, ErrorCode::IoError);
    }
}
