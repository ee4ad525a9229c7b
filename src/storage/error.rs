//! What goes wrong with a database, and what the operator can do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode as Sqlite;

use crate::config::files::{self, FileError};
use crate::types::failure::{ErrorCode, Failure};
use crate::types::text::escape;

/// A storage error: names the database and what was tried. Carries no statement and no key.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file or folder could not be made, read or checked.
    #[error("{file}: {}", .0.source, file = .0)]
    File(FileError),
    /// The database is there, its key is not.
    #[error("{} is encrypted, and its key file {} does not exist", shown(.database), shown(.key_file))]
    KeyMissing {
        /// The database.
        database: PathBuf,
        /// Where its key should be.
        key_file: PathBuf,
    },
    /// The key file holds something else.
    #[error("{} is not a database key: {reason}", shown(.key_file))]
    KeyInvalid {
        /// The file.
        key_file: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key does not open the database.
    #[error("{} cannot be opened with the key in {}: it is the wrong key, or the file is damaged", shown(.database), shown(.key_file))]
    WrongKey {
        /// The database.
        database: PathBuf,
        /// The key that was tried.
        key_file: PathBuf,
    },
    /// The file is no database, or parts of it are lost.
    #[error("{} is damaged: {detail}", shown(.database))]
    Corrupt {
        /// The database.
        database: PathBuf,
        /// What `SQLite` said.
        detail: String,
        /// Whether the key, and with it the audit chain, is at stake.
        contents: Contents,
    },
    /// A newer FLM made the database.
    #[error("{} has schema version {found}, and this version of FLM knows up to {known}", shown(.database))]
    NewerSchema {
        /// The database.
        database: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// A migration failed and was rolled back.
    #[error("{} could not be brought from schema version {from} to {to}: {detail}", shown(.database))]
    Migration {
        /// The database.
        database: PathBuf,
        /// Its version, unchanged.
        from: u32,
        /// The version of the step that failed.
        to: u32,
        /// What `SQLite` said.
        detail: String,
    },
    /// Another program holds the database.
    #[error("{} is locked by another program ({operation})", shown(.database))]
    Locked {
        /// The database.
        database: PathBuf,
        /// What was tried.
        operation: &'static str,
    },
    /// No space for a write; nothing of it was kept.
    #[error("no space is left for {} ({operation}); nothing was half written", shown(.database))]
    DiskFull {
        /// The database.
        database: PathBuf,
        /// What was tried.
        operation: &'static str,
    },
    /// The database only reads.
    #[error("{} is read-only: {reason}", shown(.database))]
    ReadOnly {
        /// The database.
        database: PathBuf,
        /// Why.
        reason: ReadOnlyReason,
    },
    /// The write breaks a rule of the schema, such as a label that is taken.
    #[error("{operation}: {detail}")]
    Conflict {
        /// What was tried.
        operation: &'static str,
        /// The rule.
        detail: String,
    },
    /// The store was closed before.
    #[error("{} is closed ({operation})", shown(.database))]
    Closed {
        /// The database.
        database: PathBuf,
        /// What was tried.
        operation: &'static str,
    },
    /// Whoever asked for it does not want it any more; nothing of it is kept.
    #[error("{operation} was cancelled")]
    Interrupted {
        /// What was on its way.
        operation: &'static str,
    },
    /// Anything else that `SQLite` says.
    #[error("{} failed ({operation}): {detail}", shown(.database))]
    Sqlite {
        /// The database.
        database: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What `SQLite` said.
        detail: String,
    },
}

/// Why a database only reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadOnlyReason {
    /// Its owner, mode or disk does not let this user write.
    #[error("this user may not write the file, or its disk is read-only")]
    File,
    /// A migration failed and was rolled back; the text says which.
    #[error("{0}")]
    Migration(String),
}

/// What would be lost with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Settings, engines, prompts: `config.db`.
    Settings,
    /// Keys, lists and logs: `security.db`.
    Security,
}

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}

/// Whether its disk has no room even for the log's index, which grows by 32 KiB.
fn is_full(database: &Path) -> bool {
    const ROOM: u64 = 64 << 10;
    files::free_space(database).is_ok_and(|free| free < ROOM)
}

/// A path as one word of a POSIX shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// The command that moves a database with its `-wal` and `-shm` out of the way: a `-wal` left behind would be
/// replayed into the new database.
fn move_aside(database: &Path) -> String {
    let aside = database.with_file_name("damaged");
    format!("mkdir -p {} && mv {}* {}/", quoted(&aside), quoted(database), quoted(&aside))
}

