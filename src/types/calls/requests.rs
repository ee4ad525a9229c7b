//! Operations on the list of recent requests (SPEC §9.3).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::request::RequestRow;

/// Lists recent requests, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListRequests {
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ListRequests, "requests/list", Reads, Vec<RequestRow>);
