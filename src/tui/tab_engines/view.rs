//! How the Engines tab looks.

use ratatui::layout::Rect;

use crate::tui::geometry::{ListId, Target};
use crate::tui::state::{Detail, State};
use crate::tui::tab_engines::{self, ChartSpan};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{empty, panel_title, split_detail};
use crate::tui::widgets::chart::{self, Point};
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, inset, row};
use crate::tui::widgets::symbols::Symbols;
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::clock::UnixMillis;
use crate::types::engine::{Capability, EngineOrigin, EngineState, EngineView, HealthPoint};
use crate::types::text::escape;

/// Rows that the details need below the list to be worth looking at, borders included.
const ROOM_BELOW: u16 = 12;

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let rows = tab_engines::rows(state);
    let selected = tab_engines::selected(state, &rows);
    let (mut list, mut detail) = split_detail(state, area, selected.is_some());
    // Few engines leave room for the details below them on a narrow screen.
    let high = cells(rows.len()).saturating_add(3);
    if detail.is_none() && selected.is_some() && area.height.saturating_sub(high) >= ROOM_BELOW {
        list = Some(Rect { height: high, ..area });
        detail = Some(below(area, high));
    }
    if let Some(list) = list {
        let title = panel_title(state, "tab.engines", rows.len(), Some(state.world.engines.len()));
        let inside = painter.panel_with(list, &title.parts(), Emphasis::when(state.detail == Detail::Closed));
        if rows.is_empty() {
            empty(state, painter, inside, state.world.engines.len(), &["engines.empty", "engines.empty_hint"]);
        } else {
            draw_table(state, painter, inside, &rows, selected);
        }
    }
    if let (Some(area), Some(at)) = (detail, selected) {
        draw_detail(state, painter, area, rows[at]);
    }
}

/// The sign, the word and the colour of a state.
#[must_use]
pub fn state_signs(symbols: &Symbols, state: &EngineState) -> (&'static str, &'static str, Role) {
    match state {
        EngineState::InstalledOnly => (symbols.off, "engine.installed", Role::Muted),
        EngineState::Unchecked => (symbols.unknown, "engine.unchecked", Role::Muted),
        EngineState::RunningHealthy { .. } => (symbols.ok, "engine.healthy", Role::Ok),
        EngineState::RunningDegraded { .. } => (symbols.warn, "engine.degraded", Role::Warn),
        EngineState::ErrorNetwork { .. } => (symbols.error, "engine.unreachable", Role::Error),
        EngineState::ErrorApi { .. } => (symbols.error, "engine.api_error", Role::Error),
    }
}