impl StorageError {
    /// Whether the same call may work later without anyone doing anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::DiskFull { .. } | Self::Sqlite { .. })
    }

    /// Puts what `SQLite` said into the words of this room.
    pub(super) fn from_sqlite(
        database: &Path,
        contents: Contents,
        operation: &'static str,
        error: &rusqlite::Error,
    ) -> Self {
        let database = database.to_owned();
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(Sqlite::DatabaseBusy | Sqlite::DatabaseLocked | Sqlite::FileLockingProtocolFailed) => {
                Self::Locked { database, operation }
            }
            Some(Sqlite::DiskFull) => Self::DiskFull { database, operation },
            // The files beside the database, its log's index above all, fail on a full disk with this.
            Some(Sqlite::SystemIoFailure) if is_full(&database) => Self::DiskFull { database, operation },
            Some(Sqlite::ReadOnly | Sqlite::PermissionDenied) => {
                Self::ReadOnly { database, reason: ReadOnlyReason::File }
            }
            Some(Sqlite::NotADatabase | Sqlite::DatabaseCorrupt) => Self::Corrupt { database, detail, contents },
            Some(Sqlite::ConstraintViolation) => Self::Conflict { operation, detail },
            _ => Self::Sqlite { database, operation, detail },
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::File(_) => ErrorCode::IoError,
            Self::ReadOnly { .. } => ErrorCode::ReadOnly,
            Self::Migration { .. } => ErrorCode::MigrationFailed,
            Self::Conflict { .. } => ErrorCode::InvalidArgument,
            Self::Interrupted { .. } => ErrorCode::Cancelled,
            _ => ErrorCode::DbError,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => error.hint(),
            Self::KeyMissing { database, key_file } => format!(
                "put the key file back from your copy to {} (mode 0600), or name it with FLM_DB_KEY_FILE. Without the \
                 key nobody can read the database; a backup made --with-key has one (flm security backup restore), and \
                 to start over with no keys, blocks and logs: {}",
                shown(key_file),
                move_aside(database)
            ),
            Self::KeyInvalid { .. } => {
                "put the key file back from your copy: it holds 64 hexadecimal digits and nothing else".to_owned()
            }
            Self::WrongKey { database, .. } => format!(
                "put the key file back that belongs to this database, or name it with FLM_DB_KEY_FILE. If the \
                 database itself is damaged, restore a backup (flm security backup list, then flm security backup \
                 restore --file BACKUP), or start over with no keys, blocks and logs: {}",
                move_aside(database)
            ),
            Self::Corrupt { database, contents: Contents::Settings, .. } => format!(
                "move it aside, and FLM makes a new one at the next start: {}. API keys, block lists and logs are in \
                 another file and stay; settings, hand-added engines and prompts are in the last backup (flm security \
                 backup list), or can be read from the moved file with sqlite3 and '.recover'",
                move_aside(database)
            ),
            Self::Corrupt { database, contents: Contents::Security, .. } => format!(
                "restore a backup: flm security backup list, then flm security backup restore --file BACKUP; or start over \
                 with no keys, blocks and logs: {}",
                move_aside(database)
            ),
            Self::NewerSchema { .. } => {
                "use the newer FLM that made it, or another home with --home DIR; nothing was changed".to_owned()
            }
            Self::Migration { .. } | Self::ReadOnly { reason: ReadOnlyReason::Migration(_), .. } => {
                "the database was left as it was: look at the reason, free disk space and start again, go back to the \
                 version of FLM that you had, or restore a backup: flm security backup list"
                    .to_owned()
            }
            Self::Locked { .. } => {
                "end the other program that has the file open (a backup or sqlite3?) and try again".to_owned()
            }
            Self::DiskFull { .. } => "free some space on that disk and try again".to_owned(),
            Self::ReadOnly { reason: ReadOnlyReason::File, .. } | Self::Sqlite { operation: "opening", .. } => {
                "check owner and mode of the file and its folder (ls -ld), and whether the disk is mounted read-only"
                    .to_owned()
            }
            Self::Interrupted { .. } => "run the same command again".to_owned(),
            Self::Conflict { .. } | Self::Closed { .. } | Self::Sqlite { .. } => return None,
        })
    }
}

impl From<FileError> for StorageError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let failure = Self::new(error.code(), error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
