//! The Prompts tab: the system prompt of each route, an editor that never loses what was typed, and versions.

use crossterm::event::KeyEvent;

use crate::tui::action::Command;
use crate::tui::effect::Ticket;
use crate::tui::geometry::ListId;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::state::State;
use crate::tui::tabs::Tab;
use crate::tui::update::{read_store, show_tab};
use crate::tui::widgets::cursor::{Cursor, moved};
use crate::tui::widgets::text_area::TextBox;
use crate::types::calls::prompts::{DeletePrompt, PromptHistory, SetPrompt};
use crate::types::failure::{Failure, Outcome};
use crate::types::live::Noun;
use crate::types::prompt::PromptView;
use crate::types::text::escape;

pub mod preview;
pub mod view;

/// Longest prompt in bytes (SPEC §8.1).
const LONGEST: usize = 65_536;

/// What has the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EditorFocus {
    /// The list of prompts.
    #[default]
    List,
    /// The editor.
    Editor,
    /// The versions of a prompt.
    History,
}

/// A prompt being edited. It stays until it is saved or given up by name, whatever tab is in front.
#[derive(Debug)]
pub struct Draft {
    /// Whose prompt.
    pub api_id: String,
    /// The text with its cursor.
    pub area: TextBox,
    /// As it was when the editing began or was last saved.
    pub saved: String,
    /// Why the last saving failed.
    pub failure: Option<Failure>,
    /// A saving on its way.
    pub saving: Option<Ticket>,
    /// What it becomes for a request, when that is shown.
    pub preview: Option<preview::Preview>,
}

impl Draft {
    fn new(api_id: &str, text: &str) -> Self {
        let area = TextBox::with(text);
        Self { api_id: api_id.to_owned(), area, saved: text.to_owned(), failure: None, saving: None, preview: None }
    }

    /// The text as it stands.
    #[must_use]
    pub fn text(&self) -> String {
        self.area.text()
    }

    /// Whether something typed is not saved.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.text() != self.saved
    }
}

/// Versions of a prompt.
#[derive(Debug)]
pub struct History {
    /// Whose.
    pub api_id: String,
    /// Newest first; `None` while they are read.
    pub versions: Option<Vec<PromptView>>,
    /// The selected one.
    pub selected: usize,
}

/// What is shown of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shows {
    /// How it differs from its neighbour.
    #[default]
    Difference,
    /// Its text.
    Text,
}

/// What the tab remembers.
#[derive(Debug, Default)]
pub struct PromptsTab {
    cursor: Cursor<String>,
    /// What has the keyboard.
    pub focus: EditorFocus,
    /// What is being edited.
    pub draft: Option<Draft>,
    /// Versions in view.
    pub history: Option<History>,
    /// What is shown of the selected one.
    pub shows: Shows,
}

impl PromptsTab {
    /// Whether something typed would be lost by leaving.
    #[must_use]
    pub fn has_unsaved(&self) -> bool {
        self.draft.as_ref().is_some_and(Draft::is_changed)
    }
}

/// Whether the editor has the keyboard.
#[must_use]
pub fn is_editing(state: &State) -> bool {
    state.tab == Tab::Prompts && state.prompts.focus == EditorFocus::Editor
}

/// The prompts that the filter lets through.
#[must_use]
pub fn rows(state: &State) -> Vec<&PromptView> {
    let wanted = state.filters[Tab::Prompts as usize].input.text().trim().to_lowercase();
    let fits = |prompt: &&PromptView| {
        wanted.is_empty()
            || prompt.api_id.to_lowercase().contains(&wanted)
            || prompt.text.to_lowercase().contains(&wanted)
    };
    state.world.prompts.value.iter().flatten().filter(fits).collect()
}

fn key(prompt: &PromptView) -> String {
    prompt.api_id.clone()
}

/// The selected row.
#[must_use]
pub fn selected(state: &State, rows: &[&PromptView]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.prompts.cursor.place(rows, key))
}

fn selected_id(state: &State) -> Option<String> {
    let rows = rows(state);
    selected(state, &rows).map(|at| rows[at].api_id.clone())
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    if state.prompts.focus == EditorFocus::History {
        if let Some(history) = &mut state.prompts.history {
            history.selected = row.min(history.versions.as_ref().map_or(0, Vec::len).saturating_sub(1));
        }
        return;
    }
    state.prompts.focus = EditorFocus::List;
    let mut cursor = std::mem::take(&mut state.prompts.cursor);
    cursor.select(row, &rows(state), key);
    state.prompts.cursor = cursor;
}