fn draw_table(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&EngineView], selected: Option<usize>) {
    let say = |key| state.words.say(key);
    let columns = [
        Column::text(say("column.state"), Width::Exact(15), 0),
        Column::text(say("column.engine"), Width::Share { min: 14, weight: 2 }, 0),
        Column::text(say("column.kind"), Width::Exact(9), 3),
        Column::text(say("column.version"), Width::Share { min: 9, weight: 1 }, 6),
        Column::number(say("column.models"), 6, 2),
        Column::number(say("column.in_flight"), 6, 4),
        Column::number(say("column.latency"), 8, 1),
        Column::text(say("column.trend"), Width::Exact(20), 5),
    ];
    let symbols = painter.symbols;
    let table = Table { list: ListId::Engines, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw(painter, area, &table, |index, column| {
        let engine = rows[index];
        match column {
            0 => {
                let (sign, word, role) = state_signs(symbols, &engine.state);
                Cell::new(format!("{sign} {}", state.words.say(word)), role)
            }
            1 => match engine.record.origin {
                EngineOrigin::Demo => Cell::new(format!("{} DEMO", engine.record.id), Role::Text),
                _ => Cell::new(engine.record.id.to_string(), Role::Text),
            },
            2 => Cell::outside(engine.record.kind.as_str(), Role::Muted),
            3 => Cell::outside(engine.version.as_deref().unwrap_or(symbols.off), Role::Muted),
            4 => Cell::new(models(engine), Role::Text),
            5 if engine.queued > 0 => Cell::new(format!("{}+{}", engine.in_flight, engine.queued), Role::Warn),
            5 => Cell::new(engine.in_flight.to_string(), if engine.in_flight > 0 { Role::Accent } else { Role::Faint }),
            6 => match engine.state.latency_ms() {
                Some(ms) => Cell::new(text::millis(f64::from(ms)), Role::Text),
                None => Cell::new(symbols.off, Role::Faint),
            },
            _ => Cell::new(chart::spark(symbols, &engine.latency_history, 20), Role::Chart),
        }
    });
}

/// Waiting requests that are shown one by one.
const QUEUE_SHOWN: usize = 5;

fn models(engine: &EngineView) -> String {
    match engine.models_loaded {
        Some(loaded) => format!("{loaded}/{}", engine.models),
        None => engine.models.to_string(),
    }
}

fn draw_detail(state: &State, painter: &mut Painter<'_>, area: Rect, engine: &EngineView) {
    let inside = painter.panel(area, engine.record.id.as_str(), Emphasis::when(state.detail == Detail::Open));
    let inside = inset(inside, 1);
    let (sign, word, role) = state_signs(painter.symbols, &engine.state);
    let off = painter.symbols.off.to_owned();
    let checked = engine.checked.map_or_else(|| off.clone(), |at| painter.words.time(at));
    let latency = engine.state.latency_ms().map_or_else(|| off.clone(), |ms| text::millis(f64::from(ms)));
    let origin = match engine.record.origin {
        EngineOrigin::Detected => "engine.detected",
        EngineOrigin::Manual => "engine.manual",
        EngineOrigin::Demo => "engine.demo",
    };
    let capabilities: Vec<_> = engine.capabilities.iter().map(|c| painter.say(capability(*c))).collect();
    let pairs: Vec<(&'static str, String, Role)> = vec![
        ("column.state", format!("{sign} {}", painter.say(word)), role),
        ("engine.url", escape(&engine.record.url).into_owned(), Role::Text),
        ("column.kind", escape(engine.record.kind.as_str()).into_owned(), Role::Text),
        ("column.version", escape(engine.version.as_deref().unwrap_or(&off)).into_owned(), Role::Text),
        ("column.models", models(engine), Role::Text),
        ("engine.slots", running(painter, engine), if engine.queued > 0 { Role::Warn } else { Role::Text }),
        ("column.latency", latency, Role::Text),
        ("engine.checked", checked, Role::Text),
        ("engine.origin", painter.say(origin).into_owned(), Role::Text),
        ("engine.key_variable", engine.record.api_key_env.clone().unwrap_or(off), Role::Text),
    ];
    // Capabilities, a reason and a chart worth looking at stand below.
    let mut y = painter.pairs(inside, inside.height.saturating_sub(9), &pairs);
    let label_cells = pairs.iter().map(|(key, ..)| text::width(&painter.say(key))).max().unwrap_or(0);
    let label = painter.say("engine.capabilities");
    painter.text(row(inside, y), &label, Role::Muted);
    let place = Rect { x: inside.x + cells(label_cells) + 1, ..below(inside, y) };
    let place = Rect { width: inside.right().saturating_sub(place.x), ..place };
    y += painter.paragraph(place, &capabilities.join(", "), Role::Text).max(1);
    if let Some(reason) = reason(&engine.state) {
        y += painter.paragraph(below(inside, y + 1), &escape(reason), role) + 1;
    }
    if on_this_machine(engine) {
        y += draw_gpus(state, painter, below(inside, y), cells(label_cells) + 1);
    }
    y += draw_queue(state, painter, below(inside, y + 1), engine);
    draw_chart(state, painter, below(inside, y + 1), engine);
}

/// Whether the machine's graphics processors are this engine's.
fn on_this_machine(engine: &EngineView) -> bool {
    let loopback = ["//127.", "//localhost", "//[::1]"];
    match engine.record.origin {
        EngineOrigin::Detected => true,
        EngineOrigin::Manual => loopback.iter().any(|host| engine.record.url.contains(host)),
        EngineOrigin::Demo => false,
    }
}

/// Graphics processors that are shown one by one.
const GPUS_SHOWN: usize = 4;

/// What each driver tells, figures first since names are long; answers the lines that it took.
fn draw_gpus(state: &State, painter: &mut Painter<'_>, area: Rect, indent: u16) -> u16 {
    let gpus = &state.world.gpus;
    if gpus.is_empty() || area.width <= indent {
        return 0;
    }
    let label = painter.say("engine.gpu");
    painter.text(row(area, 0), &label, Role::Muted);
    let place = Rect { x: area.x + indent, width: area.width - indent, ..area };
    for (line, gpu) in gpus.iter().take(GPUS_SHOWN).enumerate() {
        let memory = match (gpu.memory_used, gpu.memory_total) {
            (Some(used), Some(total)) => {
                painter.words.fill("engine.gpu_memory", &[("used", &text::bytes(used)), ("total", &text::bytes(total))])
            }
            (_, Some(total)) => text::bytes(total),
            _ => String::new(),
        };
        let busy = gpu.busy.map(|busy| format!("{busy:>3} %")).unwrap_or_default();
        let celsius = gpu.celsius.map(|celsius| format!("{celsius} {}", painter.symbols.celsius)).unwrap_or_default();
        let name = escape(&gpu.name);
        let told = [busy.as_str(), &memory, &celsius, &name].into_iter().filter(|part| !part.is_empty());
        painter.text(row(place, cells(line)), &told.collect::<Vec<_>>().join("  "), Role::Text);
    }
    cells(gpus.len().min(GPUS_SHOWN))
}

/// Requests that run, of how many that may, and those that wait.
fn running(painter: &Painter<'_>, engine: &EngineView) -> String {
    let (running, slots) = (engine.in_flight.to_string(), engine.slots.to_string());
    match engine.queued {
        0 => painter.words.fill("engine.slots_used", &[("running", &running), ("slots", &slots)]),
        queued => painter
            .words
            .fill("engine.slots_queue", &[("running", &running), ("slots", &slots), ("queued", &queued.to_string())]),
    }
}

/// Who waits for a slot, first served first; answers the lines that it took.
fn draw_queue(state: &State, painter: &mut Painter<'_>, area: Rect, engine: &EngineView) -> u16 {
    let load = state.world.load.iter().find(|load| load.engine == engine.record.id);
    let waiting = load.map(|load| load.waiting.as_slice()).unwrap_or_default();
    if waiting.is_empty() || area.height < 3 {
        return 0;
    }
    let title = painter.say("engine.queue");
    painter.text(row(area, 0), &title, Role::Muted);
    let mut line = 1;
    for (place, one) in waiting.iter().enumerate().take(QUEUE_SHOWN) {
        let keys = state.world.keys.value.as_deref().unwrap_or_default();
        let label = keys.iter().find(|key| key.id == one.key).map_or(one.key.as_str(), |key| key.label.as_str());
        let since = painter.words.time(one.since);
        let text = painter.words.fill(
            "engine.queue_line",
            &[("place", &(place + 1).to_string()), ("key", &escape(label)), ("since", &since)],
        );
        painter.text(row(area, line), &text, Role::Text);
        line += 1;
    }
    line + 1
}

fn reason(state: &EngineState) -> Option<&str> {
    match state {
        EngineState::RunningDegraded { reason, .. }
        | EngineState::ErrorNetwork { reason, .. }
        | EngineState::ErrorApi { reason } => Some(reason),
        _ => None,
    }
}

/// Latency over time, and below it which part of the checks failed.
fn draw_chart(state: &State, painter: &mut Painter<'_>, area: Rect, engine: &EngineView) {
    if area.height < 3 {
        return;
    }
    let history = state.world.health.get(&engine.record.id);
    let read = history.and_then(|page| page.value.as_ref()).filter(|points| !points.is_empty());
    let (points, title) = match read {
        Some(points) => {
            let span = match state.engines.span {
                ChartSpan::Hour => "engine.chart_hour",
                ChartSpan::Day => "engine.chart_day",
                ChartSpan::Week => "engine.chart_week",
            };
            (in_span(points, state.now, state.engines.span), span)
        }
        None => (recent(&engine.latency_history), "engine.chart_recent"),
    };
    let failed = points.iter().filter(|(_, point)| *point == Point::Failed).count();
    let title = painter.say(title);
    painter.text(row(area, 0), &title, Role::Muted);
    let failures = painter
        .words
        .fill("engine.failed_checks", &[("failed", &failed.to_string()), ("count", &points.len().to_string())]);
    painter.right(row(area, 0), &failures, if failed > 0 { Role::Warn } else { Role::Faint });
    let plot = below(area, 1);
    // Errors have a line of their own where there is room for both.
    let errors = if plot.height >= 5 { 2 } else { 0 };
    let plot = Rect { height: plot.height.saturating_sub(errors).min(10), ..plot };
    let columns = chart::plot_width(plot, &values(&points), text::millis);
    let (latencies, rates) = chart::by_place(&points, columns);
    chart::area(painter, plot, &latencies, text::millis);
    if errors > 0 {
        draw_errors(painter, below(area, 1 + plot.height), &rates);
    }
}

fn values(points: &[(f64, Point)]) -> Vec<Point> {
    points.iter().map(|(_, point)| *point).collect()
}

/// Which part of the checks failed, under the same columns as the chart of latencies.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn draw_errors(painter: &mut Painter<'_>, area: Rect, rates: &[Option<f64>]) {
    let known: Vec<f64> = rates.iter().copied().flatten().collect();
    #[expect(clippy::cast_precision_loss, reason = "columns of a screen")]
    let mean = if known.is_empty() { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    let title = painter.words.fill("engine.error_rate", &[("percent", &text::rate(mean * 100.0))]);
    painter.text(row(area, 0), &title, if mean > 0.0 { Role::Warn } else { Role::Muted });
    let line = row(area, 1);
    let x = line.right().saturating_sub(cells(rates.len()));
    for (number, rate) in rates.iter().enumerate() {
        let place = Rect { x: x + cells(number), width: 1, ..line };
        match rate {
            None => {}
            Some(rate) if *rate > 0.0 => {
                let level = ((rate * 8.0).ceil() as usize).clamp(1, 8);
                painter.text(place, painter.symbols.levels[level], Role::Error);
            }
            Some(_) => {
                painter.text(place, painter.symbols.empty, Role::Faint);
            }
        }
    }
}

/// Checks with their place in the span, 0 being its beginning and 1 now.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a week")]
fn in_span(points: &[HealthPoint], now: UnixMillis, span: ChartSpan) -> Vec<(f64, Point)> {
    let length = span.duration().as_millis() as f64;
    let point = |ms: Option<u32>| ms.map_or(Point::Failed, |ms| Point::Value(f64::from(ms)));
    let place = |at: UnixMillis| 1.0 - now.since(at).as_millis() as f64 / length;
    points.iter().map(|check| (place(check.at), point(check.latency_ms))).filter(|(place, _)| *place >= 0.0).collect()
}

/// The last checks, whose times are not known, one beside the other.
#[expect(clippy::cast_precision_loss, reason = "60 checks")]
fn recent(history: &[u32]) -> Vec<(f64, Point)> {
    let count = history.len().max(1) as f64;
    let point = |ms: u32| if ms == 0 { Point::Failed } else { Point::Value(f64::from(ms)) };
    (0_u32..).zip(history).map(|(number, ms)| ((f64::from(number) + 0.5) / count, point(*ms))).collect()
}

/// The key of a capability's name.
#[must_use]
pub fn capability(capability: Capability) -> &'static str {
    match capability {
        Capability::Chat => "capability.chat",
        Capability::Completions => "capability.completions",
        Capability::Stream => "capability.stream",
        Capability::Embeddings => "capability.embeddings",
        Capability::Tools => "capability.tools",
        Capability::Reasoning => "capability.reasoning",
        Capability::Vision => "capability.vision",
        Capability::AudioIn => "capability.audio_in",
        Capability::AudioOut => "capability.audio_out",
        Capability::Images => "capability.images",
        Capability::Rerank => "capability.rerank",
    }
}
