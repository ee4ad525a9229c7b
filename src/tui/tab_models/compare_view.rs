//! How models side by side look: the prompt above, one column for each model below, its figures at its foot.

use ratatui::layout::Rect;

use crate::tui::geometry::{ListGeometry, ListId};
use crate::tui::overlays::form::spinner;
use crate::tui::state::State;
use crate::tui::tab_models::chat_view::{Line, sampling_parts};
use crate::tui::tab_models::compare::{Lane, LanesState, Stage};
use crate::tui::tab_models::{View, view};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::views_panel;
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, inset, row};
use crate::types::chat::ChatAnswer;
use crate::types::comparison::{ComparedModel, ComparedRun, Medians};
use crate::types::failure::Failure;
use crate::types::request::TokenSource;
use crate::types::text::escape;

/// Most rows of the box for the prompt, borders and the line of models included.
const MOST_INPUT: u16 = 8;
/// Rows of a column's figures: how it stands, first token, speed, tokens, total.
const FIGURES: u16 = 5;

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let top = input_rows(state, area.height);
    draw_prompt(state, painter, Rect { height: top, ..area });
    let rest = below(area, top);
    match &state.models.compare.stage {
        Stage::Empty => {
            let lines = [
                (painter.say("compare.empty").into_owned(), Role::Text),
                (String::new(), Role::Text),
                (painter.say("compare.empty_hint").into_owned(), Role::Muted),
            ];
            painter.message(rest, &lines);
        }
        _ => draw_columns(state, painter, rest),
    }
}

fn input_rows(state: &State, height: u16) -> u16 {
    // Borders, the line of models, and what is typed.
    cells(state.models.compare.input.lines()).saturating_add(3).clamp(4, MOST_INPUT.min(height / 2).max(4))
}

fn draw_prompt(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let compare = &state.models.compare;
    let inside = inset(views_panel(painter, area, &view::NAMES, View::Compare as usize, None, Emphasis::Focused), 1);
    let models = if compare.models.is_empty() {
        painter.say("compare.no_models").into_owned()
    } else {
        compare.models.iter().map(|model| escape(model).into_owned()).collect::<Vec<_>>().join(", ")
    };
    let mut how = vec![painter.words.fill("compare.runs_each", &[("count", &compare.runs.to_string())])];
    how.extend(sampling_parts(painter.words, compare.sampling));
    let how = how.join("  ");
    let line = row(inside, 0);
    let used = painter.right(line, &how, Role::Muted);
    painter.text(Rect { width: line.width.saturating_sub(used + 2), ..line }, &models, Role::Accent);
    let hint = painter.say(if compare.running().is_some() { "compare.wait_hint" } else { "compare.hint" });
    compare.input.draw_with_hint(painter, below(inside, 1), &hint, Emphasis::Focused);
    let (note, role) = standing(state);
    painter.foot_note(area, &note, role);
}

/// How the comparison as a whole stands.
fn standing(state: &State) -> Line {
    let words = &state.words;
    match &state.models.compare.stage {
        Stage::Empty => (String::new(), Role::Muted),
        Stage::Lanes(lanes) => match &lanes.state {
            LanesState::Running(_) => {
                (format!("{} {}", spinner(state), text::span(state.now.since(lanes.since))), Role::Info)
            }
            LanesState::Stopped => (words.say("ask.stopped").into_owned(), Role::Warn),
            LanesState::Failed(failure) => (escape(&failure.message).into_owned(), Role::Error),
        },
        Stage::Whole(comparison) => {
            let time = words.date_time(comparison.created);
            match comparison.id {
                Some(id) => {
                    (words.fill("compare.number", &[("number", &id.to_string()), ("time", &time)]), Role::Muted)
                }
                None => (words.fill("compare.unsaved", &[("time", &time)]), Role::Muted),
            }
        }
    }
}

/// What a column shows.
struct Column<'a> {
    model: &'a str,
    reasoning: &'a str,
    text: &'a str,
    /// Why the shown run failed.
    failed: Option<&'a Failure>,
    /// How it stands.
    standing: Line,
    /// First token in milliseconds, tokens per second, tokens, milliseconds in all.
    figures: [Option<String>; 4],
}

fn columns(state: &State) -> Vec<Column<'_>> {
    match &state.models.compare.stage {
        Stage::Empty => Vec::new(),
        Stage::Lanes(lanes) => {
            let runs = matches!(lanes.state, LanesState::Running(_));
            lanes.lanes.iter().map(|lane| of_lane(state, lane, lanes.runs, runs)).collect()
        }
        Stage::Whole(comparison) => comparison.models.iter().map(|model| of_model(state, model)).collect(),
    }
}

fn of_lane<'a>(state: &'a State, lane: &'a Lane, runs: u32, running: bool) -> Column<'a> {
    let words = &state.words;
    // The run that is shown has ended when as many have ended.
    let last = lane.ended.last().filter(|_| u32::try_from(lane.ended.len()).is_ok_and(|ended| ended == lane.run));
    let place = words.fill("compare.run", &[("run", &lane.run.max(1).to_string()), ("runs", &runs.to_string())]);
    let standing = match last {
        None if running => (format!("{} {place}", spinner(state)), Role::Info),
        Some(ComparedRun::Failed(_)) => (format!("{} {place}", state.symbols().error), Role::Error),
        Some(ComparedRun::Answer(_)) => (format!("{} {place}", state.symbols().ok), Role::Ok),
        None => (format!("{} {place}", state.symbols().warn), Role::Warn),
    };
    let figures = match last.and_then(ComparedRun::answer) {
        Some(answer) => figures_of(answer),
        None => [lane.first.map(|first| text::millis(first.as_secs_f64() * 1000.0)), None, None, None],
    };
    let failed = match last {
        Some(ComparedRun::Failed(failure)) => Some(failure),
        _ => None,
    };
    Column { model: &lane.model, reasoning: &lane.reasoning, text: &lane.text, failed, standing, figures }
}

