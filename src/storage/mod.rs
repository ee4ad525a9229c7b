//! The only SQL: `config.db` and the encrypted `security.db`, one writer thread and one read-only reader thread
//! per database, one file per table (SPEC §10).
//!
//! Called by `audit`, `operations` and `daemon`. Must never be called from `proxy`: no disk on the hot path.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::types::address::{BlockEntry, ListedNetwork};
use crate::types::audit::AuditRow;
use crate::types::calls::addresses::NetworkList;
use crate::types::calls::audit::ListAudit;
use crate::types::clock::UnixMillis;
use crate::types::engine::{DetectionReport, EngineRecord, HealthPoint};
use crate::types::ids::{EngineId, KeyId};
use crate::types::key::{KeyRecord, KeyView};
use crate::types::listener::ListenerConfig;
use crate::types::prompt::PromptView;
use crate::types::request::RequestRow;

/// A storage error. (Stub: the storage room fills it in; converts into `types::failure::Failure`.)
#[derive(Debug, thiserror::Error)]
#[error("storage")]
pub struct StorageError {}

/// Handle to `config.db`. Cloned freely; every method is answered by the database's own threads.
#[derive(Debug, Clone)]
pub struct ConfigStore {}

impl ConfigStore {
    /// Opens or makes the database and migrates it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let _ = path;
        todo!()
    }
    /// All settings that were stored.
    pub async fn settings(&self) -> Result<Vec<(String, String)>, StorageError> {
        todo!()
    }
    /// Stores one setting; `None` removes it.
    pub async fn set_setting(&self, key: String, value: Option<String>) -> Result<(), StorageError> {
        todo!()
    }
    /// All engines, by id.
    pub async fn engines(&self) -> Result<Vec<EngineRecord>, StorageError> {
        todo!()
    }
    /// Adds or replaces an engine.
    pub async fn put_engine(&self, engine: EngineRecord) -> Result<(), StorageError> {
        todo!()
    }
    /// Removes an engine; false when there was none.
    pub async fn remove_engine(&self, id: EngineId) -> Result<bool, StorageError> {
        todo!()
    }
    /// The last detection, whatever its age.
    pub async fn detection(&self) -> Result<Option<DetectionReport>, StorageError> {
        todo!()
    }
    /// Replaces the last detection.
    pub async fn put_detection(&self, report: DetectionReport) -> Result<(), StorageError> {
        todo!()
    }
    /// Appends health checks.
    pub async fn append_health(&self, points: Vec<HealthPoint>) -> Result<(), StorageError> {
        todo!()
    }
    /// Health checks from `since` on, oldest first.
    pub async fn health(&self, engine: Option<EngineId>, since: UnixMillis) -> Result<Vec<HealthPoint>, StorageError> {
        todo!()
    }
    /// Rolls raw checks older than 24 h up to hours, drops roll-ups older than 90 days (SPEC §3.4).
    pub async fn roll_up_health(&self, now: UnixMillis) -> Result<(), StorageError> {
        todo!()
    }
    /// Stored listeners, by port.
    pub async fn listeners(&self) -> Result<Vec<ListenerConfig>, StorageError> {
        todo!()
    }
    /// Adds or replaces the listener of that port.
    pub async fn put_listener(&self, listener: ListenerConfig) -> Result<(), StorageError> {
        todo!()
    }
    /// Forgets the listener of that port.
    pub async fn remove_listener(&self, port: u16) -> Result<bool, StorageError> {
        todo!()
    }
    /// Current version of every prompt, by api id.
    pub async fn prompts(&self) -> Result<Vec<PromptView>, StorageError> {
        todo!()
    }
    /// Saves a new version.
    pub async fn put_prompt(&self, api_id: String, text: String, now: UnixMillis) -> Result<PromptView, StorageError> {
        todo!()
    }
    /// Deletes the current version; history stays. False when there was none.
    pub async fn remove_prompt(&self, api_id: String, now: UnixMillis) -> Result<bool, StorageError> {
        todo!()
    }
    /// All versions, newest first.
    pub async fn prompt_history(&self, api_id: String) -> Result<Vec<PromptView>, StorageError> {
        todo!()
    }
    /// Writes everything back and closes; later calls fail.
    pub async fn close(&self) -> Result<(), StorageError> {
        todo!()
    }
}

