//! Operations on the daemon's log (SPEC §2 `flm logs`, §5.11).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::clock::UnixMillis;

/// Reads lines of the log, oldest first: the newest ones, or what came after a place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReadLogs {
    /// Only lines from this time on.
    pub since: Option<UnixMillis>,
    /// Only what came after this place: the end of the page before.
    pub after: Option<LogPlace>,
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ReadLogs, "logs/read", Reads, LogPage);

/// A place in the log. It stays right over rotation: when the day ends, reading goes on in the next file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LogPlace {
    /// Name of the file; empty is before all of them.
    pub file: String,
    /// Bytes of it that were read.
    pub offset: u64,
}

/// Lines of the log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LogPage {
    /// One JSON object per line, as they are in the file.
    pub lines: Vec<serde_json::Value>,
    /// Where reading goes on.
    pub next: LogPlace,
}
