//! One question to the own endpoint and its answer, with what was measured on the way (SPEC §2 `flm chat`, §9.2).

use serde::{Deserialize, Serialize};

use super::request::TokenUsage;

/// Which of the endpoint's routes carries a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatRoute {
    /// `POST /v1/chat/completions`.
    #[default]
    Completions,
    /// `POST /v1/responses`.
    Responses,
}

impl ChatRoute {
    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatDelivery {
    /// In one piece, when it is complete.
    #[default]
    Whole,
    /// As it is made.
    Streamed,
}

/// How a model picks its words; `None` leaves it to the model and its profile.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sampling {
    /// 0 is the likeliest word every time.
    pub temperature: Option<f64>,
    /// Longest answer in tokens.
    pub max_tokens: Option<u32>,
    /// The same seed gives the same answer, where the engine can.
    pub seed: Option<i64>,
}

/// Who said something in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// Whoever sets the rules; says something at the very beginning.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Speaker {
    /// Its name in requests.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// What was said before a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// By whom.
    pub by: Speaker,
    /// What; outside text where a model said it.
    pub text: String,
}

/// Sound, as requests and answers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AudioClip {
    /// `wav`, `mp3`, …
    pub format: String,
    /// The sound in base64.
    pub data: String,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChatAnswer {
    /// The model as it was asked for; outside text.
    pub model: String,
    /// The HTTP status.
    pub status: u16,
    /// The id under which the Proxy tab and the logs know the request.
    pub request_id: Option<String>,
    /// What the model said; outside text.
    pub text: String,
    /// What it thought before, where the engine tells; outside text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// What it said aloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioClip>,
    /// Why it stopped; outside text.
    pub finish_reason: Option<String>,
    /// Tokens.
    pub usage: TokenUsage,
    /// Times as the client saw them.
    pub timing: ChatTiming,
}

/// Times of one answer as the client saw them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChatTiming {
    /// From the request to the first word, milliseconds; `None` where the answer came in one piece.
    pub first_token_ms: Option<f64>,
    /// From the request to the end, milliseconds.
    pub total_ms: f64,
    /// Tokens of the answer per second: after the first one in a stream, over the whole time otherwise.
    pub tokens_per_second: Option<f64>,
}

impl ChatTiming {
    /// What follows from the times and the tokens of an answer.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    pub fn of(first_token_ms: Option<f64>, total_ms: f64, completion: u64) -> Self {
        let (tokens, span) = match first_token_ms {
            Some(first) => (completion.saturating_sub(1), total_ms - first),
            None => (completion, total_ms),
        };
        let tokens_per_second = (tokens > 0 && span > 0.0).then(|| tokens as f64 * 1000.0 / span);
        Self { first_token_ms, total_ms, tokens_per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_leaves_the_first_token_out_where_its_time_is_known() {
        let streamed = ChatTiming::of(Some(500.0), 1500.0, 11);
        assert_eq!(streamed.tokens_per_second, Some(10.0));
        assert_eq!(ChatTiming::of(None, 1000.0, 11).tokens_per_second, Some(11.0));
        assert_eq!(ChatTiming::of(Some(500.0), 500.0, 11).tokens_per_second, None);
        assert_eq!(ChatTiming::of(Some(500.0), 900.0, 1).tokens_per_second, None);
    }
}
