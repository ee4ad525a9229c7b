//! The Models tab: all models of all engines, searched fuzzily, sorted by column; a chat with one of them, and several
//! side by side.

use crossterm::event::KeyEvent;

use crate::tui::action::{Command, Context};
use crate::tui::geometry::ListId;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms, profile_form};
use crate::tui::state::{Detail, State};
use crate::tui::tab_models::chat::Towards;
use crate::tui::tabs::Tab;
use crate::tui::widgets::cursor::Cursor;
use crate::tui::widgets::fuzzy;
use crate::types::calls::models::{DeleteModel, LoadModel, RefreshModels, UnloadModel};
use crate::types::calls::profiles::DeleteProfile;
use crate::types::engine::{Capability, ModelView};
use crate::types::ids::CanonicalModel;
use crate::types::order::Order;
use crate::types::text::{escape, mentions};

pub mod chat;
pub mod chat_view;
pub mod compare;
pub mod compare_view;
pub mod view;

/// What the tab shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// All models.
    #[default]
    List,
    /// The chat tester.
    Chat,
    /// Models side by side.
    Compare,
}

impl View {
    /// All views in their order.
    const ALL: [Self; 3] = [Self::List, Self::Chat, Self::Compare];
}

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortBy {
    /// Name as listed.
    #[default]
    Name,
    /// Engine.
    Engine,
    /// Context length.
    Context,
    /// Size on disk.
    Size,
    /// In memory or not.
    Loaded,
}

impl SortBy {
    fn next(self) -> Self {
        match self {
            Self::Name => Self::Engine,
            Self::Engine => Self::Context,
            Self::Context => Self::Size,
            Self::Size => Self::Loaded,
            Self::Loaded => Self::Name,
        }
    }
}

/// What the tab remembers.
#[derive(Debug)]
pub struct ModelsTab {
    /// What is in front.
    pub view: View,
    cursor: Cursor<CanonicalModel>,
    /// What the list is sorted by.
    pub sort: SortBy,
    /// Which way.
    pub order: Order,
    /// The chat tester.
    pub chat: chat::ChatTester,
    /// Models side by side.
    pub compare: compare::Compare,
}

impl Default for ModelsTab {
    fn default() -> Self {
        Self {
            view: View::default(),
            cursor: Cursor::default(),
            sort: SortBy::default(),
            order: Order::Ascending,
            chat: chat::ChatTester::default(),
            compare: compare::Compare::default(),
        }
    }
}

/// The models to show: best match first while something is searched, else in the chosen order.
#[must_use]
pub fn rows(state: &State) -> Vec<&ModelView> {
    let wanted = state.filters[Tab::Models as usize].input.text().trim();
    let mut rows: Vec<&ModelView> = state.world.models.iter().collect();
    rows.sort_by(|a, b| {
        let by = match state.models.sort {
            SortBy::Name => a.listed_as.cmp(&b.listed_as),
            SortBy::Engine => a.name.engine.cmp(&b.name.engine),
            SortBy::Context => a.context_length.cmp(&b.context_length),
            SortBy::Size => a.size_bytes.cmp(&b.size_bytes),
            SortBy::Loaded => b.loaded.cmp(&a.loaded),
        };
        let by = if state.models.order == Order::Ascending { by } else { by.reverse() };
        by.then_with(|| a.name.cmp(&b.name))
    });
    fuzzy::best(rows, wanted, |model| format!("{} {}", model.listed_as, model.name.engine))
}

/// What models are called that have another purpose than to chat, as those call them who make them. Asked only where the
/// engine does not tell what a model can do: whoever knows better types the name.
const OTHER_PURPOSES: [&str; 12] = [
    "embed",
    "rerank",
    "whisper",
    "tts",
    "dall-e",
    "moderation",
    "bge-",
    "e5-",
    "gte-",
    "minilm",
    "stable-diffusion",
    "clip-",
];

