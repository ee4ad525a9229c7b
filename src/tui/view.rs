//! `(&State, &mut Frame) -> Geometry`: the whole screen. Header, tabs, the tab in front, hints, boxes, toasts.
//!
//! Called by the loop when something visible changed, and by tests on a buffer. Must never change the state.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::tui::ConsoleAccess;
use crate::tui::action::{COMMANDS, Command, CommandRow, Safety};
use crate::tui::geometry::{Geometry, Target};
use crate::tui::overlays::form::spinner;
use crate::tui::overlays::{self, toasts};
use crate::tui::signs::unread;
use crate::tui::state::{Detail, PendingShown, SMALLEST, State, Typing};
use crate::tui::tabs::Tab;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::chart;
use crate::tui::widgets::painter::{Emphasis, Painter, cells, row};
use crate::tui::widgets::popup;
use crate::tui::window::{Listed, Standing, Window};
use crate::tui::world::{Link, Page};
use crate::types::egress::EgressState;
use crate::types::listener::{ListenerPhase, Overload};
use crate::types::text::escape;

/// Draws the screen into a frame and answers where things are.
pub fn view(state: &State, frame: &mut Frame<'_>) -> Geometry {
    let area = frame.area();
    let geometry = draw(state, frame.buffer_mut(), area);
    if let Some(cursor) = geometry.cursor {
        frame.set_cursor_position(cursor);
    }
    geometry
}

/// Draws the screen into a buffer and answers where things are.
pub fn draw(state: &State, buffer: &mut Buffer, area: Rect) -> Geometry {
    let mut painter = Painter {
        buffer,
        theme: &state.theme,
        symbols: state.symbols(),
        words: &state.words,
        geometry: Geometry::default(),
        before: &state.geometry,
    };
    painter.tint(area, Role::Text);
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        draw_too_small(&mut painter, area);
        return painter.geometry;
    }
    let footer = row(area, area.height - 1);
    let header = draw_header(state, &mut painter, area);
    let body = Rect { y: area.y + header + 1, height: area.height - header - 2, ..area };
    draw_tabs(state, &mut painter, row(area, header));
    state.tab.draw(state, &mut painter, body);
    draw_footer(state, &mut painter, footer);
    // Toasts lie over the tab and under boxes, which want an answer.
    toasts::draw(state, &mut painter, body);
    overlays::draw(state, &mut painter, area);
    painter.geometry
}

fn draw_too_small(painter: &mut Painter<'_>, area: Rect) {
    let now = format!("{}×{}", area.width, area.height);
    let least = format!("{}×{}", SMALLEST.0, SMALLEST.1);
    let lines = [
        (painter.say("small.title").into_owned(), Role::Title),
        (painter.words.fill("small.sizes", &[("now", &now), ("least", &least)]), Role::Text),
        (painter.say("small.quit").into_owned(), Role::Muted),
    ];
    painter.message(area, &lines);
}

/// A part of the header, dropped when even two lines have no room for it and those that matter more.
struct Segment {
    priority: u8,
    parts: Vec<(String, Role)>,
}

impl Segment {
    fn new(priority: u8, parts: Vec<(String, Role)>) -> Self {
        Self { priority, parts }
    }

    fn width(&self) -> usize {
        self.parts.iter().map(|(part, _)| text::width(part)).sum::<usize>() + 3
    }
}

/// Draws the header on one line, or on two where it does not fit on one; answers how many it took.
fn draw_header(state: &State, painter: &mut Painter<'_>, area: Rect) -> u16 {
    let mut first = segments(state, painter);
    let room = usize::from(area.width) + 1;
    let whole: usize = first.iter().map(Segment::width).sum();
    if whole <= room {
        draw_segments(painter, row(area, 0), &first);
        return 1;
    }
    // Who and where above, how much below.
    let second = first.split_off(3.min(first.len()));
    draw_segments(painter, row(area, 0), &fitting(first, room));
    if second.is_empty() {
        return 1;
    }
    draw_segments(painter, row(area, 1), &fitting(second, room));
    2
}

/// Drops what matters least until the rest fits.
fn fitting(mut segments: Vec<Segment>, room: usize) -> Vec<Segment> {
    while segments.iter().map(Segment::width).sum::<usize>() > room {
        let last = (0..segments.len()).max_by_key(|at| segments[*at].priority);
        let Some(at) = last.filter(|at| segments[*at].priority > 0) else { break };
        segments.remove(at);
    }
    segments
}

