//! Models side by side on one prompt: chosen, asked at once, measured, saved and exported (SPEC §9.2).
//!
//! Prompts and answers are stored only when the person saves them; what is on screen stays whatever tab is in front.

use std::time::Duration;

use crate::tui::action::Command;
use crate::tui::effect::Ticket;
use crate::tui::overlays::picker::{Picker, Purpose};
use crate::tui::overlays::saved::Saved;
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, asking_forms};
use crate::tui::state::{Dirty, State};
use crate::tui::tab_models::chat::{Towards, scrolled};
use crate::tui::tab_models::{View, compare_view};
use crate::tui::tabs::Tab;
use crate::tui::widgets::text_area::TextBox;
use crate::types::calls::comparisons::{CompareModels, Keeping, ListComparisons, SaveComparison};
use crate::types::chat::Sampling;
use crate::types::clock::UnixMillis;
use crate::types::comparison::{COMPARED, CompareProgress, CompareTold, ComparedRun, Comparison};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// One model while it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// As it was named; outside text.
    pub model: String,
    /// Which run it is in, counted from 1; 0 before the first.
    pub run: u32,
    /// When that run began.
    pub begun: UnixMillis,
    /// From its beginning to the first word, as it was seen here.
    pub first: Option<Duration>,
    /// What the model thought in it; outside text.
    pub reasoning: String,
    /// What it said in it; outside text.
    pub text: String,
    /// The runs that have ended.
    pub ended: Vec<ComparedRun>,
}

/// How a comparison that is no whole one stands.
#[derive(Debug, Clone, PartialEq)]
pub enum LanesState {
    /// It runs.
    Running(Ticket),
    /// The person left it.
    Stopped,
    /// It failed as a whole.
    Failed(Failure),
}

/// A comparison on its way, or what came of one that never was whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Lanes {
    /// When it began.
    pub since: UnixMillis,
    /// Runs per model.
    pub runs: u32,
    /// The models in their order.
    pub lanes: Vec<Lane>,
    /// How it stands.
    pub state: LanesState,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Stage {
    /// Nothing was asked yet.
    #[default]
    Empty,
    /// A comparison on its way or broken off.
    Lanes(Lanes),
    /// A whole one, just made or opened.
    Whole(Box<Comparison>),
}

/// What the view remembers.
#[derive(Debug)]
pub struct Compare {
    /// Who is to be asked, as clients would; outside text.
    pub models: Vec<String>,
    /// How often each.
    pub runs: u32,
    /// How the models pick their words.
    pub sampling: Sampling,
    /// The prompt being typed.
    pub input: TextBox,
    /// What is shown.
    pub stage: Stage,
    /// First line in view in every column; `None` follows the newest.
    pub top: Option<usize>,
    /// A saving on its way.
    pub saving: Option<Ticket>,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            runs: 1,
            sampling: Sampling::default(),
            input: TextBox::default(),
            stage: Stage::Empty,
            top: None,
            saving: None,
        }
    }
}

impl Compare {
    /// Whether a model is to be asked.
    #[must_use]
    pub fn has(&self, model: &str) -> bool {
        self.models.iter().any(|known| known == model)
    }

    /// The call on its way.
    #[must_use]
    pub fn running(&self) -> Option<Ticket> {
        match &self.stage {
            Stage::Lanes(Lanes { state: LanesState::Running(ticket), .. }) => Some(*ticket),
            _ => None,
        }
    }

    fn lane(&mut self, ticket: Ticket, model: usize) -> Option<&mut Lane> {
        match &mut self.stage {
            Stage::Lanes(lanes) if lanes.state == LanesState::Running(ticket) => lanes.lanes.get_mut(model),
            _ => None,
        }
    }
}

/// Shows the comparison.
pub fn open(state: &mut State) {
    state.models.view = View::Compare;
}

/// Marks a model for the comparison, or takes its mark away.
pub fn mark(state: &mut State, model: &str) {
    if state.models.compare.has(model) {
        state.models.compare.models.retain(|known| known != model);
    } else if state.models.compare.models.len() < *COMPARED.end() {
        state.models.compare.models.push(model.to_owned());
    } else {
        say_how_many(state);
    }
}

fn say_how_many(state: &mut State) {
    let (least, most) = (COMPARED.start().to_string(), COMPARED.end().to_string());
    let note = state.words.fill("compare.how_many", &[("least", &least), ("most", &most)]);
    state.toast(Level::Warn, note);
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::RunComparison => begin(state),
        Command::BreakCompareLine => state.models.compare.input.break_line(),
        Command::LeaveComparison if state.models.compare.running().is_some() => stop(state),
        Command::LeaveComparison => state.models.view = View::List,
        Command::PickCompared => {
            let chosen = state.models.compare.models.clone();
            overlays::open(state, Overlay::Picker(Picker::new(Purpose::CompareModels, chosen)));
        }
        Command::CompareSettings => {
            let form = asking_forms::compare_settings(state);
            overlays::open(state, Overlay::Form(form));
        }
        Command::SavedComparisons => {
            state.read(ListComparisons {});
            overlays::open(state, Overlay::Saved(Saved::default()));
        }
        Command::ExportComparison | Command::SaveComparison => match &state.models.compare.stage {
            Stage::Whole(comparison) if command == Command::ExportComparison => {
                let form = asking_forms::export(state, comparison);
                overlays::open(state, Overlay::Form(form));
            }
            Stage::Whole(comparison) => save(state, (**comparison).clone()),
            _ => state.toast(Level::Info, state.words.say("compare.nothing_whole").into_owned()),
        },
        Command::CompareUp | Command::CompareDown => {
            let step = compare_view::extent(state).1.saturating_sub(1).max(1);
            let towards = if command == Command::CompareUp { Towards::Oldest } else { Towards::Newest };
            scroll(state, towards, step);
        }
        _ => {}
    }
}