/// Carries a command of the list out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::NewPrompt => {
            let form = forms::new_prompt(state);
            overlays::open(state, Overlay::Form(form));
        }
        Command::EditPrompt | Command::Open | Command::Right => open(state),
        Command::PromptHistory => {
            if let Some(api_id) = selected_id(state) {
                state.read(PromptHistory { api_id: api_id.clone() });
                state.prompts.history = Some(History { api_id, versions: None, selected: 0 });
                state.prompts.focus = EditorFocus::History;
            }
        }
        Command::ComparePrompt if state.prompts.focus == EditorFocus::History => {
            state.prompts.shows = match state.prompts.shows {
                Shows::Difference => Shows::Text,
                Shows::Text => Shows::Difference,
            };
        }
        Command::RestorePrompt if state.prompts.focus == EditorFocus::History => {
            if let Some(PromptView { api_id, text, .. }) = shown_version(state).cloned() {
                state.call(SetPrompt { api_id, text });
            }
        }
        Command::ComparePrompt | Command::RestorePrompt => {
            state.toast(Level::Info, state.words.say("prompts.open_history").into_owned());
        }
        Command::DeletePrompt => {
            if let Some(api_id) = selected_id(state) {
                let body = state.words.fill("prompts.delete_body", &[("id", &escape(&api_id))]);
                let then = Then::call(DeletePrompt { api_id });
                overlays::open(
                    state,
                    Overlay::Confirm(Confirm::new("prompts.delete_title", body, "button.delete", then)),
                );
            }
        }
        Command::Copy => {
            let text = shown_version(state).map(|prompt| prompt.text.clone());
            if let Some(text) = text {
                let what = state.words.say("prompts.text");
                state.copy(text, &what);
            }
        }
        _ => step(state, command),
    }
}

/// The version that is shown: of the history, else the current one.
#[must_use]
pub fn shown_version(state: &State) -> Option<&PromptView> {
    if let (EditorFocus::History, Some(history)) = (&state.prompts.focus, &state.prompts.history) {
        return history.versions.as_ref()?.get(history.selected);
    }
    let rows = rows(state);
    selected(state, &rows).map(|at| rows[at])
}

/// The two versions that are compared, the older one first: the selected one and the newest, or the newest and the one
/// before it.
#[must_use]
pub fn compared(state: &State) -> Option<(&PromptView, &PromptView)> {
    let history = state.prompts.history.as_ref().filter(|_| state.prompts.focus == EditorFocus::History)?;
    let versions = history.versions.as_ref()?;
    let newest = versions.first()?;
    let older = if history.selected == 0 { versions.get(1) } else { versions.get(history.selected) };
    older.map(|older| (older, newest))
}

fn step(state: &mut State, command: Command) {
    if state.prompts.focus == EditorFocus::History {
        let page = state.geometry.page(ListId::History);
        if let Some(history) = &mut state.prompts.history {
            let length = history.versions.as_ref().map_or(0, Vec::len);
            history.selected = moved(history.selected, command, page, length).unwrap_or(history.selected);
        }
        return;
    }
    let page = state.geometry.page(ListId::Prompts);
    let mut cursor = std::mem::take(&mut state.prompts.cursor);
    cursor.step(command, page, &rows(state), key);
    state.prompts.cursor = cursor;
}

/// Opens the selected prompt, or the selected version as a new draft.
fn open(state: &mut State) {
    if state.access == crate::tui::ConsoleAccess::ReadOnly {
        state.toast(Level::Warn, state.words.say("toast.read_only").into_owned());
        return;
    }
    let version = (state.prompts.focus == EditorFocus::History).then(|| shown_version(state).cloned()).flatten();
    if let Some(version) = version {
        edit(state, &version.api_id);
        if let Some(draft) = state.prompts.draft.as_mut().filter(|draft| draft.api_id == version.api_id) {
            let saved = std::mem::take(&mut draft.saved);
            *draft = Draft { saved, ..Draft::new(&version.api_id, &version.text) };
        }
        state.prompts.history = None;
    } else {
        let unlisted = || state.prompts.draft.as_ref().map(|draft| draft.api_id.clone());
        if let Some(api_id) = selected_id(state).or_else(unlisted) {
            edit(state, &api_id);
        }
    }
}