fn draw_segments(painter: &mut Painter<'_>, line: Rect, segments: &[Segment]) {
    painter.clear(line, Role::Header);
    let mut x = line.x + 1;
    for (number, segment) in segments.iter().enumerate() {
        let rest = |x: u16| Rect { x, width: line.right().saturating_sub(x), ..line };
        if number > 0 {
            painter.text(rest(x + 1), painter.symbols.bar, Role::Border);
            x += 3;
        }
        for (part, role) in &segment.parts {
            x += painter.text(rest(x), part, *role);
        }
        if x >= line.right() {
            break;
        }
    }
}

fn segments(state: &State, painter: &Painter<'_>) -> Vec<Segment> {
    let symbols = painter.symbols;
    let say = |key| painter.say(key).into_owned();
    let mut marks = vec![("FLM".to_owned(), Role::Accent)];
    let demo = state.world.status.as_ref().is_some_and(|status| status.demo);
    if demo {
        marks.push((" ".to_owned(), Role::Header));
        marks.push((" DEMO ".to_owned(), Role::Badge));
    }
    if state.access == ConsoleAccess::ReadOnly || state.world.status.as_ref().is_some_and(|s| s.read_only.is_some()) {
        marks.push((" ".to_owned(), Role::Header));
        marks.push((format!(" {} ", say("header.read_only")), Role::Badge));
    }
    // Nobody may be left in the belief that everything goes through the proxy when it does not.
    match state.world.status.as_ref().map(|status| status.egress.state) {
        Some(EgressState::Unreachable) => {
            marks.push((" ".to_owned(), Role::Header));
            marks.push((format!(" {} ", say("header.egress_down")), Role::Badge));
        }
        Some(EgressState::FallenBack) => {
            marks.push((" ".to_owned(), Role::Header));
            marks.push((format!(" {} ", say("header.egress_open")), Role::Badge));
        }
        _ => {}
    }
    // Whoever sits here sees that prompts and answers are being kept (SPEC §10).
    if state.world.captures_until(state.now).is_some() {
        marks.push((" ".to_owned(), Role::Header));
        marks.push((format!(" {} ", say("header.capturing")), Role::Badge));
    }
    if let Some(overload) = state.world.status.as_ref().and_then(|status| status.overload) {
        marks.push((" ".to_owned(), Role::Header));
        marks.push((overload_words(painter, overload), Role::Error));
    }
    let simulating = state.world.status.as_ref().map_or(0, |status| status.simulating.len());
    if simulating > 0 {
        // Nobody may be left in the belief that these rules guard anything.
        marks.push((" ".to_owned(), Role::Header));
        let told = painter.words.fill("header.simulating", &[("count", &simulating.to_string())]);
        marks.push((format!(" {told} "), Role::Badge));
    }
    let mut out = vec![Segment::new(0, marks)];
    let (sign, word, role) = proxy_signs(state);
    let mut proxy = vec![(format!("{sign} {}", say(word)), role)];
    let main = state.world.main_listener().map(|listener| listener.config.port);
    let listeners = state.world.status.iter().flat_map(|status| &status.listeners);
    let clear: Vec<u16> = listeners
        .filter(|listener| {
            listener.config.insecure_plain_http
                && !matches!(listener.phase, ListenerPhase::Stopped | ListenerPhase::Failed { .. })
        })
        .map(|listener| listener.config.port)
        .collect();
    if let Some(url) = state.world.base_url() {
        let in_clear = main.is_some_and(|port| clear.contains(&port));
        proxy.push((format!(" {}", escape(url)), if in_clear { Role::Error } else { Role::Header }));
    }
    match (clear.as_slice(), main) {
        ([], _) => {}
        ([only], Some(main)) if *only == main => proxy.push((format!(" {}", say("header.in_clear")), Role::Error)),
        // An encrypted listener in front must not hide that another one is not.
        (ports, _) => {
            let ports: Vec<String> = ports.iter().map(|port| format!(":{port}")).collect();
            proxy.push((format!(" {} {}", say("header.in_clear"), ports.join(" ")), Role::Error));
        }
    }
    out.push(Segment::new(0, proxy));
    if !matches!(state.world.link, Link::Live | Link::Ending) {
        return out;
    }
    let traffic = &state.world.traffic;
    let label = |value: String, key| {
        let words = format!(" {}", painter.words.fill(key, &[("count", &value)]));
        vec![(value, Role::Header), (words, Role::Muted)]
    };
    let unread = state.world.unread();
    let mut alerts = label(text::count(unread), "header.alerts");
    if unread > 0 {
        alerts[0].1 = Role::Error;
        out.push(Segment::new(1, alerts));
    } else {
        out.push(Segment::new(7, alerts));
    }
    let mut requests = label(text::rate(f64::from(traffic.requests_per_second)), "header.per_second");
    requests.push((format!(" {}", chart::spark(symbols, &traffic.history, 10)), Role::Chart));
    out.push(Segment::new(1, requests));
    let p95 = traffic.p95_ms.map_or_else(|| symbols.off.to_owned(), |ms| text::millis(f64::from(ms)));
    out.push(Segment::new(3, vec![("p95 ".to_owned(), Role::Muted), (p95, Role::Header)]));
    out.push(Segment::new(2, label(traffic.active_streams.to_string(), "header.streams")));
    out.push(Segment::new(4, label(text::rate(f64::from(traffic.tokens_per_second)), "header.tokens")));
    let mut blocked = label(traffic.blocked_last_hour.to_string(), "header.blocked");
    if traffic.blocked_last_hour > 0 {
        blocked[0].1 = Role::Warn;
    }
    out.push(Segment::new(5, blocked));
    let missed = state.world.missed;
    if missed > 0 {
        out.push(Segment::new(
            8,
            vec![(painter.words.fill("header.missed", &[("count", &text::count(missed))]), Role::Warn)],
        ));
    }
    out
}