/// Scrolls all columns by some lines.
pub fn scroll(state: &mut State, towards: Towards, step: usize) {
    let (lines, page) = compare_view::extent(state);
    state.models.compare.top = scrolled(state.models.compare.top, towards, step, lines, page);
}

fn begin(state: &mut State) {
    let compare = &state.models.compare;
    if compare.running().is_some() || compare.input.is_blank() {
        return;
    }
    if !COMPARED.contains(&compare.models.len()) {
        say_how_many(state);
        return;
    }
    if state.world.base_url().is_none() {
        state.toast(Level::Warn, state.words.say("ask.no_proxy").into_owned());
        return;
    }
    let call = CompareModels {
        models: compare.models.clone(),
        prompt: compare.input.text().trim().to_owned(),
        runs: compare.runs,
        sampling: compare.sampling,
        keeping: Keeping::Told,
    };
    let (models, runs) = (call.models.clone(), call.runs);
    let ticket = state.call(call);
    if !state.pending.contains_key(&ticket) {
        return;
    }
    let since = state.now;
    let lane = |model| Lane {
        model,
        run: 0,
        begun: since,
        first: None,
        reasoning: String::new(),
        text: String::new(),
        ended: Vec::new(),
    };
    let lanes = models.into_iter().map(lane).collect();
    state.models.compare.stage = Stage::Lanes(Lanes { since, runs, lanes, state: LanesState::Running(ticket) });
    state.models.compare.top = None;
}

/// Takes what happens in a comparison.
pub fn told(state: &mut State, ticket: Ticket, progress: CompareProgress) {
    let now = state.now;
    let Some(lane) = state.models.compare.lane(ticket, progress.model) else { return };
    match progress.told {
        CompareTold::Begun => {
            lane.run = progress.run;
            lane.begun = now;
            lane.first = None;
            lane.reasoning.clear();
            lane.text.clear();
        }
        CompareTold::Text(text) => {
            lane.first.get_or_insert_with(|| now.since(lane.begun));
            lane.text.push_str(&text);
        }
        CompareTold::Reasoning(text) => {
            lane.first.get_or_insert_with(|| now.since(lane.begun));
            lane.reasoning.push_str(&text);
        }
        CompareTold::Ended(run) => lane.ended.push(run),
    }
    if state.tab == Tab::Models && state.models.view == View::Compare {
        state.soil(Dirty::Data);
    }
}

/// Takes a whole comparison, or why there is none.
pub fn answered(state: &mut State, ticket: Ticket, outcome: Outcome<Comparison>) {
    let compare = &mut state.models.compare;
    let Stage::Lanes(lanes) = &mut compare.stage else { return };
    if lanes.state != LanesState::Running(ticket) {
        return;
    }
    match outcome {
        Ok(comparison) => compare.stage = Stage::Whole(Box::new(comparison)),
        Err(failure) => lanes.state = LanesState::Failed(failure),
    }
}

/// Leaves the comparison on its way; what came of it stays.
fn stop(state: &mut State) {
    let Some(ticket) = state.models.compare.running() else { return };
    if let Stage::Lanes(lanes) = &mut state.models.compare.stage {
        lanes.state = LanesState::Stopped;
    }
    state.leave(ticket);
}

/// The owner is gone, and the answers with it.
pub(super) fn forget(state: &mut State) {
    state.models.compare.saving = None;
    if let Some(ticket) = state.models.compare.running() {
        let why = state.words.say("ask.owner_gone").into_owned();
        answered(state, ticket, Err(Failure::new(ErrorCode::IoError, why)));
    }
}

fn save(state: &mut State, comparison: Comparison) {
    if let Some(id) = comparison.id {
        let note = state.words.fill("compare.saved_already", &[("number", &id.to_string())]);
        state.toast(Level::Info, note);
    } else if state.models.compare.saving.is_none() {
        let ticket = state.call(SaveComparison { comparison });
        state.models.compare.saving = state.pending.contains_key(&ticket).then_some(ticket);
    }
}

/// A saving ended.
pub fn saved(state: &mut State, ticket: Ticket, outcome: Outcome<Comparison>) {
    let own = state.models.compare.saving.take_if(|saving| *saving == ticket).is_some();
    match outcome {
        Ok(comparison) => {
            let number = comparison.id.unwrap_or_default().to_string();
            let note = state.words.fill("compare.saved", &[("number", &number)]);
            state.toast(Level::Ok, note);
            if let Stage::Whole(shown) = &mut state.models.compare.stage
                && own
                && shown.id.is_none()
                && shown.created == comparison.created
            {
                shown.id = comparison.id;
            }
        }
        Err(failure) => state.complain(&failure),
    }
}

/// Shows a saved comparison, with its prompt and models ready to be asked again.
pub fn show(state: &mut State, comparison: Comparison) {
    if state.models.compare.running().is_some() {
        state.toast(Level::Warn, state.words.say("compare.runs").into_owned());
        return;
    }
    let compare = &mut state.models.compare;
    compare.models = comparison.models.iter().map(|model| model.model.clone()).collect();
    compare.runs = comparison.runs;
    compare.sampling = comparison.sampling;
    compare.input = TextBox::with(&comparison.prompt);
    compare.top = Some(0);
    compare.stage = Stage::Whole(Box::new(comparison));
}
