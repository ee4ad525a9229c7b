//! What the text in the editor becomes for a request, asked of the owner while it is typed.

use crate::tui::state::State;
use crate::tui::tab_prompts::EditorFocus;
use crate::types::calls::prompts::PreviewPrompt;
use crate::types::failure::{Failure, Outcome};

/// A preview that is shown.
#[derive(Debug, Default)]
pub struct Preview {
    /// The template that was asked about last.
    asked: Option<String>,
    /// Whether its answer is on its way.
    waiting: Waiting,
    /// What came back last.
    pub shown: Option<Result<String, Failure>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Waiting {
    #[default]
    No,
    Yes,
}

/// Shows or hides the preview.
pub(super) fn toggle(state: &mut State) {
    if let Some(draft) = &mut state.prompts.draft {
        draft.preview = if draft.preview.is_some() { None } else { Some(Preview::default()) };
    }
    refresh(state);
}

/// Asks again when the text has changed. One question at a time: what is typed meanwhile is asked about after it.
pub(super) fn refresh(state: &mut State) {
    if state.prompts.focus != EditorFocus::Editor || !state.is_live() {
        return;
    }
    let Some(draft) = &mut state.prompts.draft else { return };
    let (text, api_id) = (draft.text(), draft.api_id.clone());
    let Some(preview) = &mut draft.preview else { return };
    if preview.waiting == Waiting::Yes || preview.asked.as_ref() == Some(&text) {
        return;
    }
    preview.asked = Some(text.clone());
    preview.waiting = Waiting::Yes;
    state.read(PreviewPrompt { api_id, text, model: None });
}

/// An answer arrived.
pub fn take(state: &mut State, call: &PreviewPrompt, outcome: Outcome<String>) {
    let draft = state.prompts.draft.as_mut().filter(|draft| draft.api_id == call.api_id);
    if let Some(preview) = draft.and_then(|draft| draft.preview.as_mut()) {
        preview.waiting = Waiting::No;
        preview.shown = Some(outcome);
    }
    refresh(state);
}
