//! Operations that look back: replaying recorded requests, and what the rules found (SPEC §2 `flm security replay`,
//! `flm security stats`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call;
use crate::types::audit::{AuditKind, Severity};
use crate::types::clock::UnixMillis;
use crate::types::policy::RuleName;

/// Runs recorded requests through the rules of the policy in force; changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayRequests {
    /// The file, as an absolute path: one JSON object a line ([`RecordedRequest`]).
    pub path: String,
}
call!(ReplayRequests, "security/replay", Reads, ReplayReport);

/// What a line of a request log tells the rules: `flm logs requests --format jsonl` writes more, which is passed over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct RecordedRequest {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: String,
    /// The path; a query may follow it.
    pub path: String,
    /// The query, where a log of another program has one.
    #[serde(default)]
    pub query: Option<String>,
    /// Status that was answered.
    #[serde(default)]
    pub status: u16,
    /// The key that was verified; `null` when none was.
    #[serde(default)]
    pub key: Option<String>,
    /// The client's program.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// Further headers, where a log of another program has them.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl RecordedRequest {
    /// The JSON schema of a line (JSON Schema, draft 2020-12).
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

/// What replaying found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReplayReport {
    /// Requests that were read.
    pub requests: u64,
    /// Requests that met at least one rule.
    pub scored: u64,
    /// Requests that a block would have refused.
    pub refused: u64,
    /// Hits that counted, by rule.
    pub rules: BTreeMap<RuleName, u64>,
    /// Addresses that would have been blocked, in order.
    pub blocks: Vec<ReplayedBlock>,
    /// Lines that are no request.
    pub unreadable: u64,
    /// The first of them: its number and what is wrong with it.
    pub first_unreadable: Option<(u64, String)>,
}

/// A block that would have come about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReplayedBlock {
    /// The address or its /64.
    #[schemars(with = "String")]
    pub network: IpNet,
    /// When.
    pub at: UnixMillis,
    /// Minutes that it would have lasted.
    pub minutes: u64,
    /// Score that led to it.
    pub score: u32,
    /// The last findings before it, oldest first, at most five; may quote outside text.
    pub why: Vec<String>,
}

/// Counts what the audit log holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SecurityStats {
    /// From this time on; `None` is everything that is kept.
    pub since: Option<UnixMillis>,
}
call!(SecurityStats, "security/stats", Reads, SecurityCounts);

/// What the audit log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecurityCounts {
    /// Events in all.
    pub events: u64,
    /// Events by type.
    pub kinds: BTreeMap<String, u64>,
    /// Events by severity.
    pub severities: BTreeMap<String, u64>,
    /// Hits by rule, those of rules that simulate included.
    pub rules: BTreeMap<String, u64>,
    /// Addresses with the most events above low severity or hits of rules, most first, at most ten.
    pub sources: Vec<(IpAddr, u64)>,
    /// Hours in which something happened, oldest first.
    #[serde(default)]
    pub hours: Vec<HourOfEvents>,
}

/// The events of one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HourOfEvents {
    /// When it began; whole hours of universal time.
    pub start: UnixMillis,
    /// How many.
    pub events: u64,
    /// The worst of them.
    pub worst: Severity,
}

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

impl SecurityCounts {
    /// Counts one event.
    pub fn count(&mut self, at: UnixMillis, kind: AuditKind, severity: Severity) {
        self.events += 1;
        let start = UnixMillis(at.0 - at.0.rem_euclid(HOUR));
        match self.hours.binary_search_by_key(&start, |hour| hour.start) {
            Ok(place) => {
                let hour = &mut self.hours[place];
                hour.events += 1;
                hour.worst = hour.worst.max(severity);
            }
            Err(place) => self.hours.insert(place, HourOfEvents { start, events: 1, worst: severity }),
        }
        for (counts, name) in [(&mut self.kinds, name(&kind)), (&mut self.severities, name(&severity))] {
            *counts.entry(name).or_default() += 1;
        }
    }
}

/// The name under which a value is written in JSON.
fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_hour_with_the_worst_of_them() {
        let mut counts = SecurityCounts::default();
        for (minute, severity) in
            [(61, Severity::Low), (5, Severity::High), (119, Severity::Medium), (60, Severity::Low)]
        {
            counts.count(UnixMillis(minute * 60_000), AuditKind::RuleHit, severity);
        }
        let hour = |start, events, worst| HourOfEvents { start: UnixMillis(start), events, worst };
        assert_eq!(counts.hours, [hour(0, 1, Severity::High), hour(HOUR, 3, Severity::Medium)]);
    }

    #[test]
    fn the_published_schema_of_a_request_log_is_the_one_that_is_read() {
        let published: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/schemas/request-log.json")).expect("JSON");
        assert_eq!(published, RecordedRequest::schema());
    }

    #[test]
    fn a_row_of_the_request_log_is_a_recorded_request() {
        let row = serde_json::to_string(&crate::types::request::RequestRow::example(1)).expect("JSON");
        let read: RecordedRequest = serde_json::from_str(&row).expect("reads");
        assert_eq!((read.method.as_str(), read.path.as_str()), ("POST", "/v1/chat/completions"));
    }
}
