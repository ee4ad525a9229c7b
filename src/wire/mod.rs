//! OpenAI, Anthropic and Ollama shapes, SSE, NDJSON and forms: bytes to values and back, no I/O.
//!
//! Called by `engines`, `proxy` and `control`. Must never panic on any input.

pub mod anthropic_answer;
pub mod anthropic_request;
pub mod base64;
mod blocks;
pub mod chat_images;
mod chat_message;
pub mod client;
pub mod form;
pub mod hostile;
pub mod json_body;
mod json_scan;
pub mod media_kind;
pub mod multipart;
pub mod ndjson;
pub mod ollama_answer;
pub mod ollama_client_answer;
pub mod ollama_client_request;
pub mod ollama_request;
pub mod openai;
mod openai_chunk;
pub mod openai_tap;
pub mod otlp;
pub mod pivot;
#[cfg(test)]
mod properties;
pub mod remote_media;
pub mod responses_answer;
pub mod responses_request;
pub mod sse;
pub mod token_estimate;
pub mod translate;
pub mod usage_finder;
