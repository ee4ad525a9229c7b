//! Operations on API keys (SPEC §2 `flm api-keys`, §5.1).

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::call;
use crate::types::clock::UnixMillis;
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

/// Tells what a key did as far as the request log goes back, and which addresses would be blocked if it leaked (SPEC §5.7).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PreviewLeak {
    /// Which one.
    pub id: KeyId,
    /// Where the operator sits, when he comes over SSH: never blocked here.
    pub operator: Option<IpAddr>,
}
call!(PreviewLeak, "keys/preview-leak", Reads, LeakReport);

/// Revokes a key that leaked and blocks addresses that used it, until they are lifted by hand. A key that is revoked
/// already stays so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeLeaked {
    /// Which one.
    pub id: KeyId,
    /// What to block, as the preview told it. What is to be left out by now is left out.
    pub networks: Vec<IpNet>,
    /// As in [`PreviewLeak`].
    pub operator: Option<IpAddr>,
}
call!(RevokeLeaked, "keys/revoke-leaked", Destroys, LeakAnswer);

/// What a key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LeakReport {
    /// The key.
    pub key: KeyView,
    /// Requests since this time were looked at: the request log keeps no older ones.
    pub since: UnixMillis,
    /// Requests with it.
    pub requests: u64,
    /// Those that ended with a status of 400 and above.
    pub failed: u64,
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// The first and the last of them.
    pub span: Option<(UnixMillis, UnixMillis)>,
    /// Models and paths that it was used for, most used first, at most 10 each.
    pub models: Vec<(String, u64)>,
    /// The same of paths.
    pub paths: Vec<(String, u64)>,
    /// Addresses that used it, most requests first: IPv4 addresses and IPv6 /64.
    pub addresses: Vec<LeakAddress>,
}

impl LeakReport {
    /// What would be blocked.
    #[must_use]
    pub fn to_block(&self) -> Vec<IpNet> {
        self.addresses.iter().filter(|address| address.left_out.is_none()).map(|address| address.network).collect()
    }
}

/// An address that used a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LeakAddress {
    /// As it would stand on the block list.
    #[schemars(with = "String")]
    pub network: IpNet,
    /// Requests with the key.
    pub requests: u64,
    /// The last of them.
    pub last: UnixMillis,
    /// Why it is not to be blocked; `None` when it is.
    pub left_out: Option<LeftOut>,
}

/// Why an address that used a leaked key is not to be blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum LeftOut {
    /// It used another key that is valid, within 7 days: somebody who belongs here.
    OtherKey {
        /// The other key.
        id: KeyId,
        /// Its label.
        label: String,
    },
    /// It is on the trusted list.
    Trusted,
    /// It is this machine.
    ThisMachine,
    /// It is where the operator sits.
    Operator,
    /// It is blocked already, until lifted by hand.
    Blocked,
}

/// What `flm api-keys revoke --ban-addresses` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LeakOutcome {
    /// Whether it was done: not without somebody's word.
    pub done: bool,
    /// What the key did, and what was to be blocked.
    pub preview: LeakReport,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<LeakAnswer>,
}

/// What was done about a leaked key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LeakAnswer {
    /// The key, revoked.
    pub key: KeyView,
    /// What is blocked now.
    #[schemars(with = "Vec<String>")]
    pub blocked: Vec<IpNet>,
}
