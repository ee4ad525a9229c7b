//! What was used: requests, tokens and times, summed per key, model, engine and hour (SPEC §2 `flm usage`).

use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::ids::{EngineId, KeyId};
use super::request::{Progress, RequestEnd, RequestRow, TokenSource};

/// What one sum is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageSlot {
    /// Start of the local hour.
    pub hour: UnixMillis,
    /// Whose key.
    pub key: KeyId,
    /// The engine's own name for the model that served; outside text.
    pub model: Arc<str>,
    /// The engine that served.
    pub engine: EngineId,
}

/// Sums over requests that an engine answered or failed. One whose client left before the engine began is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UsageSums {
    /// Requests.
    pub requests: u64,
    /// Of them, those whose engine failed.
    pub failed: u64,
    /// Of them, those whose tokens were counted as deltas, because the engine told none.
    pub estimated: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Tokens of prompts that engines had cached.
    pub cached_tokens: u64,
    /// Microseconds from head to last byte.
    pub latency_us: u64,
    /// Microseconds from head to first token, over [`UsageSums::first_tokens`] requests.
    pub first_token_us: u64,
    /// Requests that gave a first token in a stream.
    pub first_tokens: u64,
    /// Answer tokens after the first one of streams, for the rate.
    pub rated_tokens: u64,
    /// Microseconds that those took.
    pub rated_us: u64,
}

impl UsageSums {
    /// What one ended request adds; nothing for one that was never put to an engine.
    #[must_use]
    pub fn of(row: &RequestRow) -> Option<Self> {
        let Progress::Ended { end, took_us } = row.progress else { return None };
        row.stages.sent?;
        let first = row.stages.first_token.map(u64::from);
        let span = first.map_or(0, |first| took_us.saturating_sub(first));
        let rated = if span > 0 { row.tokens.completion.saturating_sub(1) } else { 0 };
        Some(Self {
            requests: 1,
            failed: u64::from(end == RequestEnd::EngineFailed),
            estimated: u64::from(row.tokens.source == TokenSource::Estimated),
            prompt_tokens: row.tokens.prompt,
            completion_tokens: row.tokens.completion,
            cached_tokens: row.tokens.cached,
            latency_us: took_us,
            first_token_us: first.unwrap_or(0),
            first_tokens: u64::from(first.is_some()),
            rated_tokens: rated,
            rated_us: if rated > 0 { span } else { 0 },
        })
    }

    /// Prompt and answer together: what budgets count.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    /// Mean latency in milliseconds.
    #[must_use]
    pub fn latency_ms(&self) -> Option<f64> {
        mean(self.latency_us, self.requests).map(|us| us / 1000.0)
    }

    /// Mean time to first token in milliseconds.
    #[must_use]
    pub fn ttft_ms(&self) -> Option<f64> {
        mean(self.first_token_us, self.first_tokens).map(|us| us / 1000.0)
    }

    /// Answer tokens per second between first token and end, over all streams.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        mean(self.rated_tokens, self.rated_us).map(|rate| rate * 1e6)
    }
}

impl UsageSums {
    fn each(&mut self, other: Self, change: impl Fn(u64, u64) -> u64) {
        let add = |sum: &mut u64, more: u64| *sum = change(*sum, more);
        let more = other;
        add(&mut self.requests, more.requests);
        add(&mut self.failed, more.failed);
        add(&mut self.estimated, more.estimated);
        add(&mut self.prompt_tokens, more.prompt_tokens);
        add(&mut self.completion_tokens, more.completion_tokens);
        add(&mut self.cached_tokens, more.cached_tokens);
        add(&mut self.latency_us, more.latency_us);
        add(&mut self.first_token_us, more.first_token_us);
        add(&mut self.first_tokens, more.first_tokens);
        add(&mut self.rated_tokens, more.rated_tokens);
        add(&mut self.rated_us, more.rated_us);
    }
}

impl AddAssign for UsageSums {
    fn add_assign(&mut self, more: Self) {
        self.each(more, u64::saturating_add);
    }
}

impl SubAssign for UsageSums {
    fn sub_assign(&mut self, less: Self) {
        self.each(less, u64::saturating_sub);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn mean(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}

/// What usage is summed by.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// API key.
    Key,
    /// Model, by the engine's own name for it, over all engines.
    #[default]
    Model,
    /// Engine.
    Engine,
    /// Local calendar day.
    Day,
}

/// The usage of one key, model, engine or day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UsageRow {
    /// Key id, model, engine id or date; a model's name is outside text.
    pub name: String,
    /// Label of the key, where rows are keys that still exist.
    pub label: Option<String>,
    /// The sums.
    #[serde(flatten)]
    pub sums: UsageSums,
    /// Mean latency in milliseconds.
    pub latency_ms: Option<f64>,
    /// Mean time to first token of streams in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Answer tokens per second of streams, after the first token.
    pub tokens_per_second: Option<f64>,
}

impl UsageRow {
    /// A row with the means of its sums.
    #[must_use]
    pub fn new(name: String, label: Option<String>, sums: UsageSums) -> Self {
        Self {
            name,
            label,
            latency_ms: sums.latency_ms(),
            ttft_ms: sums.ttft_ms(),
            tokens_per_second: sums.tokens_per_second(),
            sums,
        }
    }
}

/// What `flm usage` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UsageReport {
    /// What the rows are.
    pub by: UsageBy,
    /// From when on, to the hour.
    pub since: UnixMillis,
    /// Most tokens first; days oldest first.
    pub rows: Vec<UsageRow>,
    /// All of them together.
    pub total: UsageSums,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::request::{StageTimes, TokenUsage};

    fn row(stages: StageTimes, completion: u64, took_us: u64) -> RequestRow {
        RequestRow {
            tokens: TokenUsage { prompt: 7, completion, cached: 3, source: TokenSource::Estimated },
            stages,
            progress: Progress::Ended { end: RequestEnd::Completed, took_us },
            ..RequestRow::example(1)
        }
    }

    #[test]
    fn a_request_that_reached_no_engine_is_no_usage() {
        assert_eq!(UsageSums::of(&row(StageTimes::default(), 5, 10)), None);
        let running = RequestRow { progress: Progress::Running, ..row(StageTimes::default(), 5, 10) };
        assert_eq!(UsageSums::of(&running), None);
    }

    #[test]
    fn means_are_over_what_has_them() {
        let sent = StageTimes { sent: Some(10), ..StageTimes::default() };
        let stream = StageTimes { first_token: Some(1_000_000), ..sent };
        let mut sums = UsageSums::of(&row(stream, 11, 3_000_000)).expect("usage");
        sums += UsageSums::of(&row(sent, 100, 1_000_000)).expect("usage");
        assert_eq!((sums.requests, sums.tokens(), sums.estimated), (2, 7 + 11 + 7 + 100, 2));
        assert_eq!(sums.latency_ms(), Some(2000.0));
        assert_eq!(sums.ttft_ms(), Some(1000.0), "the whole answer has no first token");
        assert_eq!(sums.tokens_per_second(), Some(5.0), "ten tokens after the first in two seconds");
        assert_eq!(UsageSums::default().latency_ms(), None);
    }
}
