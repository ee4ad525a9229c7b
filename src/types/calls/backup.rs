//! Backups and the key of `security.db` (SPEC §2 `flm security backup`, `rekey`, `lock-status`, §5.12).
//!
//! Making and listing backups are operations of the owner. Restoring one and changing the key take the databases away
//! from whoever has them open, so they need a home without an owner: `control::offline` runs them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{call, long_call};
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;

/// Copies both databases as they are now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateBackup {
    /// Folder that gets the backup; `None` is the home's own, where the newest three are kept.
    pub folder: Option<String>,
    /// Passphrase that the key of `security.db` is sealed under; `None` leaves the key out.
    pub passphrase: Option<Secret>,
}
long_call!(CreateBackup, "backup/create", Changes, BackupView, BackupProgress);

/// Lists the backups in the home's own folder, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListBackups {}
call!(ListBackups, "backup/list", Reads, BackupListing);

/// Where the key comes from, whether the database is open, and who may use the files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowLock {}
call!(ShowLock, "lock/show", Reads, LockStatus);

/// How far a backup or its restoration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProgress {
    /// What is being done.
    pub stage: BackupStage,
    /// Bytes done of this stage.
    pub done: u64,
    /// Bytes of this stage; 0 when it is not known.
    pub total: u64,
}

/// Stages of a backup or its restoration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStage {
    /// `config.db` is copied.
    Settings,
    /// `security.db` is copied.
    Security,
    /// What was copied, or is to be restored, is looked through.
    Checking,
}

impl fmt::Display for BackupStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings => "copying config.db",
            Self::Security => "copying security.db",
            Self::Checking => "checking",
        })
    }
}

/// Why a backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupReason {
    /// The operator asked for it.
    Manual,
    /// A day had passed since the last.
    Daily,
    /// A newer version of FLM was about to change the schema.
    BeforeMigration,
    /// The key of `security.db` was about to be changed.
    BeforeRekey,
    /// It had been changed.
    AfterRekey,
    /// What an old program left was about to be added.
    BeforeLegacy,
}

impl fmt::Display for BackupReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Daily => "daily",
            Self::BeforeMigration => "before-migration",
            Self::BeforeRekey => "before-rekey",
            Self::AfterRekey => "after-rekey",
            Self::BeforeLegacy => "before-legacy",
        })
    }
}

/// What a backup says of itself: `manifest.json`, sealed under the key of `security.db`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackupManifest {
    /// Form of the backup.
    pub format: u32,
    /// Version of FLM that made it.
    pub flm: String,
    /// When.
    pub made: UnixMillis,
    /// Why.
    pub reason: BackupReason,
    /// `config.db`.
    pub config: BackedUpDatabase,
    /// `security.db`.
    pub security: BackedUpDatabase,
    /// Rows of the audit log in it, archived ones included: the number of the newest.
    pub audit_rows: u64,
    /// The newest row, signed (SPEC §5.9); `None` when there was none.
    pub audit_head: Option<String>,
    /// The key of `security.db`.
    pub key: BackedUpKey,
}

/// A database in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackedUpDatabase {
    /// Version of its schema.
    pub schema: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// What a backup tells of the key that opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackedUpKey {
    /// Tells keys apart.
    pub fingerprint: String,
    /// How a passphrase becomes the key, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// The key itself, sealed under a passphrase of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// A backup as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackupView {
    /// Its folder.
    pub path: String,
    /// What it says of itself.
    pub manifest: BackupManifest,
    /// Whether the key of this home opens it.
    pub opens: bool,
}

/// The backups of a home.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackupListing {
    /// Where they are.
    pub folder: String,
    /// Newest first.
    pub backups: Vec<BackupView>,
    /// Folders there that are none, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// What is restored, and how its key is found.
#[derive(Debug, Clone, Default)]
pub struct Restoration {
    /// The backup's folder, or a file in it.
    pub backup: PathBuf,
    /// A file with the key that the backup was made under, when this home has another.
    pub key_file: Option<PathBuf>,
    /// The passphrase that its key is sealed under or made from.
    pub backup_passphrase: Option<Secret>,
    /// The passphrase of this home.
    pub passphrase: Option<Secret>,
}

/// Where the new key comes from.
#[derive(Debug, Clone)]
pub enum NewKey {
    /// Drawn, and written into the key file.
    KeyFile,
    /// Made from this passphrase, typed at every start.
    Passphrase(Secret),
}

/// What restoring a backup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RestoredBackup {
    /// The backup.
    pub path: String,
    /// What it says of itself.
    pub manifest: BackupManifest,
    /// Where the databases are that it took the place of; `None` when there were none.
    pub kept: Option<String>,
    /// Keys that the backup holds as working, and that stay revoked.
    pub revoked: u64,
    /// Whether the databases replaced could be opened, and so whether revocations are known.
    pub replaced_readable: bool,
    /// Whether `security.db` was brought under the key of this home.
    pub rekeyed: bool,
}

/// What a change of the key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Rekeyed {
    /// Where the key comes from now.
    pub source: KeySource,
    /// Tells the new key from others.
    pub fingerprint: String,
    /// A file with the key before, for backups that were made with it; `None` when it was a passphrase.
    pub old_key: Option<String>,
    /// Backups in the home's folder that only the old key opens.
    pub old_backups: Vec<String>,
    /// The backup under the new key; `None` when it could not be made.
    pub backup: Option<String>,
}

/// Where the key of `security.db` comes from (SPEC §5.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// A systemd credential that holds the key.
    Credential,
    /// The file that `FLM_DB_KEY_FILE` names.
    NamedFile,
    /// The key file in the home.
    KeyFile,
    /// A passphrase, typed at start or handed over by systemd.
    Passphrase,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credential => "systemd credential flm-db-key",
            Self::NamedFile => "key file named by FLM_DB_KEY_FILE",
            Self::KeyFile => "key file of the home",
            Self::Passphrase => "passphrase",
        })
    }
}

/// Whether `security.db` is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LockState {
    /// A proxy has it open.
    Open {
        /// Its process id.
        pid: u32,
    },
    /// Nobody has it open, and the key opens it.
    Ready,
    /// Nobody has it open, and a passphrase is asked for at start.
    Locked,
    /// There is none yet; the first start makes it.
    Absent,
    /// The key does not open it, or cannot be had.
    Failing {
        /// Why.
        reason: String,
    },
}

/// A file or folder with secrets, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GuardedFile {
    /// Where.
    pub path: String,
    /// Its mode, such as `0600`.
    pub mode: String,
    /// Why it is not as it should be; `None` when it is.
    pub fault: Option<String>,
}

/// What `flm security lock-status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LockStatus {
    /// The database.
    pub database: String,
    /// Where its key comes from.
    pub source: KeySource,
    /// The file that holds the key or says how it is made.
    pub key_file: String,
    /// Tells the key from others; `None` when it is not known here.
    pub fingerprint: Option<String>,
    /// Whether it is open.
    pub state: LockState,
    /// Why changes are refused, when they are.
    pub read_only: Option<String>,
    /// Whether a change of the key was broken off: the next start brings it to an end.
    pub change_pending: bool,
    /// Files and folders with secrets.
    pub files: Vec<GuardedFile>,
}
