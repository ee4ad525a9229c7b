//! Operations on what was used (SPEC §2 `flm usage`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::usage::{UsageBy, UsageReport};

/// Sums requests, tokens and times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowUsage {
    /// By what.
    pub by: UsageBy,
    /// How far back; to the hour.
    pub since: Duration,
}
call!(ShowUsage, "usage/show", Reads, UsageReport);
