//! Operations on API keys (SPEC §2 `flm api-keys`, §5.1).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::ids::KeyId;
use crate::types::key::{CreatedKey, KeyLimits, KeyView};

/// Makes a key. Its text is in the answer and nowhere else, ever.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateKey {
    /// 1 to 80 characters, unique among keys that are not revoked.
    pub label: String,
    /// How long it works; `None` is until revoked.
    pub expires_in: Option<Duration>,
    /// What it is allowed.
    pub limits: KeyLimits,
}
call!(CreateKey, "keys/create", Changes, CreatedKey);

/// Lists keys, newest first, revoked ones last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListKeys {}
call!(ListKeys, "keys/list", Reads, Vec<KeyView>);

/// Shows one key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowKey {
    /// Which one.
    pub id: KeyId,
}
call!(ShowKey, "keys/show", Reads, KeyView);

/// When a key stops working by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Never.
    Never,
    /// After this span from now.
    In(Duration),
}

/// Changes what a key is allowed; `None` leaves a part as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditKey {
    /// Which one.
    pub id: KeyId,
    /// New label.
    pub label: Option<String>,
    /// New limits.
    pub limits: Option<KeyLimits>,
    /// New end.
    pub expires: Option<Expiry>,
}
call!(EditKey, "keys/edit", Changes, KeyView);

/// Revokes a key: refused within 100 ms, running streams end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeKey {
    /// Which one.
    pub id: KeyId,
}
call!(RevokeKey, "keys/revoke", Destroys, KeyView);

/// Makes a new key with the same label and limits and revokes the old one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotateKey {
    /// Which one.
    pub id: KeyId,
}
call!(RotateKey, "keys/rotate", Destroys, CreatedKey);

/// Makes the first key, if there is none that works and none was ever made; answers `None` otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EnsureFirstKey {}
call!(EnsureFirstKey, "keys/ensure-first", Changes, Option<CreatedKey>);
