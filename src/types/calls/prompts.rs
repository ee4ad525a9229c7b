//! Operations on API prompts (SPEC §2 `flm api prompts`, §8.1).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::prompt::PromptView;

/// Lists the current version of every prompt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListPrompts {}
call!(ListPrompts, "prompts/list", Reads, Vec<PromptView>);

/// Shows one prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowPrompt {
    /// Route name with an optional `@KEY_ID`.
    pub api_id: String,
}
call!(ShowPrompt, "prompts/show", Reads, PromptView);

/// Saves a new version; in force for the next request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetPrompt {
    /// Route name with an optional `@KEY_ID`.
    pub api_id: String,
    /// The template, 1 to 65,536 bytes.
    pub text: String,
}
call!(SetPrompt, "prompts/set", Changes, PromptView);

/// Deletes a prompt; its history stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeletePrompt {
    /// Route name with an optional `@KEY_ID`.
    pub api_id: String,
}
call!(DeletePrompt, "prompts/delete", Destroys, ());

/// Lists all versions of one prompt, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PromptHistory {
    /// Route name with an optional `@KEY_ID`.
    pub api_id: String,
}
call!(PromptHistory, "prompts/history", Reads, Vec<PromptView>);

/// Shows what a template becomes for a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PreviewPrompt {
    /// Route name with an optional `@KEY_ID`, whose label is filled in.
    pub api_id: String,
    /// The template.
    pub text: String,
    /// The model that a request would name; `None` is the first that is listed.
    pub model: Option<String>,
}
call!(PreviewPrompt, "prompts/preview", Reads, String);

/// The route names that take a prompt, for forms.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListPromptRoutes {}
call!(ListPromptRoutes, "prompts/routes", Reads, Vec<String>);
