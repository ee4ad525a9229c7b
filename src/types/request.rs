//! One request as the Proxy tab and the request log show it (SPEC §9.3). No bodies.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::ids::{EngineId, KeyId, RequestId};
use super::text::mentions;
use super::trace::RequestTrace;

/// Where token counts come from (SPEC §3, accounting).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The engine told them.
    Engine,
    /// Counted as streamed deltas.
    Estimated,
    /// Nothing to count.
    #[default]
    None,
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the answer.
    pub completion: u64,
    /// Tokens of the prompt that the engine had cached.
    pub cached: u64,
    /// Where the numbers come from.
    pub source: TokenSource,
}

impl TokenUsage {
    /// Prompt and answer together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt + self.completion
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestEnd {
    /// The whole answer was sent.
    Completed,
    /// A stage refused it.
    Refused,
    /// The engine failed before or during the answer.
    EngineFailed,
    /// The client went away; the engine's work was cancelled (SPEC §4.3).
    ClientLeft,
    /// The listener was stopped or the key revoked while it ran.
    Cancelled,
}

/// Microseconds from the head of the request to the end of each stage; `None` where it did not get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StageTimes {
    /// Address lists, rules and address rate.
    pub screened: Option<u32>,
    /// Authentication and key rate.
    pub authenticated: Option<u32>,
    /// Body read and parsed.
    pub parsed: Option<u32>,
    /// Model resolved.
    pub resolved: Option<u32>,
    /// Request sent to the engine (after the queue).
    pub sent: Option<u32>,
    /// First byte of the engine's answer.
    pub first_byte: Option<u32>,
    /// First token; time to first token is this.
    pub first_token: Option<u32>,
}

/// Where in its life a listed request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    /// Still streams or waits.
    Running,
    /// Over.
    Ended {
        /// How.
        end: RequestEnd,
        /// Microseconds from head to last byte.
        took_us: u64,
    },
}

/// One request. Published when the engine starts to answer a stream and again when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RequestRow {
    /// Its id, as in `x-request-id`.
    pub id: RequestId,
    /// When its head was read.
    pub at: UnixMillis,
    /// The client's address.
    pub client: IpAddr,
    /// The key, once authenticated.
    pub key: Option<KeyId>,
    /// Label of the key.
    pub key_label: Option<Arc<str>>,
    /// HTTP method; outside text, cut to 16 characters.
    pub method: Cow<'static, str>,
    /// Path without query; outside text, cut to 256 characters.
    pub path: Cow<'static, str>,
    /// Name of the route, such as `chat.completions`; `None` when no route matched.
    pub route: Option<Cow<'static, str>>,
    /// Model as the client named it; outside text, cut to 256 characters.
    pub model: Option<Arc<str>>,
    /// The engine that answered or was tried last.
    pub engine: Option<EngineId>,
    /// HTTP status sent; 0 while none was.
    pub status: u16,
    /// Error code of SPEC §4.4, when one was sent.
    pub error_code: Option<Cow<'static, str>>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Tokens so far.
    pub tokens: TokenUsage,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Timing by stage.
    pub stages: StageTimes,
    /// Whether it still runs.
    pub progress: Progress,
    /// Client program as it names itself; outside text, cut to 120 characters.
    pub user_agent: Option<Arc<str>>,
    /// How it is traced, while traces are exported; not stored.
    #[serde(skip)]
    pub trace: Option<Box<RequestTrace>>,
}

impl RequestRow {
    /// Whether a text that somebody looks for is in it (see [`mentions`]).
    #[must_use]
    pub fn holds(&self, wanted: &str) -> bool {
        let has = |text: &str| mentions(text, wanted);
        wanted.is_empty()
            || has(&self.path)
            || has(self.id.as_str())
            || has(&self.client.to_string())
            || has(&self.status.to_string())
            || self.model.as_deref().is_some_and(has)
            || self.engine.as_ref().is_some_and(|engine| has(engine.as_str()))
            || self.key_label.as_deref().is_some_and(has)
            || self.error_code.as_deref().is_some_and(has)
    }

    /// Time to first token in milliseconds.
    #[must_use]
    pub fn ttft_ms(&self) -> Option<f64> {
        self.stages.first_token.map(|us| f64::from(us) / 1000.0)
    }

    /// Head to last byte in milliseconds, when over.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a request shorter than 285 years is exact enough")]
    pub fn latency_ms(&self) -> Option<f64> {
        match self.progress {
            Progress::Ended { took_us, .. } => Some(took_us as f64 / 1000.0),
            Progress::Running => None,
        }
    }

    /// Tokens of the answer per second between first token and end.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let Progress::Ended { took_us, .. } = self.progress else { return None };
        let first = u64::from(self.stages.first_token?);
        let span = took_us.checked_sub(first).filter(|us| *us > 0)?;
        (self.tokens.completion > 1).then(|| (self.tokens.completion - 1) as f64 * 1e6 / span as f64)
    }
}

#[cfg(test)]
impl RequestRow {
    /// A streamed chat that runs; tests change what matters to them.
    pub(crate) fn example(id: u128) -> Self {
        Self {
            id: RequestId::from_random(id),
            at: UnixMillis(0),
            client: IpAddr::from([127, 0, 0, 1]),
            key: None,
            key_label: None,
            method: "POST".into(),
            path: "/v1/chat/completions".into(),
            route: None,
            model: None,
            engine: None,
            status: 200,
            error_code: None,
            stream: true,
            tokens: TokenUsage::default(),
            bytes_in: 0,
            bytes_out: 0,
            stages: StageTimes::default(),
            progress: Progress::Running,
            user_agent: None,
            trace: None,
        }
    }
}