/// A row of the audit log with its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainedRow {
    /// The row.
    pub row: AuditRow,
    /// HMAC-SHA256 over the last row's code and this row (SPEC §5.9).
    pub code: [u8; 32],
}

/// Handle to the encrypted `security.db`. Cloned freely.
#[derive(Debug, Clone)]
pub struct SecurityStore {}

impl SecurityStore {
    /// Opens or makes the database with the key in `key_file` (made when absent), and migrates it.
    pub fn open(path: &Path, key_file: &Path) -> Result<Self, StorageError> {
        let _ = (path, key_file);
        todo!()
    }
    /// A key for another purpose, derived from the database key: HMAC-SHA256(database key, purpose).
    pub fn derived_key(&self, purpose: &str) -> zeroize::Zeroizing<[u8; 32]> {
        let _ = purpose;
        todo!()
    }
    /// Why the store only reads (a failed migration), or `None` (SPEC §5.12).
    pub fn read_only(&self) -> Option<String> {
        todo!()
    }
    /// All keys, revoked ones included.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StorageError> {
        todo!()
    }
    /// Adds a key.
    pub async fn insert_key(&self, key: KeyRecord) -> Result<(), StorageError> {
        todo!()
    }
    /// Replaces everything but the hash; false when there is no such key.
    pub async fn update_key(&self, view: KeyView) -> Result<bool, StorageError> {
        todo!()
    }
    /// Notes when keys were last used.
    pub async fn touch_keys(&self, used: Vec<(KeyId, UnixMillis)>) -> Result<(), StorageError> {
        todo!()
    }
    /// All blocks that are in force at `now`.
    pub async fn blocks(&self, now: UnixMillis) -> Result<Vec<BlockEntry>, StorageError> {
        todo!()
    }
    /// Adds or replaces blocks.
    pub async fn put_blocks(&self, entries: Vec<BlockEntry>) -> Result<(), StorageError> {
        todo!()
    }
    /// Removes blocks.
    pub async fn remove_blocks(&self, networks: Vec<IpNet>) -> Result<u64, StorageError> {
        todo!()
    }
    /// A list of networks.
    pub async fn networks(&self, list: NetworkList) -> Result<Vec<ListedNetwork>, StorageError> {
        todo!()
    }
    /// Adds or replaces one.
    pub async fn put_network(&self, list: NetworkList, entry: ListedNetwork) -> Result<(), StorageError> {
        todo!()
    }
    /// Removes one; false when there was none.
    pub async fn remove_network(&self, list: NetworkList, network: IpNet) -> Result<bool, StorageError> {
        todo!()
    }
    /// Appends to the audit log in one transaction.
    pub async fn append_audit(&self, rows: Vec<ChainedRow>) -> Result<(), StorageError> {
        todo!()
    }
    /// The newest row.
    pub async fn audit_head(&self) -> Result<Option<ChainedRow>, StorageError> {
        todo!()
    }
    /// A page, newest first.
    pub async fn audit_page(&self, query: ListAudit) -> Result<Vec<AuditRow>, StorageError> {
        todo!()
    }
    /// Rows above `after`, oldest first, at most `limit`: for verification and export.
    pub async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<ChainedRow>, StorageError> {
        todo!()
    }
    /// Appends to the request log.
    pub async fn append_requests(&self, rows: Vec<RequestRow>) -> Result<(), StorageError> {
        todo!()
    }
    /// The newest requests, newest first.
    pub async fn requests(&self, limit: u32) -> Result<Vec<RequestRow>, StorageError> {
        todo!()
    }
    /// Drops requests beyond age and count (SPEC §10: 7 days or 1 M rows).
    pub async fn trim_requests(&self, now: UnixMillis, keep: Duration, rows: u64) -> Result<u64, StorageError> {
        todo!()
    }
    /// Writes everything back and closes; later calls fail.
    pub async fn close(&self) -> Result<(), StorageError> {
        todo!()
    }
}
