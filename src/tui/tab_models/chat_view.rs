//! How the chat tester looks: the conversation above, what is typed below.

use ratatui::layout::Rect;

use crate::tui::geometry::{ListGeometry, ListId};
use crate::tui::overlays::form::spinner;
use crate::tui::state::State;
use crate::tui::tab_models::chat::{Turn, TurnEnd};
use crate::tui::tab_models::{View, view};
use crate::tui::text::{self, Words};
use crate::tui::theme::Role;
use crate::tui::view::views_panel;
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, inset, row};
use crate::tui::widgets::table;
use crate::types::chat::{ChatAnswer, ChatRoute, Sampling};
use crate::types::request::TokenSource;
use crate::types::text::escape;

/// Most rows of the box for the question, borders included.
const MOST_INPUT: u16 = 8;

/// A line of the conversation.
pub type Line = (String, Role);

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let chat = &state.models.chat;
    let typed = cells(chat.input.lines()).saturating_add(2).clamp(3, MOST_INPUT.min(area.height / 2).max(3));
    let above = Rect { height: area.height.saturating_sub(typed), ..area };
    draw_conversation(state, painter, above);
    draw_input(state, painter, below(area, above.height));
}

fn draw_conversation(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let chat = &state.models.chat;
    let inside = inset(views_panel(painter, area, &view::NAMES, View::Chat as usize, None, Emphasis::Resting), 1);
    let whom = chat.model.as_deref().map_or_else(|| painter.say("ask.nobody").into_owned(), |m| escape(m).into_owned());
    let used = painter.parts(row(inside, 0), &[(&whom, Role::Accent), ("  ", Role::Text)]);
    let how = parameters(painter.words, chat.settings.sampling, chat.settings.route, &chat.settings.system);
    let rest = Rect { x: inside.x + used, width: inside.width - used, ..row(inside, 0) };
    painter.text(rest, &how, Role::Muted);
    let place = below(inside, 2);
    let page = usize::from(place.height);
    if chat.turns.is_empty() {
        let lines = [
            (painter.say("ask.empty").into_owned(), Role::Text),
            (String::new(), Role::Text),
            (painter.say("ask.empty_hint").into_owned(), Role::Muted),
        ];
        painter.message(place, &lines);
        return;
    }
    let width = usize::from(place.width).saturating_sub(1);
    // At the end only what is in view is broken into lines, since that is how it is while an answer streams.
    let (lines, offset, all) = if let Some(top) = chat.top {
        let lines = conversation(state, width, usize::MAX);
        let all = lines.len();
        (lines, top.min(all.saturating_sub(page)), Some(all))
    } else {
        let lines = conversation(state, width, page);
        let from = lines.len().saturating_sub(page);
        (lines, from, None)
    };
    painter.geometry.lists.insert(ListId::Detail, ListGeometry { offset, page, base: 0 });
    for (number, (line, role)) in lines.iter().skip(offset).take(page).enumerate() {
        painter.text(row(place, cells(number)), line, *role);
    }
    if let Some(all) = all {
        table::scroll_bar(painter, place, offset, page, all);
        let note = painter.say("ask.not_at_end");
        painter.foot_note(area, &note, Role::Muted);
    }
}

/// Rows that the conversation has on this screen.
#[must_use]
pub fn page(state: &State) -> usize {
    state.geometry.page(ListId::Detail)
}

/// The whole conversation as it is drawn.
#[must_use]
pub fn lines(state: &State) -> Vec<Line> {
    // Borders, the cells inside them, and the scroll bar.
    conversation(state, usize::from(state.size.0).saturating_sub(5), usize::MAX)
}

/// The newest turns that fill at least so many lines.
fn conversation(state: &State, width: usize, least: usize) -> Vec<Line> {
    let mut newest_first: Vec<Vec<Line>> = Vec::new();
    let mut filled = 0;
    for turn in state.models.chat.turns.iter().rev() {
        let lines = turn_lines(state, turn, width);
        filled += lines.len();
        newest_first.push(lines);
        if filled >= least {
            break;
        }
    }
    newest_first.into_iter().rev().flatten().collect()
}

