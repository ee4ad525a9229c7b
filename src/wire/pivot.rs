//! What a client's dialect can say and the pivot (OpenAI's shape) has no word for: handed to adapters beside the body, so
//! that an engine that knows the word gets it, and no client can slip it in through OpenAI's own routes.
//!
//! Made by the request translators of this room, carried by `proxy`, read by `engines`.

use serde_json::{Map, Value};

/// Words beside the pivot's body. Absent for OpenAI's own clients.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extras {
    /// What the client wants of the model's reasoning.
    pub thinking: Option<Thinking>,
    /// Whether the client is helped by the prompt's tokens before the answer's end (`message_start.usage`).
    pub prompt_tokens: PromptTokens,
    /// The request in Ollama's own words, for engines that speak them.
    pub ollama: Option<OllamaNative>,
}

/// What is wanted of the model's reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thinking {
    /// It should reason, for at most so many tokens.
    Enabled {
        /// Anthropic's `budget_tokens`.
        budget: Option<u64>,
    },
    /// It should not.
    Disabled,
    /// OpenAI's `reasoning.effort`, such as `low`.
    Effort(String),
}

/// When the client wants to know the prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptTokens {
    /// With the usage at the end.
    #[default]
    AtTheEnd,
    /// As soon as the engine knows.
    Early,
}

/// A request of Ollama's own API, for an Ollama engine: what the pivot has no word for survives.
#[derive(Debug, Clone, PartialEq)]
pub struct OllamaNative {
    /// The path that the client called.
    pub call: OllamaCall,
    /// The client's fields as they came, without those that the pivot carries.
    pub fields: Map<String, Value>,
    /// Whether the request only loads or unloads the model, as Ollama's clients ask for with no message.
    pub work: Work,
}

/// What is asked of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// An answer.
    Answer,
    /// To be loaded.
    Load,
    /// To be unloaded.
    Unload,
}

/// The inference calls of Ollama's own API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OllamaCall {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
    /// `/api/embed`.
    Embed,
    /// `/api/embeddings`, the older one.
    Embeddings,
}
