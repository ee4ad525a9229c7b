//! OpenAI, Anthropic and Ollama shapes, SSE and NDJSON: bytes to values and back, no I/O.
//!
//! Called by `engines`, `proxy` and `control`. Must never panic on any input.

pub mod json_body;