fn turn_lines(state: &State, turn: &Turn, width: usize) -> Vec<Line> {
    let mut lines = vec![(state.words.say("ask.you").into_owned(), Role::Title)];
    let add = |lines: &mut Vec<Line>, text: &str, role: Role| {
        if !text.trim().is_empty() {
            lines.extend(text::outside_lines(text, width).into_iter().map(|line| (line, role)));
        }
    };
    add(&mut lines, &turn.question, Role::Text);
    lines.push((String::new(), Role::Text));
    lines.push((escape(&turn.model).into_owned(), Role::Accent));
    if !turn.reasoning.trim().is_empty() {
        lines.push((state.words.say("ask.thinks").into_owned(), Role::Faint));
        add(&mut lines, &turn.reasoning, Role::Muted);
    }
    add(&mut lines, &turn.text, Role::Text);
    if let TurnEnd::Failed(failure) = &turn.end {
        add(&mut lines, &failure.message, Role::Error);
        add(&mut lines, failure.hint.as_deref().unwrap_or_default(), Role::Muted);
    }
    let (note, role) = note(state, turn);
    lines.extend(text::wrap(&note, width).into_iter().map(|line| (line, role)));
    lines.push((String::new(), Role::Text));
    lines
}

/// Status, request id and times of a turn.
fn note(state: &State, turn: &Turn) -> Line {
    let words = &state.words;
    let mut parts: Vec<String> = Vec::new();
    parts.extend(turn.status.map(|status| status.to_string()));
    parts.extend(turn.request_id.as_deref().map(|id| escape(id).into_owned()));
    let role = match &turn.end {
        TurnEnd::Asking => {
            parts.insert(0, format!("{} {}", spinner(state), text::span(state.now.since(turn.asked))));
            parts.extend(turn.first.map(|first| first_token(words, first.as_secs_f64() * 1000.0)));
            Role::Info
        }
        TurnEnd::Whole(answer) => {
            parts.extend(figures(words, answer));
            Role::Muted
        }
        TurnEnd::Stopped => {
            parts.push(words.say("ask.stopped").into_owned());
            Role::Warn
        }
        TurnEnd::Failed(_) => {
            parts.push(words.say("ask.failed").into_owned());
            Role::Error
        }
    };
    (parts.join(&format!(" {} ", state.symbols().dot)), role)
}

fn first_token(words: &Words, ms: f64) -> String {
    words.fill("ask.first_token", &[("time", &text::millis(ms))])
}

/// Times and tokens of a whole answer.
fn figures(words: &Words, answer: &ChatAnswer) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(answer.timing.first_token_ms.map(|ms| first_token(words, ms)));
    parts.extend(answer.timing.tokens_per_second.map(|rate| format!("{} tok/s", text::rate(rate))));
    let usage = &answer.usage;
    let tokens = match usage.source {
        TokenSource::Engine => Some(format!("{} + {}", text::count(usage.prompt), text::count(usage.completion))),
        TokenSource::Estimated => Some(format!("~{}", text::count(usage.completion))),
        TokenSource::None => None,
    };
    parts.extend(tokens.map(|tokens| words.fill("ask.tokens", &[("tokens", &tokens)])));
    parts.push(text::millis(answer.timing.total_ms));
    // The ordinary ends need no word.
    let reason = answer.finish_reason.as_deref().filter(|reason| !matches!(*reason, "stop" | "completed"));
    parts.extend(reason.map(|reason| words.fill("ask.ended_by", &[("reason", &escape(reason))])));
    parts
}

/// The parameters that differ from what the model and its profile decide.
#[must_use]
pub fn parameters(words: &Words, sampling: Sampling, route: ChatRoute, system: &str) -> String {
    let mut parts = vec![route.path().to_owned()];
    parts.extend(sampling_parts(words, sampling));
    if !system.trim().is_empty() {
        parts.push(words.say("ask.with_system").into_owned());
    }
    parts.join("  ")
}

/// How a model is to pick its words, as far as that was said.
#[must_use]
pub fn sampling_parts(words: &Words, sampling: Sampling) -> Vec<String> {
    let named = |key: &'static str, value: Option<String>| value.map(|value| format!("{} {value}", words.say(key)));
    [
        named("form.profile.temperature", sampling.temperature.map(|value| value.to_string())),
        named("form.profile.max_tokens", sampling.max_tokens.map(|value| text::count(value.into()))),
        named("form.chat.seed", sampling.seed.map(|value| value.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn draw_input(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let chat = &state.models.chat;
    let title = painter.say("ask.question");
    let inside = inset(painter.panel(area, &title, Emphasis::Focused), 1);
    let hint = painter.say(if chat.asking.is_some() { "ask.wait_hint" } else { "ask.question_hint" });
    chat.input.draw_with_hint(painter, inside, &hint, Emphasis::Focused);
}
