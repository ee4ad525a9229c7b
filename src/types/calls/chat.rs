//! Operations that ask the own endpoint (SPEC §2 `flm chat`, `flm bench`).
//!
//! Each sends real requests over a real listener, with a key that lives as long as the call.

use serde::{Deserialize, Serialize};

use super::long_call;
use crate::types::bench::{BenchProgress, BenchReport};
use crate::types::chat::{AudioClip, ChatAnswer, ChatDelivery, ChatRoute, Said, Sampling};

/// Asks a model one question. Leaving it ends the engine's work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chat {
    /// Any name under which clients may ask for it.
    pub model: String,
    /// The question.
    pub prompt: String,
    /// What was said before it, oldest first.
    #[serde(default)]
    pub earlier: Vec<Said>,
    /// URLs of images; `data:` ones hold the image itself.
    #[serde(default)]
    pub images: Vec<String>,
    /// Sound that belongs to the question.
    #[serde(default)]
    pub audio: Option<AudioClip>,
    /// What the answer may consist of, such as `text` and `audio`; empty leaves it to the model.
    #[serde(default)]
    pub modalities: Vec<String>,
    /// Which route carries it.
    #[serde(default)]
    pub route: ChatRoute,
    /// How the answer comes.
    #[serde(default)]
    pub delivery: ChatDelivery,
    /// How the model picks its words.
    #[serde(default)]
    pub sampling: Sampling,
}
long_call!(Chat, "chat/send", Changes, ChatAnswer, ChatProgress);

/// What comes of an answer on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatProgress {
    /// The endpoint answers.
    Begun {
        /// The HTTP status.
        status: u16,
        /// The id under which the Proxy tab and the logs know the request.
        request_id: Option<String>,
    },
    /// The next words; outside text.
    Text(String),
    /// The next thoughts, where the engine tells them; outside text.
    Reasoning(String),
}

/// Measures the own endpoint with streams of one model. Leaving it ends the engine's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// Which model; `None` is the first one that chats, a loaded one before the others.
    pub model: Option<String>,
    /// Streams at once, at least 1.
    pub concurrency: u32,
    /// How long requests are begun, seconds.
    pub seconds: u64,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// What is asked; `None` is a question that any model answers at length.
    pub prompt: Option<String>,
}
long_call!(Bench, "bench/run", Changes, BenchReport, BenchProgress);
