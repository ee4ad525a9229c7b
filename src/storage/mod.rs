//! The only SQL: `config.db` and the encrypted `security.db`, one writer thread and one read-only reader thread
//! per database, one file per table (SPEC §10); a long list is read on a connection of its own.
//!
//! Called by `audit`, `operations` and `daemon`. Must never be called from `proxy`: no disk on the hot path.

mod acme;
mod alerts;
mod aliases;
mod api_keys;
mod api_prompts;
mod audit_anchors;
mod audit_logs;
mod captures;
mod certificates;
mod columns;
mod comparisons;
mod config_store;
mod database;
mod engine_health;
mod engines;
mod error;
mod facts;
mod failures;
mod file;
mod import;
mod ip_lists;
mod key_file;
mod legacy;
mod migrations;
mod model_profiles;
mod proxy_profiles;
mod request_list;
mod request_log;
mod request_page;
mod request_page_first;
mod security_policy;
mod security_store;
mod settings;
mod usage;

pub use audit_anchors::{AuditAnchor, AuditSize};
pub use audit_logs::ChainedRow;
pub use config_store::ConfigStore;
pub use error::{Contents, ReadOnlyReason, StorageError};
pub use facts::DatabaseFacts;
pub use file::{Adoption, DatabaseFile, ReadAccess, Soundness, newest_schema};
pub use import::{ConfigImport, ImportedProfile};
pub use ip_lists::BlockPart;
pub use key_file::DatabaseKey;
pub use legacy::{LEGACY_TABLES, LegacyCell, LegacyDatabase, LegacyFault, LegacyRow, read_legacy};
pub use security_store::SecurityStore;