/// Why new work is refused (SPEC §5.8).
fn overload_words(painter: &Painter<'_>, overload: Overload) -> String {
    let free = |key, megabytes: u64| painter.words.fill(key, &[("free", &megabytes.to_string())]);
    match overload {
        Overload::Processor { percent } => {
            painter.words.fill("header.overload_processor", &[("percent", &percent.to_string())])
        }
        Overload::Memory { free_megabytes } => free("header.overload_memory", free_megabytes),
        Overload::ControlGroup { free_megabytes } => free("header.overload_group", free_megabytes),
    }
}

/// The sign, the word and the colour of the proxy's state.
#[must_use]
pub fn proxy_signs(state: &State) -> (&'static str, &'static str, Role) {
    let symbols = state.symbols();
    match &state.world.link {
        Link::Connecting => return (symbols.running, "proxy.connecting", Role::Info),
        Link::Lost { attempt: 0..=1, .. } if state.world.status.is_none() => {
            return (symbols.running, "proxy.connecting", Role::Info);
        }
        Link::Lost { .. } => return (symbols.warn, "proxy.reconnecting", Role::Warn),
        Link::Ending => return (symbols.warn, "proxy.ending", Role::Warn),
        Link::Live => {}
    }
    match state.world.main_listener().map(|listener| &listener.phase) {
        Some(ListenerPhase::Obtaining) => (symbols.running, "proxy.obtaining", Role::Info),
        Some(ListenerPhase::Running) => (symbols.ok, "proxy.running", Role::Ok),
        Some(ListenerPhase::Draining { .. }) => (symbols.warn, "proxy.draining", Role::Warn),
        Some(ListenerPhase::Failed { .. }) => (symbols.error, "proxy.failed", Role::Error),
        Some(ListenerPhase::Stopped) | None if state.proxy.starting.is_some() => {
            (symbols.running, "proxy.starting", Role::Info)
        }
        Some(ListenerPhase::Stopped) | None => (symbols.off, "proxy.stopped", Role::Muted),
    }
}

fn draw_tabs(state: &State, painter: &mut Painter<'_>, line: Rect) {
    let titles: Vec<_> = Tab::ALL.iter().map(|tab| painter.say(tab.title())).collect();
    // A number, a space, and one cell at each side.
    let tight: usize = titles.iter().map(|title| text::width(title) + 4).sum();
    let room = usize::from(line.width) - 1;
    let gap = u16::from(tight + Tab::ALL.len() <= room);
    let cut = tight > room;
    let mut x = line.x + 1;
    for (tab, title) in Tab::ALL.iter().zip(&titles) {
        let number = *tab as usize + 1;
        let title = if cut && *tab != state.tab { text::fit(title, 4, "") } else { title.as_ref().into() };
        let label = format!(" {number} {title} ");
        let width = cells(text::width(&label)).min(line.right().saturating_sub(x));
        let place = Rect { x, width, ..line };
        let role = if *tab == state.tab { Role::ButtonFocus } else { Role::Muted };
        painter.text(place, &label, role);
        painter.hit(place, Target::Tab(*tab));
        x = x.saturating_add(width + gap);
    }
}

