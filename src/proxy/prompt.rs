//! API prompts in force and how one is put into a request (SPEC §8.1).

use crate::types::prompt::PromptView;

/// The routes that take a prompt, by name.
pub const PROMPT_ROUTES: &[&str] = &["chat.completions"];

/// Prompts by api id.
#[derive(Debug, Clone, Default)]
pub struct PromptTable {}

impl PromptTable {
    /// A table of the given prompts.
    #[must_use]
    pub fn new(prompts: Vec<PromptView>) -> Self {
        let _ = prompts;
        todo!()
    }
}
