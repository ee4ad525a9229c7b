//! API keys as the operator and the guard see them (SPEC §5.1). The secret itself is never here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::ids::KeyId;
use super::secret::Secret;

/// What a key may do beyond nothing (SPEC §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Inference routes and the model list.
    Infer,
    /// `GET /metrics` from anywhere.
    Metrics,
    /// Creating, deleting, pulling, pushing and copying models.
    Manage,
    /// `/engine/{id}/*` and Ollama's own API beyond inference.
    Passthrough,
}

/// Order in an engine's queue (SPEC §3.8).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After everyone else.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before everyone else.
    High,
}

/// What a key is allowed, as the operator sets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeyLimits {
    /// Requests per minute; 0 is no limit (SPEC §5.7: default 600).
    pub requests_per_minute: u32,
    /// Requests that may come at once before the rate counts (default 100).
    pub burst: u32,
    /// Tokens per local day; `None` is no limit.
    pub tokens_per_day: Option<u64>,
    /// Requests in flight at once; `None` is no limit.
    pub max_parallel: Option<u32>,
    /// Order in the queue.
    pub priority: Priority,
    /// Globs over canonical names or aliases; empty is every model.
    pub models: Vec<String>,
    /// Globs over paths; empty is every route that the rights allow.
    pub routes: Vec<String>,
    /// What it may do.
    pub rights: BTreeSet<Right>,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self {
            // SPEC §5.7.
            requests_per_minute: 600,
            burst: 100,
            tokens_per_day: None,
            max_parallel: None,
            priority: Priority::Normal,
            models: Vec::new(),
            routes: Vec::new(),
            rights: BTreeSet::from([Right::Infer]),
        }
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeyView {
    /// Public id.
    pub id: KeyId,
    /// The operator's name for it; unique among keys that are not revoked.
    pub label: String,
    /// Last 4 characters of the written key, to recognise it.
    pub last4: String,
    /// What it is allowed.
    pub limits: KeyLimits,
    /// When it was made.
    pub created: UnixMillis,
    /// When it stops working by itself.
    pub expires: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// When it was last used, to the minute.
    pub last_used: Option<UnixMillis>,
    /// Tokens used on the local day, which its budget counts; `None` where that was not asked for.
    #[serde(default)]
    pub tokens_today: Option<u64>,
    /// Until when the bodies of its requests and answers are captured; `None` is not at all (SPEC §10).
    #[serde(default)]
    pub capture_until: Option<UnixMillis>,
}

impl KeyView {
    /// A key that nobody has used yet, that never expires and whose bodies are not captured; `last4` ends its written form.
    #[must_use]
    pub fn unused(
        id: KeyId,
        label: impl Into<String>,
        last4: impl Into<String>,
        limits: KeyLimits,
        created: UnixMillis,
    ) -> Self {
        Self {
            id,
            label: label.into(),
            last4: last4.into(),
            limits,
            created,
            expires: None,
            revoked: None,
            last_used: None,
            tokens_today: None,
            capture_until: None,
        }
    }

    /// Until when the bodies of its requests are captured, if they are at that time.
    #[must_use]
    pub fn captures_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.capture_until.filter(|until| *until > now && self.revoked.is_none())
    }
}

/// A key as stored: with the Argon2id hash of its secret in PHC form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// What everyone may see.
    pub view: KeyView,
    /// PHC string of Argon2id.
    pub hash: String,
}

/// A key just made: the only time its text is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CreatedKey {
    /// The whole key, `flm_…`.
    pub key: Secret,
    /// What is kept of it.
    pub view: KeyView,
}
