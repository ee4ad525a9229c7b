//! Aliases: names of the operator's own for one or several models (SPEC §3.5).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// Most targets of one alias: more engines than a home has.
pub const MAX_TARGETS: usize = 16;

/// Which of its targets an alias tries first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AliasOrder {
    /// The one whose engine has the fewest requests in flight; after a failure the others in order.
    #[default]
    Balanced,
    /// The first as long as it serves; the others only when it does not.
    FirstServing,
}

/// One alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AliasView {
    /// The name that clients use.
    pub name: Arc<str>,
    /// Names as a request could write them: `flm://ENGINE/MODEL`, a bare name, `ENGINE/MODEL`. Never empty, and never
    /// an alias.
    pub targets: Vec<Arc<str>>,
    /// Which is tried first.
    pub order: AliasOrder,
    /// When it was last set.
    pub updated: UnixMillis,
}
