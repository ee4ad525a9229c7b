//! The Engines tab: which engines there are, how they are, and finding, adding, checking and removing them.

use std::time::Duration;

use crate::tui::action::Command;
use crate::tui::effect::Ticket;
use crate::tui::geometry::ListId;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::state::{Detail, State};
use crate::tui::widgets::cursor::Cursor;
use crate::types::calls::engines::{AddEngine, DetectEngines, EngineHealth, RemoveEngine};
use crate::types::engine::{EngineRecord, EngineView};
use crate::types::ids::EngineId;

pub mod view;

/// How far back the chart goes (SPEC §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChartSpan {
    /// One hour.
    #[default]
    Hour,
    /// One day.
    Day,
    /// One week.
    Week,
}

impl ChartSpan {
    /// As a span.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
        })
    }

    fn next(self) -> Self {
        match self {
            Self::Hour => Self::Day,
            Self::Day => Self::Week,
            Self::Week => Self::Hour,
        }
    }
}

/// What the tab remembers.
#[derive(Debug, Default)]
pub struct EnginesTab {
    cursor: Cursor<EngineId>,
    /// A detection that the console began by itself.
    pub detecting: Option<Ticket>,
    /// How far back the chart goes.
    pub span: ChartSpan,
    /// The engine that the person was asked about, as it would be registered again.
    pub removing: Option<AddEngine>,
}

/// The engines that the filter lets through.
#[must_use]
pub fn rows(state: &State) -> Vec<&EngineView> {
    let wanted = state.filters[crate::tui::tabs::Tab::Engines as usize].input.text().trim().to_lowercase();
    let fits = |engine: &&EngineView| {
        let record = &engine.record;
        wanted.is_empty()
            || [record.id.as_str(), record.kind.as_str(), &record.url]
                .iter()
                .any(|t| t.to_lowercase().contains(&wanted))
    };
    state.world.engines.iter().filter(fits).collect()
}

fn key(engine: &EngineView) -> EngineId {
    engine.record.id.clone()
}

/// The selected row.
#[must_use]
pub fn selected(state: &State, rows: &[&EngineView]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.engines.cursor.place(rows, key))
}

fn selected_id(state: &State) -> Option<EngineId> {
    let rows = rows(state);
    selected(state, &rows).map(|at| rows[at].record.id.clone())
}

fn selected_record(state: &State) -> Option<EngineRecord> {
    let rows = rows(state);
    selected(state, &rows).map(|at| rows[at].record.clone())
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    let mut cursor = std::mem::take(&mut state.engines.cursor);
    cursor.select(row, &rows(state), key);
    state.engines.cursor = cursor;
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::DetectEngines => {
            if state.engines.detecting.is_none() {
                state.call(DetectEngines { kind: None, fresh: true });
            }
        }
        Command::AddEngine => {
            let form = forms::add_engine(state);
            overlays::open(state, Overlay::Form(form));
        }
        Command::EditEngine => {
            if let Some(record) = selected_record(state) {
                let form = forms::edit_engine(state, &record);
                overlays::open(state, Overlay::Form(form));
            }
        }
        Command::CheckEngine => {
            if let Some(id) = selected_id(state) {
                state.call(EngineHealth { id: Some(id), since: state.engines.span.duration() });
            }
        }
        Command::RemoveEngine => {
            if let Some(id) = selected_id(state) {
                let body = state.words.fill("engines.remove_body", &[("id", id.as_str())]);
                state.engines.removing = selected_record(state).map(|record| AddEngine {
                    id: record.id,
                    kind: record.kind,
                    url: record.url,
                    api_key_env: record.api_key_env,
                    direct: record.direct,
                    slots: record.slots,
                });
                let then = Then::call(RemoveEngine { id });
                overlays::open(
                    state,
                    Overlay::Confirm(Confirm::new("engines.remove_title", body, "button.remove", then)),
                );
            }
        }
        Command::ChartSpan => {
            state.engines.span = state.engines.span.next();
            read_history(state);
        }
        Command::Open => {
            state.detail = Detail::Open;
            read_history(state);
        }
        Command::Copy => {
            let rows = rows(state);
            if let Some(url) = selected(state, &rows).map(|at| rows[at].record.url.clone()) {
                state.copy(url.clone(), &crate::types::text::escape(&url));
            }
        }
        _ => {
            let page = state.geometry.page(ListId::Engines);
            let mut cursor = std::mem::take(&mut state.engines.cursor);
            cursor.step(command, page, &rows(state), key);
            state.engines.cursor = cursor;
        }
    }
}

fn read_history(state: &mut State) {
    if let Some(id) = selected_id(state) {
        state.read(EngineHealth { id: Some(id), since: state.engines.span.duration() });
    }
}
