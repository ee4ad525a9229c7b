//! Operations on the list of requests (SPEC §9.3).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::clock::UnixMillis;
use crate::types::order::{Order, Place};
use crate::types::request::RequestRow;

/// Lists recent requests, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListRequests {
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ListRequests, "requests/list", Reads, Vec<RequestRow>);

/// What a page of the request log is sorted by; rows that are equal in it by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestColumn {
    /// Their number, which is the order in which they ended.
    #[default]
    Time,
    /// HTTP status.
    Status,
    /// Tokens of the answer.
    Tokens,
    /// Time to first token; without one they are at the low end.
    FirstToken,
    /// Head to last byte.
    Latency,
}

/// A row that a page of the request log lies beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKey {
    /// A row of the log, by its number.
    Number(u64),
    /// A time, where a row has no number yet: only in the order of time.
    Time(UnixMillis),
}

/// Lists ended requests of the request log page by page.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PageRequests {
    /// Only rows that hold this text in path, id, client, status, model, engine, key label or error code
    /// (`types::text::mentions`).
    pub text: String,
    /// What they are sorted by.
    pub by: RequestColumn,
    /// Which way.
    pub order: Order,
    /// Which page.
    pub place: Place<RequestKey>,
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(PageRequests, "requests/page", Reads, RequestPage);

/// A page of the request log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RequestPage {
    /// The rows, in the order asked for.
    pub rows: Vec<NumberedRequest>,
    /// Number of the oldest request in the log; 0 when it is empty.
    pub oldest: u64,
    /// Number of the newest one; 0 when it is empty.
    pub newest: u64,
}

/// A row of the request log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NumberedRequest {
    /// Its number, from 1, without gaps.
    pub number: u64,
    /// The request.
    #[serde(flatten)]
    pub row: RequestRow,
}
