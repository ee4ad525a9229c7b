//! Operations on captured exchanges (SPEC §10, §9.3).

use serde::{Deserialize, Serialize};

use super::{call, long_call};
use crate::types::calls::chat::ChatProgress;
use crate::types::capture::{Capture, CaptureEntry};
use crate::types::chat::ChatAnswer;
use crate::types::ids::{KeyId, RequestId};

/// Lists captured exchanges without their bodies, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListCaptures {
    /// Only those of this key.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// How many, at most 1000; 0 is 100.
    #[serde(default)]
    pub limit: u32,
}
call!(ListCaptures, "captures/list", Reads, CapturePage);

/// Captured exchanges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CapturePage {
    /// Newest first.
    pub captures: Vec<CaptureEntry>,
    /// How many there are in all.
    pub total: u64,
    /// Bytes of all of them, of the 100 MB that there are.
    pub bytes: u64,
    /// Exchanges since the start that could not be kept, because the disk was slow.
    pub lost: u64,
}

/// Shows one captured exchange with its bodies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowCapture {
    /// Its request.
    pub id: RequestId,
}
call!(ShowCapture, "captures/show", Reads, Capture);

/// Deletes captured exchanges; answers how many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClearCaptures {
    /// Only those of this key.
    #[serde(default)]
    pub key: Option<KeyId>,
}
call!(ClearCaptures, "captures/clear", Destroys, u64);

/// Asks another model what a captured request asked, through the own endpoint. Leaving it ends the engine's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCapture {
    /// The captured request.
    pub id: RequestId,
    /// Any name under which clients may ask for the other model.
    pub model: String,
}
long_call!(ReplayCapture, "captures/replay", Changes, ChatAnswer, ChatProgress);