/// Opens the editor on a prompt. A changed draft of another prompt is not thrown away for it.
pub fn edit(state: &mut State, api_id: &str) {
    show_tab(state, Tab::Prompts);
    if let Some(draft) = &state.prompts.draft {
        if draft.api_id == api_id {
            state.prompts.focus = EditorFocus::Editor;
            return;
        }
        if draft.is_changed() {
            let note = state.words.fill("prompts.other_draft", &[("id", &escape(&draft.api_id))]);
            state.toast(Level::Warn, note);
            state.prompts.focus = EditorFocus::Editor;
            return;
        }
    }
    let text = state.world.prompts.value.iter().flatten().find(|prompt| prompt.api_id == api_id);
    let draft = Draft::new(api_id, text.map_or("", |prompt| &prompt.text));
    state.prompts.draft = Some(draft);
    state.prompts.focus = EditorFocus::Editor;
}

/// Carries a command of the editor out.
pub fn run_editor(state: &mut State, command: Command) {
    match command {
        Command::SavePrompt => save(state),
        Command::PreviewPrompt => preview::toggle(state),
        Command::LeaveEditor => {
            state.prompts.focus = EditorFocus::List;
            if !state.prompts.has_unsaved() {
                state.prompts.draft = None;
            }
        }
        Command::DiscardDraft => {
            if state.prompts.has_unsaved() {
                let body = state.words.say("prompts.discard_body").into_owned();
                let confirm = Confirm::new("prompts.discard_title", body, "button.discard", Then::DiscardDraft);
                overlays::open(state, Overlay::Confirm(confirm));
            } else {
                discard(state);
            }
        }
        _ => {}
    }
}

/// Gives the draft up.
pub fn discard(state: &mut State) {
    state.prompts.draft = None;
    state.prompts.focus = EditorFocus::List;
}

fn save(state: &mut State) {
    let Some(draft) = &state.prompts.draft else { return };
    if draft.saving.is_some() {
        return;
    }
    let text = draft.text();
    if text.trim().is_empty() || text.len() > LONGEST {
        let key = if text.len() > LONGEST { "prompts.too_long" } else { "prompts.too_short" };
        state.toast(Level::Warn, state.words.say(key).into_owned());
        return;
    }
    let api_id = draft.api_id.clone();
    let ticket = state.call(SetPrompt { api_id, text });
    let sent = state.pending.contains_key(&ticket);
    if let Some(draft) = state.prompts.draft.as_mut().filter(|_| sent) {
        draft.saving = Some(ticket);
        draft.failure = None;
    }
}

/// A saving ended. What was typed since then stays.
pub fn saved(state: &mut State, call: &SetPrompt, outcome: Outcome<PromptView>) {
    let draft = state.prompts.draft.as_mut().filter(|draft| draft.api_id == call.api_id);
    match outcome {
        Ok(prompt) => {
            if let Some(draft) = draft {
                draft.saving = None;
                draft.failure = None;
                draft.saved.clone_from(&call.text);
            }
            let values = [("id", &*escape(&prompt.api_id)), ("version", &prompt.version.to_string())];
            let note = state.words.fill("prompts.saved", &values);
            state.toast(Level::Ok, note);
            read_store(state, Noun::Prompts);
            if state.prompts.history.as_ref().is_some_and(|history| history.api_id == prompt.api_id) {
                // The list of versions has grown by this one.
                state.read(PromptHistory { api_id: prompt.api_id });
            }
        }
        Err(failure) => {
            if let Some(draft) = draft {
                draft.saving = None;
                draft.failure = Some(failure.clone());
            }
            state.complain(&failure);
        }
    }
}

/// Versions arrived.
pub fn take_history(state: &mut State, api_id: &str, outcome: Outcome<Vec<PromptView>>) {
    let Some(history) = state.prompts.history.as_mut().filter(|history| history.api_id == api_id) else { return };
    match outcome {
        Ok(versions) => history.versions = Some(versions),
        Err(failure) => {
            state.prompts.history = None;
            state.prompts.focus = EditorFocus::List;
            state.complain(&failure);
        }
    }
}

/// Esc outside the editor: from versions back to the list.
pub fn back(state: &mut State) {
    if state.prompts.focus == EditorFocus::History {
        state.prompts.focus = EditorFocus::List;
        state.prompts.history = None;
    }
}

/// Takes a key press for the editor.
pub fn type_key(state: &mut State, key: KeyEvent) {
    if !is_editing(state) {
        return;
    }
    if let Some(draft) = &mut state.prompts.draft {
        draft.area.press(key);
    }
    preview::refresh(state);
}

/// Takes pasted text for the editor.
pub fn paste(state: &mut State, text: &str) {
    if !is_editing(state) {
        return;
    }
    if let Some(draft) = &mut state.prompts.draft {
        draft.area.paste(text);
    }
    preview::refresh(state);
}