fn draw_footer(state: &State, painter: &mut Painter<'_>, line: Rect) {
    painter.clear(line, Role::Footer);
    let filter = state.filter();
    if filter.typing == Typing::Yes {
        painter.text(Rect { x: line.x + 1, width: 2, ..line }, "/", Role::Key);
        let place = Rect { x: line.x + 3, width: line.width.saturating_sub(4), ..line };
        popup::input(painter, place, &filter.input, &painter.say("filter.hint"), Emphasis::Focused);
        return;
    }
    let mut room = line;
    let oldest = state.pending.values().filter(|p| p.shown == PendingShown::Spinner).map(|p| p.since).min();
    if let Some(since) = oldest {
        let note = format!(" {} {} ", spinner(state), text::span(state.now.since(since)));
        let used = painter.right(line, &note, Role::Info);
        room.width = room.width.saturating_sub(used + 1);
    }
    let mut x = line.x + 1;
    for row in hints(state) {
        let key = state.keymap.first(row.command);
        if key.is_empty() {
            continue;
        }
        let label = painter.say(row.text);
        let width = cells(text::width(&key) + text::width(&label) + 1);
        if x + width >= room.right() {
            continue;
        }
        let place = Rect { x, width, ..line };
        painter.parts(place, &[(&key, Role::Key), (" ", Role::Footer), (&label, Role::Footer)]);
        painter.hit(place, Target::Command(row.command));
        x += width + 2;
    }
}

/// The commands worth a hint here, the most useful first.
fn hints(state: &State) -> Vec<&'static CommandRow> {
    let contexts = state.tab.editor(state).map_or_else(|| state.tab.contexts(state), |editor| vec![editor]);
    let is_up = state.world.main_listener().is_some_and(|listener| listener.phase.is_up());
    let fits = |row: &&CommandRow| {
        row.hint > 0
            && contexts.contains(&row.context)
            && (state.access == ConsoleAccess::Full || row.safety == Safety::Looks)
            && match row.command {
                Command::StartProxy => !is_up,
                Command::StopProxy => is_up,
                _ => true,
            }
    };
    let mut rows: Vec<&CommandRow> = COMMANDS.iter().filter(fits).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.hint));
    rows
}

/// List and details beside each other on a wide screen, in turn on a narrow one.
#[must_use]
pub fn split_detail(state: &State, area: Rect, has_detail: bool) -> (Option<Rect>, Option<Rect>) {
    if !has_detail {
        return (Some(area), None);
    }
    if state.is_wide() {
        let right = (area.width * 2 / 5).clamp(44, 72);
        let list = Rect { width: area.width - right, ..area };
        let detail = Rect { x: area.x + list.width, width: right, ..area };
        return (Some(list), Some(detail));
    }
    match state.detail {
        Detail::Closed => (Some(area), None),
        Detail::Open => (None, Some(area)),
    }
}

/// The parts of a list's title: name, count, filter.
#[derive(Debug)]
pub struct PanelTitle {
    name: String,
    count: String,
    filter: String,
}

impl PanelTitle {
    /// The parts with their colours.
    #[must_use]
    pub fn parts(&self) -> [(&str, Role); 3] {
        [(&self.name, Role::Title), (&self.count, Role::Muted), (&self.filter, Role::Accent)]
    }
}

impl PanelTitle {
    /// The title of a list of which only a part is held: how many rows it has, or at least how many.
    #[must_use]
    pub fn of_part(state: &State, name: &'static str, held: usize, total: Option<u64>) -> Self {
        let count = match total {
            Some(total) => format!(" {}", text::count(total)),
            None if held == 0 => String::new(),
            None => format!(" {}+", text::count(u64::try_from(held).unwrap_or(u64::MAX))),
        };
        Self { count, ..panel_title(state, name, held, None) }
    }
}

/// The title of a list: its name, how many rows are shown of how many, once that is known, and the filter in force.
#[must_use]
pub fn panel_title(state: &State, name: &'static str, shown: usize, all: Option<usize>) -> PanelTitle {
    let count = match all {
        None => String::new(),
        Some(all) if shown == all => format!(" {all}"),
        Some(all) => format!(" {shown}/{all}"),
    };
    let filter = state.filter().input.text().trim();
    let filter = if filter.is_empty() { String::new() } else { format!(" /{filter}") };
    PanelTitle { name: state.words.say(name).into_owned(), count, filter }
}