/// Names of the models that can chat, as clients ask for them; of those whose engine does not tell, all that are not named
/// for something else.
#[must_use]
pub fn chatting(state: &State) -> Vec<String> {
    let able = |model: &&ModelView| model.available && can_chat(model);
    let mut names: Vec<String> = state.world.models.iter().filter(able).map(|m| m.listed_as.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a model can chat, as far as its engine or its name tells.
fn can_chat(model: &ModelView) -> bool {
    let has = |capability| model.capabilities.contains(&capability);
    match (has(Capability::Chat), has(Capability::Embeddings)) {
        (true, false) => true,
        (false, _) if !model.capabilities.is_empty() => false,
        // Nothing is told, or everything that the engine may do is told of each of its models.
        _ => !OTHER_PURPOSES.iter().any(|word| mentions(&model.listed_as, word)),
    }
}

/// The contexts of the tab's keys.
#[must_use]
pub fn contexts(state: &State) -> Vec<Context> {
    match state.models.view {
        View::List => vec![Context::Models],
        View::Chat => vec![Context::Chat],
        View::Compare => vec![Context::Compare],
    }
}

/// The context of the view that takes text.
#[must_use]
pub fn editor(state: &State) -> Option<Context> {
    match state.models.view {
        View::List => None,
        View::Chat => Some(Context::Chat),
        View::Compare => Some(Context::Compare),
    }
}

/// Takes a key press for what is typed.
pub fn type_key(state: &mut State, key: KeyEvent) {
    match state.models.view {
        View::List => {}
        View::Chat => state.models.chat.input.press(key),
        View::Compare => state.models.compare.input.press(key),
    }
}

/// Takes pasted text for what is typed.
pub fn paste(state: &mut State, text: &str) {
    match state.models.view {
        View::List => {}
        View::Chat => state.models.chat.input.paste(text),
        View::Compare => state.models.compare.input.paste(text),
    }
}

/// Shows the list (0), the chat (1) or the comparison (2).
pub fn show_view(state: &mut State, view: usize) {
    state.detail = Detail::Closed;
    match View::ALL[view % View::ALL.len()] {
        View::List => state.models.view = View::List,
        View::Chat => chat::open(state),
        View::Compare => compare::open(state),
    }
}

/// The owner is gone: what is being answered will not be.
pub fn forget_calls(state: &mut State) {
    chat::forget(state);
    compare::forget(state);
}

fn key(model: &ModelView) -> CanonicalModel {
    model.name.clone()
}

/// The selected row.
#[must_use]
pub fn selected(state: &State, rows: &[&ModelView]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.models.cursor.place(rows, key))
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    let mut cursor = std::mem::take(&mut state.models.cursor);
    cursor.select(row, &rows(state), key);
    state.models.cursor = cursor;
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        // The wheel: what is typed keeps the arrows.
        Command::Up | Command::Down if state.models.view != View::List => {
            let towards = if command == Command::Up { Towards::Oldest } else { Towards::Newest };
            match state.models.view {
                View::Chat => chat::scroll(state, towards, 1),
                _ => compare::scroll(state, towards, 1),
            }
        }
        _ if command.row().context == Context::Chat => chat::run(state, command),
        _ if command.row().context == Context::Compare => compare::run(state, command),
        Command::ChatWithModel => {
            let rows = rows(state);
            let model = selected(state, &rows).map(|at| rows[at].listed_as.to_string());
            if let Some(model) = model {
                state.models.chat.model = Some(model);
            }
            chat::open(state);
        }
        Command::MarkModel => {
            let rows = rows(state);
            let Some(model) = selected(state, &rows).map(|at| rows[at]) else { return };
            let (name, chats) = (model.listed_as.to_string(), can_chat(model));
            if chats || state.models.compare.has(&name) {
                compare::mark(state, &name);
            } else {
                let note = state.words.fill("compare.cannot_chat", &[("model", &escape(&name))]);
                state.toast(Level::Warn, note);
            }
        }
        Command::CompareMarked => compare::open(state),
        Command::NextModelsView | Command::Right => show_view(state, state.models.view as usize + 1),
        Command::PreviousModelsView | Command::Left => {
            show_view(state, state.models.view as usize + View::ALL.len() - 1);
        }
        Command::SortModels => state.models.sort = state.models.sort.next(),
        Command::ReverseModels => {
            state.models.order = match state.models.order {
                Order::Ascending => Order::Descending,
                Order::Descending => Order::Ascending,
            };
        }
        Command::RefreshModels => {
            state.call(RefreshModels {});
        }
        Command::EditProfile => {
            if let Some(model) = selected_model(state) {
                let form = profile_form::edit(state, model);
                overlays::open(state, Overlay::Form(form));
            }
        }
        Command::DeleteProfile => ask_to_delete_profile(state),
        Command::LoadModel => {
            if let Some(model) = selected_model(state) {
                let name = model.to_string();
                overlays::work::begin(state, "work.load", &model.model, LoadModel { model: name });
            }
        }
        Command::UnloadModel => {
            if let Some(model) = selected_model(state) {
                state.call(UnloadModel { model: model.to_string() });
            }
        }
        Command::PullModel => {
            let engine = selected_model(state).map(|model| model.engine);
            match forms::pull_model(state, engine.as_ref(), "") {
                Some(form) => overlays::open(state, Overlay::Form(form)),
                None => state.toast(Level::Warn, state.words.say("models.no_engine").into_owned()),
            }
        }
        Command::DeleteModel => ask_to_delete_model(state),
        Command::Open => state.detail = Detail::Open,
        Command::Copy => {
            let rows = rows(state);
            if let Some(name) = selected(state, &rows).map(|at| rows[at].listed_as.to_string()) {
                let shown = crate::types::text::escape(&name).into_owned();
                state.copy(name, &shown);
            }
        }
        _ => {
            let page = state.geometry.page(ListId::Models);
            let mut cursor = std::mem::take(&mut state.models.cursor);
            cursor.step(command, page, &rows(state), key);
            state.models.cursor = cursor;
        }
    }
}

fn selected_model(state: &State) -> Option<CanonicalModel> {
    let rows = rows(state);
    selected(state, &rows).map(|at| rows[at].name.clone())
}

/// What is fetched for hours is not removed by one key press.
fn ask_to_delete_model(state: &mut State) {
    let Some(model) = selected_model(state) else { return };
    let (name, engine) = (escape(&model.model).into_owned(), model.engine.to_string());
    let body = state.words.fill("models.delete_body", &[("model", &name), ("engine", &engine)]);
    let then = Then::call(DeleteModel { model: model.to_string() });
    overlays::open(state, Overlay::Confirm(Confirm::new("models.delete_title", body, "button.delete", then)));
}

fn ask_to_delete_profile(state: &mut State) {
    let Some(model) = selected_model(state) else { return };
    let Some(profile) = profile_form::profile_of(state, &model) else {
        state.toast(Level::Info, state.words.say("models.no_profile").into_owned());
        return;
    };
    let (id, label, name) = (profile.id, escape(&profile.label).into_owned(), escape(&profile.model).into_owned());
    let body = state.words.fill("models.delete_profile_body", &[("label", &label), ("model", &name)]);
    let then = Then::call(DeleteProfile { id });
    overlays::open(state, Overlay::Confirm(Confirm::new("models.delete_profile_title", body, "button.delete", then)));
}
