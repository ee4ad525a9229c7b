//! What a measurement of the own endpoint found (SPEC §2 `flm bench`).

use serde::{Deserialize, Serialize};

use super::spread::Spread;

/// A measurement. Every number was measured by the client, over the real listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BenchReport {
    /// The model that was asked; outside text.
    pub model: String,
    /// Base URL of the listener.
    pub endpoint: String,
    /// Streams at once.
    pub concurrency: u32,
    /// From the first measured request to the last answer, milliseconds.
    pub elapsed_ms: f64,
    /// Answers that came whole.
    pub completed: u64,
    /// Requests that failed, by what they answered.
    pub errors: Vec<BenchError>,
    /// Requests that had not ended when the time for the last ones was over; in no other number.
    pub unfinished: u64,
    /// Requests that came whole, per second.
    pub requests_per_second: f64,
    /// Tokens of all whole answers.
    pub completion_tokens: u64,
    /// Answers whose tokens were counted as they came, because the engine told none.
    pub estimated: u64,
    /// Tokens of all answers per second: what the machine yields.
    pub tokens_per_second: f64,
    /// From request to first token, milliseconds.
    pub first_token_ms: Option<Spread>,
    /// From request to end, milliseconds.
    pub total_ms: Option<Spread>,
    /// Tokens per second of each stream after its first token: what one client sees.
    pub stream_tokens_per_second: Option<Spread>,
}

/// Requests that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BenchError {
    /// What they answered.
    pub message: String,
    /// How many.
    pub count: u64,
}

/// How far a measurement is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum BenchProgress {
    /// The first request, which loads the model and is not measured.
    WarmingUp {
        /// The model; outside text.
        model: String,
    },
    /// Requests are measured.
    Measuring {
        /// Since the first of them, milliseconds.
        elapsed_ms: u64,
        /// Whole answers so far.
        completed: u64,
        /// Failed ones so far.
        failed: u64,
        /// Tokens so far.
        tokens: u64,
    },
}