/// Draws a frame whose title names all views of a tab and answers its inside. Behind the one in front stand count and
/// filter where it is a list.
pub fn views_panel(
    painter: &mut Painter<'_>,
    area: Rect,
    names: &[&'static str],
    front: usize,
    title: Option<&PanelTitle>,
    emphasis: Emphasis,
) -> Rect {
    let words: Vec<_> = names.iter().map(|name| painter.say(name)).collect();
    let bar = format!(" {} ", painter.symbols.bar);
    let mut parts: Vec<(&str, Role)> = Vec::with_capacity(2 * words.len() + 2);
    let mut hits = Vec::with_capacity(words.len());
    let mut x = area.x + 2;
    for (view, word) in words.iter().enumerate() {
        if view > 0 {
            parts.push((&bar, Role::Border));
            x += cells(text::width(&bar));
        }
        parts.push((word, if view == front { Role::Title } else { Role::Faint }));
        let mut width = cells(text::width(word));
        if let Some(title) = title.filter(|_| view == front) {
            let [_, count, filter] = title.parts();
            width += cells(text::width(count.0) + text::width(filter.0));
            parts.extend([count, filter]);
        }
        hits.push((Rect { x, width, ..row(area, 0) }, Target::View(view)));
        x += width;
    }
    let inside = painter.panel_with(area, &parts, emphasis);
    for (place, target) in hits {
        painter.hit(place, target);
    }
    inside
}

/// What a long list says of itself below its rows.
#[derive(Debug)]
pub struct ListNote {
    /// The key of the words while a page is read that the person waits for.
    pub reading: &'static str,
    /// What it does while things happen.
    pub standing: Standing,
    /// The command that goes back to what is newest.
    pub follow: Command,
}

/// Draws on the lower edge of a long list what is to be known of it: why it could not be read, or that it is being read, or
/// that it does not show what happens. One thing at a time, what matters most first.
pub fn list_note<R: Listed>(
    state: &State,
    painter: &mut Painter<'_>,
    area: Rect,
    (window, selected): (&Window<R>, Option<usize>),
    note: &ListNote,
) {
    if let Some(failure) = window.failure() {
        painter.foot_note(area, &escape(&failure.message), Role::Error);
    } else if window.keeps_waiting(selected) {
        let reading = painter.say(note.reading);
        painter.foot_note(area, &reading, Role::Info);
    } else if note.standing == Standing::Paused {
        let paused = painter.say("list.paused");
        painter.foot_note(area, &paused, Role::Warn);
    } else if note.standing == Standing::Stays && selected.is_some() {
        let key = state.keymap.first(note.follow);
        let stays = painter.words.fill("list.not_following", &[("key", &key)]);
        painter.foot_note(area, &stays, Role::Muted);
    }
}

/// Says inside a long list without rows why there are none; nothing while they are being read.
pub fn list_without_rows<R: Listed>(
    state: &State,
    painter: &mut Painter<'_>,
    inside: Rect,
    window: &Window<R>,
    (all, lines): (usize, &[&'static str]),
) {
    if let Some(failure) = window.failure() {
        painter.message(inside, &[(escape(&failure.message).into_owned(), Role::Error)]);
    } else if window.asked().is_none() {
        empty(state, painter, inside, all, lines);
    }
}

/// Says why the list of a page shows no row; what went wrong since it was read stands on its edge.
pub fn empty_page<T>(
    state: &State,
    painter: &mut Painter<'_>,
    area: Rect,
    page: &Page<T>,
    all: usize,
    lines: &[&'static str],
) {
    match unread(painter.words, page).filter(|_| state.is_live()) {
        Some(message) => painter.message(area, &message),
        None => empty(state, painter, area, all, lines),
    }
}

/// Draws on the lower edge of a list why it could not be read again.
pub fn stale<T>(painter: &mut Painter<'_>, area: Rect, page: &Page<T>) {
    if let (Some(_), Some(failure)) = (&page.value, &page.failure) {
        painter.foot_note(area, &escape(&failure.message), Role::Error);
    }
}

/// Says why a list is empty: not connected, filtered away, or truly empty.
pub fn empty(state: &State, painter: &mut Painter<'_>, area: Rect, all: usize, lines: &[&'static str]) {
    let (first, rest): (String, Vec<String>) = match &state.world.link {
        Link::Connecting => (painter.say("link.connecting").into_owned(), Vec::new()),
        Link::Lost { failure, .. } => {
            let hint = failure.hint.as_deref().map(|hint| escape(hint).into_owned());
            let again = painter.say("link.retrying").into_owned();
            (escape(&failure.message).into_owned(), hint.into_iter().chain([again]).collect())
        }
        _ if all > 0 => (painter.say("filter.nothing").into_owned(), vec![painter.say("filter.clear").into_owned()]),
        _ => {
            let mut said = lines.iter().map(|key| painter.say(key).into_owned());
            (said.next().unwrap_or_default(), said.collect())
        }
    };
    let mut message = vec![(first, Role::Text), (String::new(), Role::Text)];
    message.extend(rest.into_iter().map(|line| (line, Role::Muted)));
    painter.message(area, &message);
}
