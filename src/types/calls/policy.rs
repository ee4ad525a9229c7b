//! Operations on the security policy (SPEC §2 `flm security policy`).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::policy::SecurityPolicy;

/// Shows the policy in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowPolicy {}
call!(ShowPolicy, "policy/show", Reads, SecurityPolicy);

/// Puts a policy in force. What it does not name has its default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetPolicy {
    /// The policy as JSON.
    pub json: String,
}
call!(SetPolicy, "policy/set", Changes, SecurityPolicy);

/// Checks a policy and changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValidatePolicy {
    /// The policy as JSON.
    pub json: String,
}
call!(ValidatePolicy, "policy/validate", Reads, SecurityPolicy);
