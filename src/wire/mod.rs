//! OpenAI, Anthropic and Ollama shapes, SSE and NDJSON: bytes to values and back, no I/O.
//!
//! Called by `engines`, `proxy` and `control`. Must never panic on any input.

pub mod client;
pub mod json_body;
mod json_scan;
pub mod ndjson;
pub mod ollama_answer;
pub mod ollama_request;
pub mod openai;
pub mod openai_tap;
pub mod sse;
pub mod translate;