/// The last answer of a model, and medians over its runs where there were several.
fn of_model<'a>(state: &'a State, model: &'a ComparedModel) -> Column<'a> {
    let words = &state.words;
    let failures = model.runs.iter().filter(|run| run.answer().is_none()).count();
    let (reasoning, text, failed) = match model.runs.last() {
        Some(ComparedRun::Answer(answer)) => (answer.reasoning.as_str(), answer.text.as_str(), None),
        Some(ComparedRun::Failed(failure)) => ("", "", Some(failure)),
        None => ("", "", None),
    };
    let runs = model.runs.len().to_string();
    let single = model.runs.first().filter(|_| model.runs.len() == 1).and_then(ComparedRun::answer);
    let standing = match (failures, model.runs.len()) {
        (0, 1) => (format!("{} {}", state.symbols().ok, words.say("compare.one_run")), Role::Ok),
        (0, _) => (words.fill("compare.median_of", &[("runs", &runs)]), Role::Ok),
        _ => (words.fill("compare.failed_of", &[("failed", &failures.to_string()), ("runs", &runs)]), Role::Error),
    };
    let figures = single.map_or_else(|| medians(model.medians), figures_of);
    Column { model: &model.model, reasoning, text, failed, standing, figures }
}

fn figures_of(answer: &ChatAnswer) -> [Option<String>; 4] {
    let tokens = match answer.usage.source {
        TokenSource::Engine => Some(text::count(answer.usage.completion)),
        TokenSource::Estimated => Some(format!("~{}", text::count(answer.usage.completion))),
        TokenSource::None => None,
    };
    [
        answer.timing.first_token_ms.map(text::millis),
        answer.timing.tokens_per_second.map(text::rate),
        tokens,
        Some(text::millis(answer.timing.total_ms)),
    ]
}

fn medians(medians: Medians) -> [Option<String>; 4] {
    [
        medians.first_token_ms.map(text::millis),
        medians.tokens_per_second.map(text::rate),
        medians.completion_tokens.map(|tokens| format!("{tokens:.0}")),
        medians.total_ms.map(text::millis),
    ]
}

fn column_lines(state: &State, column: &Column<'_>, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |text: &str, role: Role| {
        if !text.trim().is_empty() {
            lines.extend(text::outside_lines(text, width).into_iter().map(|line| (line, role)));
        }
    };
    if !column.reasoning.trim().is_empty() {
        add(&state.words.say("ask.thinks"), Role::Faint);
        add(column.reasoning, Role::Muted);
    }
    add(column.text, Role::Text);
    if let Some(failure) = column.failed {
        add(&failure.message, Role::Error);
        add(failure.hint.as_deref().unwrap_or_default(), Role::Muted);
        add(failure.request_id.as_deref().unwrap_or_default(), Role::Faint);
    }
    lines
}

/// Cells of the text in a column of this many on a screen of this width.
fn text_width(width: u16, count: usize) -> usize {
    usize::from(width / cells(count.max(1))).saturating_sub(4)
}

/// Lines of the longest column, and how many are in view.
#[must_use]
pub fn extent(state: &State) -> (usize, usize) {
    let columns = columns(state);
    let width = text_width(state.size.0, columns.len());
    let longest = columns.iter().map(|column| column_lines(state, column, width).len()).max().unwrap_or(0);
    (longest, state.geometry.page(ListId::Detail))
}

fn draw_columns(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let columns = columns(state);
    let width = area.width / cells(columns.len().max(1));
    let page = usize::from(area.height.saturating_sub(2 + FIGURES + 1));
    painter.geometry.lists.insert(ListId::Detail, ListGeometry { offset: 0, page, base: 0 });
    let wrap = text_width(area.width, columns.len());
    for (number, column) in columns.iter().enumerate() {
        let x = area.x + cells(number) * width;
        // The last one takes what the division left.
        let wide = if number + 1 == columns.len() { area.right() - x } else { width };
        let inside = inset(painter.panel(Rect { x, width: wide, ..area }, &escape(column.model), Emphasis::Resting), 1);
        let lines = column_lines(state, column, wrap);
        let last = lines.len().saturating_sub(page);
        let offset = state.models.compare.top.unwrap_or(last).min(last);
        for (place, (line, role)) in lines.iter().skip(offset).take(page).enumerate() {
            painter.text(row(inside, cells(place)), line, *role);
        }
        draw_figures(painter, below(inside, inside.height.saturating_sub(FIGURES)), column);
    }
}

fn draw_figures(painter: &mut Painter<'_>, area: Rect, column: &Column<'_>) {
    painter.text(row(area, 0), &column.standing.0, column.standing.1);
    let off = painter.symbols.off;
    let keys = ["column.ttft", "column.token_rate", "compare.tokens", "compare.total"];
    let label_cells = cells(keys.iter().map(|key| text::width(&painter.say(key))).max().unwrap_or(0));
    for (number, (key, value)) in (1..).zip(keys.iter().zip(&column.figures)) {
        let label = painter.say(key);
        let role = if value.is_some() { Role::Text } else { Role::Faint };
        painter.pair(row(area, number), &label, label_cells, value.as_deref().unwrap_or(off), role);
    }
}
