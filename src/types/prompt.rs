//! API prompts: a system message per route and optionally per key (SPEC §8.1).

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// A prompt with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PromptView {
    /// A route name with an optional `@KEY_ID` (SPEC §10): `chat.completions` or `chat.completions@Ab12Cd34`.
    pub api_id: String,
    /// The template; `{{date}}`, `{{model}}` and `{{key_label}}` are filled in.
    pub text: String,
    /// Counts up from 1 with every change.
    pub version: u32,
    /// When this version was saved.
    pub updated: UnixMillis,
}
