//! The live requests of the Proxy tab: table, details with timing by stage, copy as curl.

use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListId, Target};
use crate::tui::overlays::bodies::size_words;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::{self, Overlay};
use crate::tui::signs;
use crate::tui::state::{Detail, State};
use crate::tui::tab_proxy::bodies::{self, Wanted};
use crate::tui::tab_proxy::{self, list};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::chart;
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, inset, row};
use crate::tui::widgets::table::{self, Align, Cell, Column, Table, Width};
use crate::types::calls::requests::RequestColumn;
use crate::types::capture::Capture;
use crate::types::order::Order;
use crate::types::request::{Progress, RequestEnd, RequestRow, TokenSource};
use crate::types::text::{escape, is_hostile};

/// Draws the table.
pub fn draw_table(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&RequestRow], selected: Option<usize>) {
    let say = |key| state.words.say(key);
    let (by, order) = state.proxy.requests.sorted();
    let live = by == RequestColumn::Time && order == Order::Descending;
    let sorted = |column: RequestColumn| (by == column && !live).then_some(order);
    let columns = [
        Column { order: sorted(RequestColumn::Time), ..Column::text(say("column.time"), Width::Exact(8), 1) },
        Column {
            align: Align::Right,
            order: sorted(RequestColumn::Status),
            ..Column::text(say("column.status"), Width::Exact(6), 0)
        },
        Column::text(say("column.route"), Width::Share { min: 16, weight: 2 }, 0),
        Column::text(say("column.model"), Width::Share { min: 12, weight: 2 }, 2),
        Column::text(say("column.engine"), Width::Share { min: 9, weight: 1 }, 6),
        Column::text(say("column.key"), Width::Share { min: 8, weight: 1 }, 5),
        Column::number(say("column.tokens_in"), 6, 7),
        Column { order: sorted(RequestColumn::Tokens), ..Column::number(say("column.tokens_out"), 6, 3) },
        Column { order: sorted(RequestColumn::FirstToken), ..Column::number(say("column.ttft"), 7, 4) },
        Column { order: sorted(RequestColumn::Latency), ..Column::number(say("column.latency"), 8, 1) },
        Column::number(say("column.token_rate"), 6, 8),
    ];
    let off = painter.symbols.off;
    let table = Table { list: ListId::Requests, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw_part(painter, area, &table, list::slide(state), |index, column| {
        let request = rows[index];
        let none = || Cell::new(off, Role::Faint);
        match column {
            0 => Cell::new(state.words.time(request.at), Role::Muted),
            1 => status(state, request),
            2 => match &request.route {
                Some(route) => Cell::outside(route, Role::Text),
                None => Cell::outside(&format!("{} {}", request.method, request.path), Role::Muted),
            },
            3 => request.model.as_deref().map_or_else(none, |model| Cell::outside(model, Role::Text)),
            4 => request.engine.as_ref().map_or_else(none, |engine| Cell::new(engine.to_string(), Role::Muted)),
            5 => request.key_label.as_deref().map_or_else(none, |label| Cell::outside(label, Role::Muted)),
            6 => tokens(request, request.tokens.prompt, off),
            7 => tokens(request, request.tokens.completion, off),
            8 => request.ttft_ms().map_or_else(none, |ms| Cell::new(text::millis(ms), Role::Text)),
            9 => request.latency_ms().map_or_else(none, |ms| Cell::new(text::millis(ms), Role::Text)),
            _ => request.tokens_per_second().map_or_else(none, |rate| Cell::new(text::rate(rate), Role::Text)),
        }
    });
}

fn tokens(request: &RequestRow, count: u64, off: &'static str) -> Cell {
    match request.tokens.source {
        TokenSource::None => Cell::new(off, Role::Faint),
        TokenSource::Estimated => Cell::new(format!("~{}", text::short_count(count)), Role::Muted),
        TokenSource::Engine => Cell::new(text::short_count(count), Role::Text),
    }
}

fn status(state: &State, request: &RequestRow) -> Cell {
    let symbols = state.symbols();
    let (sign, role) = match request.progress {
        Progress::Running => (symbols.running, Role::Info),
        Progress::Ended { end: RequestEnd::Completed, .. } if request.status < 400 => ("", Role::Ok),
        Progress::Ended { end: RequestEnd::ClientLeft | RequestEnd::Cancelled, .. } => (symbols.warn, Role::Warn),
        Progress::Ended { .. } if request.status >= 500 => (symbols.error, Role::Error),
        Progress::Ended { end: RequestEnd::EngineFailed, .. } => (symbols.error, Role::Error),
        Progress::Ended { .. } => ("", Role::Warn),
    };
    let code = if request.status == 0 { symbols.off.to_owned() } else { request.status.to_string() };
    Cell::new(format!("{sign} {code}"), role)
}

fn end(progress: Progress) -> (&'static str, Role) {
    match progress {
        Progress::Running => ("request.running", Role::Info),
        Progress::Ended { end: RequestEnd::Completed, .. } => ("request.completed", Role::Ok),
        Progress::Ended { end: RequestEnd::Refused, .. } => ("request.refused", Role::Warn),
        Progress::Ended { end: RequestEnd::EngineFailed, .. } => ("request.engine_failed", Role::Error),
        Progress::Ended { end: RequestEnd::ClientLeft, .. } => ("request.client_left", Role::Warn),
        Progress::Ended { end: RequestEnd::Cancelled, .. } => ("request.cancelled", Role::Warn),
    }
}

/// Rows of the title and of all stages.
const STAGE_ROWS: u16 = 9;

/// Draws the details of a request.
pub fn draw_detail(state: &State, painter: &mut Painter<'_>, area: Rect, request: &RequestRow) {
    let inside = painter.panel(area, request.id.as_str(), Emphasis::when(state.detail == Detail::Open));
    let inside = inset(inside, 1);
    let off = painter.symbols.off.to_owned();
    let out = |text: Option<&str>| escape(text.unwrap_or(&off)).into_owned();
    let (word, role) = end(request.progress);
    let key = match (&request.key_label, request.key) {
        (Some(label), Some(id)) => format!("{} ({id})", escape(label)),
        _ => off.clone(),
    };
    let usage = request.tokens;
    let mut tokens = format!("{} + {}", text::count(usage.prompt), text::count(usage.completion));
    if usage.cached > 0 {
        tokens.push_str(&painter.words.fill("request.cached", &[("count", &text::count(usage.cached))]));
    }
    if usage.source == TokenSource::None {
        tokens.clone_from(&off);
    }
    let rate = request.tokens_per_second().map_or_else(|| off.clone(), |rate| format!("{} tok/s", text::rate(rate)));
    let captured = bodies::entry(state, request.id).map(|entry| {
        let sizes = [entry.request, entry.answer].map(|size| size_words(painter.words, size));
        format!("{}: {} / {}", state.keymap.first(Command::ShowBodies), sizes[0], sizes[1])
    });
    let mut pairs = vec![
        ("column.status", format!("{} {}", request.status, painter.say(word)), role),
        ("column.time", painter.words.exact(request.at), Role::Text),
        ("request.line", escape(&format!("{} {}", request.method, request.path)).into_owned(), Role::Text),
        ("column.model", out(request.model.as_deref()), Role::Text),
        ("column.engine", out(request.engine.as_ref().map(crate::types::ids::EngineId::as_str)), Role::Text),
        ("column.key", key, Role::Text),
        ("request.client", request.client.to_string(), Role::Text),
        ("request.agent", out(request.user_agent.as_deref()), Role::Text),
        ("request.tokens", tokens, Role::Text),
        ("request.rate", rate, Role::Text),
        (
            "request.bytes",
            format!("{} / {}", text::bytes(request.bytes_in), text::bytes(request.bytes_out)),
            Role::Text,
        ),
    ];
    if let Some(code) = &request.error_code {
        pairs.insert(1, ("request.error", escape(code).into_owned(), role));
    }
    if let Some(captured) = captured {
        pairs.insert(1, ("request.captured", captured, Role::Accent));
    }
    // The stages stand below, then the rules.
    let used = painter.pairs(inside, inside.height.saturating_sub(STAGE_ROWS + 4), &pairs);
    // Blank rows go first where there is no room for a rule.
    let gap = u16::from(inside.height >= used + STAGE_ROWS + 5);
    let stages = draw_stages(painter, below(inside, used + gap), request);
    draw_rules(state, painter, below(inside, used + stages + 2 * gap), request);
}

/// Draws which security events the request caused, as far as they are kept here.
fn draw_rules(state: &State, painter: &mut Painter<'_>, area: Rect, request: &RequestRow) {
    let label = painter.say("request.rules");
    painter.text(row(area, 0), &label, Role::Muted);
    let met = state.world.audit.iter().filter(|row| row.event.request_id == Some(request.id));
    let mut y = 1;
    for met in met {
        let event = &met.event;
        let (word, role) = signs::severity(event.severity);
        let line = format!("{}  {}", painter.say(signs::kind(event.kind)), painter.say(word));
        painter.text(row(area, y), &line, role);
        y += 1;
        if y < area.height {
            y += painter.paragraph(below(area, y), &escape(&event.details), Role::Text).max(1);
        }
    }
    if y == 1 {
        let none = painter.say("request.no_rules");
        painter.paragraph(below(area, 1), &none, Role::Faint);
    }
}

/// Draws how long each stage took, as bars on one scale; answers the rows that it took.
#[expect(clippy::cast_precision_loss, reason = "microseconds of one request")]
fn draw_stages(painter: &mut Painter<'_>, area: Rect, request: &RequestRow) -> u16 {
    let stages = request.stages;
    let took = match request.progress {
        Progress::Ended { took_us, .. } => Some(took_us),
        Progress::Running => None,
    };
    let ends = [
        ("stage.screened", stages.screened.map(u64::from)),
        ("stage.authenticated", stages.authenticated.map(u64::from)),
        ("stage.parsed", stages.parsed.map(u64::from)),
        ("stage.resolved", stages.resolved.map(u64::from)),
        ("stage.sent", stages.sent.map(u64::from)),
        ("stage.first_byte", stages.first_byte.map(u64::from)),
        ("stage.first_token", stages.first_token.map(u64::from)),
        ("stage.done", took),
    ];
    let whole = ends.iter().filter_map(|(_, end)| *end).max().unwrap_or(0).max(1) as f64;
    let label = painter.say("stage.title");
    painter.text(row(area, 0), &label, Role::Muted);
    let label_cells = cells(ends.iter().map(|(key, _)| text::width(&painter.say(key))).max().unwrap_or(0));
    let mut before = 0;
    let mut y = 1;
    for (key, end) in ends {
        let Some(end) = end else { continue };
        let line = row(area, y);
        let label = painter.say(key);
        painter.text(Rect { width: label_cells.min(line.width), ..line }, &label, Role::Text);
        let took = text::millis(end.saturating_sub(before) as f64 / 1000.0);
        painter.right(line, &took, Role::Muted);
        let bar = Rect { x: line.x + label_cells + 1, width: line.width.saturating_sub(label_cells + 11), ..line };
        if bar.width > 3 && bar.height > 0 {
            let role = if key == "stage.sent" || key == "stage.first_byte" { Role::ChartAlt } else { Role::Chart };
            chart::bar(painter, bar, before as f64 / whole, end as f64 / whole, role);
        }
        before = end;
        y += 1;
    }
    y
}

/// Asks another model the same: what was captured as it was, anything else in the chat tester, which says why the question
/// must be typed.
pub fn replay(state: &mut State) {
    let rows = list::rows(state);
    let Some(request) = tab_proxy::selected_request(state, &rows).map(|at| rows[at]) else { return };
    let id = request.id;
    if bodies::can_be_sent(state, id) {
        return bodies::fetch(state, id, Wanted::Replay);
    }
    let model = request.model.as_deref().map(str::to_owned);
    let body = state.words.fill("replay.no_body", &[("id", id.as_str())]);
    let confirm = Confirm::new("replay.title", body, "button.choose_model", Then::AskAnother(model));
    overlays::open(state, Overlay::Confirm(confirm));
}

/// Copies a command that asks for the same thing again: with the captured body, else with a small one that fits the
/// route. The key is left as a variable, because it is known to nobody.
pub fn copy_as_curl(state: &mut State) {
    let rows = list::rows(state);
    let Some(request) = tab_proxy::selected_request(state, &rows).map(|at| rows[at]) else { return };
    let id = request.id;
    if bodies::can_be_sent(state, id) {
        return bodies::fetch(state, id, Wanted::Curl);
    }
    let body = (request.method == "POST").then(|| likely_body(request));
    let text = curl(base(state), &request.method, &request.path, body.as_deref());
    copy_command(state, text);
}

/// Copies a command with the body that was captured.
pub fn copy_captured(state: &mut State, capture: &Capture) {
    let entry = &capture.entry;
    let text = curl(base(state), &entry.method, &entry.path, Some(&visible(&capture.request_text)));
    copy_command(state, text);
}

fn copy_command(state: &mut State, text: String) {
    let what = state.words.say("request.as_curl");
    state.copy(text, &what);
}

fn base(state: &State) -> &str {
    state.world.base_url().unwrap_or("http://127.0.0.1:8484")
}

fn curl(base: &str, method: &str, path: &str, body: Option<&str>) -> String {
    let base = base.trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let mut line = format!(
        "curl -X {} {} -H \"Authorization: Bearer $FLM_API_KEY\"",
        quote(method),
        quote(&format!("{base}{path}"))
    );
    if let Some(body) = body {
        line.push_str(" -H 'Content-Type: application/json' -d ");
        line.push_str(&quote(body));
    }
    line
}

/// A small body that fits the route.
fn likely_body(request: &RequestRow) -> String {
    let mut body = serde_json::Map::new();
    if let Some(model) = &request.model {
        body.insert("model".to_owned(), serde_json::Value::from(model.as_ref()));
    }
    if request.path.ends_with("/embeddings") {
        body.insert("input".to_owned(), "Hello".into());
    } else if request.path.ends_with("/chat/completions") {
        body.insert("messages".to_owned(), serde_json::json!([{"role": "user", "content": "Hello"}]));
    } else {
        body.insert("prompt".to_owned(), "Hello".into());
    }
    if request.stream {
        body.insert("stream".to_owned(), true.into());
    }
    serde_json::Value::Object(body).to_string()
}

/// JSON that says the same without characters that could do something to a terminal: outside of strings such are blanks, inside
/// they are written as escapes.
fn visible(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_hostile(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// Quotes a word for a POSIX shell: what a client sent must never run in the operator's shell.
fn quote(word: &str) -> String {
    let safe: String = word.chars().filter(|c| !is_hostile(*c)).collect();
    format!("'{}'", safe.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{quote, visible};

    #[test]
    fn a_hostile_path_stays_one_word_of_the_shell() {
        assert_eq!(quote("/v1/'; rm -rf ~; '"), "'/v1/'\\''; rm -rf ~; '\\'''");
        assert_eq!(quote("a\nb"), "'ab'");
    }

    #[test]
    fn a_captured_body_says_the_same_without_hostile_characters() {
        let body = "{\n  \"a\": \"x\u{202e}y\u{e0041}\"\t}";
        let shown = visible(body);
        assert_eq!(shown, "{   \"a\": \"x\\u202ey\\udb40\\udc41\" }");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(read(&shown), read(body));
    }
}
