//! The machine's firewall: what it would be told, put in force with a countdown, confirmed, taken back, and its log.
//!
//! Opened from the Proxy tab, and a step of going public. Knows only what it asked for itself.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::effect::Ticket;
use crate::tui::geometry::{ListGeometry, ListId};
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, Stays, form};
use crate::tui::signs::told_within;
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::{popup, table};
use crate::types::calls::firewall::{
    DecideFirewall, Decision, FirewallPreview, PreviewFirewall, RecordFirewall, ShowFirewall,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{Failure, Outcome};
use crate::types::firewall::{
    DEADLINE_SECONDS, Exactness, FirewallDone, FirewallOrder, FirewallPhase, FirewallStatus, FirewallStep, Lasting,
    Reach, Watch,
};
use crate::types::text::escape;

/// Rows above the text: facts and what is in force.
const HEAD: u16 = 6;

/// Columns of the box, where the screen has them.
const WIDTH: u16 = 100;

/// Milliseconds between two looks while a change waits: somebody may answer it elsewhere.
const LOOK_AGAIN_MS: i64 = 1000;

/// What the text below the facts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Page {
    /// What would be done, and how it is taken back.
    #[default]
    Rules,
    /// What was done.
    Log,
}

/// What can be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Keep,
    TakeBack,
    Apply,
    RollBack,
    Turn,
    Close,
}

/// The box.
#[derive(Debug, Default)]
pub struct Firewall {
    preview: Option<Outcome<FirewallPreview>>,
    status: Option<FirewallStatus>,
    page: Page,
    scrolled: usize,
    focus: usize,
    /// The step that runs as root, or the answer to a pending change, on its way.
    working: Option<Ticket>,
    /// Why it is not known what is in force.
    unknown: Option<Failure>,
    /// When the status was last asked for.
    looked: UnixMillis,
}

/// Opens it and reads what there is.
pub fn open(state: &mut State) {
    state.read(PreviewFirewall { system: None, backend: None, ssh: state.ssh });
    state.read(ShowFirewall {});
    let firewall = Firewall { looked: state.now, ..Firewall::default() };
    overlays::open(state, Overlay::Firewall(Box::new(firewall)));
}

/// The open box.
fn find(state: &mut State) -> Option<&mut Firewall> {
    state.overlays.iter_mut().rev().find_map(|overlay| match overlay {
        Overlay::Firewall(firewall) => Some(&mut **firewall),
        _ => None,
    })
}

/// Takes what the firewall would be told.
pub fn take_preview(state: &mut State, outcome: Outcome<FirewallPreview>) {
    if let Some(firewall) = find(state) {
        firewall.preview = Some(outcome);
    }
}

/// Takes what is in force.
pub fn take_status(state: &mut State, outcome: Outcome<FirewallStatus>) {
    match outcome {
        Ok(status) => {
            if let Some(firewall) = find(state) {
                firewall.status = Some(status);
                firewall.unknown = None;
                firewall.focus = firewall.focus.min(firewall.deeds().len() - 1);
            }
        }
        Err(failure) => match find(state) {
            Some(firewall) if firewall.status.is_none() => firewall.unknown = Some(failure),
            _ => state.complain(&failure),
        },
    }
}

/// Takes the answer to a decision about a pending change.
pub fn take_decision(state: &mut State, decision: Decision, outcome: Outcome<FirewallStatus>) {
    settle(state);
    if outcome.is_ok() {
        let key = match decision {
            Decision::Keep => "firewall.toast_kept",
            Decision::TakeBack => "firewall.toast_taken_back",
        };
        state.toast(Level::Ok, state.words.say(key).into_owned());
    }
    take_status(state, outcome);
}

/// Takes what the step that ran as root did: it is written into the audit log, and what is in force is read again.
pub fn take_done(state: &mut State, outcome: Outcome<FirewallDone>) {
    settle(state);
    match outcome {
        Ok(done) => {
            let (level, key) = match done {
                FirewallDone::Applied { .. } => (Level::Warn, "firewall.toast_applied"),
                FirewallDone::Unchanged => (Level::Info, "firewall.toast_unchanged"),
                FirewallDone::TakenBack { exactness: Exactness::Exact } => (Level::Ok, "firewall.toast_taken_back"),
                FirewallDone::TakenBack { exactness: Exactness::OthersChanged } => {
                    (Level::Warn, "firewall.toast_others")
                }
                FirewallDone::NothingToTakeBack => (Level::Info, "firewall.toast_nothing"),
            };
            state.toast(level, state.words.say(key).into_owned());
            state.read(RecordFirewall { done });
        }
        Err(failure) => {
            state.complain(&failure);
            state.read(ShowFirewall {});
        }
    }
}

fn settle(state: &mut State) {
    if let Some(firewall) = find(state) {
        firewall.working = None;
    }
}

/// Looks again while a change waits for its answer.
pub fn tick(state: &mut State) {
    let now = state.now;
    let Some(firewall) = find(state) else { return };
    if firewall.pending().is_some() && now.0.saturating_sub(firewall.looked.0) >= LOOK_AGAIN_MS {
        firewall.looked = now;
        state.read(ShowFirewall {});
    }
}

/// Whether a countdown is on the screen.
#[must_use]
pub fn counts_down(state: &State) -> bool {
    state.overlays.iter().any(|overlay| matches!(overlay, Overlay::Firewall(firewall) if firewall.pending().is_some()))
}

impl Firewall {
    fn pending(&self) -> Option<UnixMillis> {
        self.status.as_ref().filter(|status| status.watch == Watch::Watched)?.pending_until()
    }

    fn deeds(&self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if self.pending().is_some() {
            deeds.extend([Deed::Keep, Deed::TakeBack]);
        } else {
            deeds.push(Deed::Apply);
            // What nobody watches over any more is taken back by the same step as what was confirmed.
            if self.status.as_ref().is_some_and(|status| status.in_force.is_some() || status.pending_until().is_some())
            {
                deeds.push(Deed::RollBack);
            }
        }
        deeds.extend([Deed::Turn, Deed::Close]);
        deeds
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let deeds = self.deeds();
        let page = state.geometry.page(ListId::Overlay);
        let most = self.lines(state).len().saturating_sub(page);
        let named = |wanted: Deed| deeds.iter().position(|deed| *deed == wanted);
        let chosen = match key.code {
            KeyCode::Up | KeyCode::Char('k') => {
                self.scrolled = self.scrolled.min(most).saturating_sub(1);
                None
            }
            KeyCode::Down | KeyCode::Char('j') => {
                self.scrolled = (self.scrolled + 1).min(most);
                None
            }
            KeyCode::PageUp => {
                self.scrolled = self.scrolled.min(most).saturating_sub(page);
                None
            }
            KeyCode::PageDown => {
                self.scrolled = (self.scrolled + page).min(most);
                None
            }
            KeyCode::Tab | KeyCode::Right => {
                self.focus = (self.focus + 1) % deeds.len();
                None
            }
            KeyCode::BackTab | KeyCode::Left => {
                self.focus = (self.focus + deeds.len() - 1) % deeds.len();
                None
            }
            KeyCode::Enter => Some(self.focus.min(deeds.len() - 1)),
            KeyCode::Char('a') => named(Deed::Apply),
            KeyCode::Char('y') => named(Deed::Keep),
            KeyCode::Char('n') => named(Deed::TakeBack),
            KeyCode::Char('b') => named(Deed::RollBack),
            KeyCode::Char('l') => named(Deed::Turn),
            KeyCode::Char('q') => named(Deed::Close),
            _ => None,
        };
        chosen.map_or(Stays::Open, |button| self.choose(state, button))
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        let Some(deed) = self.deeds().get(button).copied() else { return Stays::Open };
        let is_busy = self.working.is_some_and(|ticket| state.pending.contains_key(&ticket));
        match deed {
            Deed::Close => return Stays::Closed,
            Deed::Turn => {
                self.page = if self.page == Page::Rules { Page::Log } else { Page::Rules };
                self.scrolled = 0;
            }
            _ if is_busy => {}
            // The demo is no machine of anybody's.
            _ if state.world.status.as_ref().is_some_and(|status| status.demo) => {
                state.toast(Level::Warn, state.words.say("firewall.not_in_demo").into_owned());
            }
            Deed::Keep => self.working = Some(state.call(DecideFirewall { decision: Decision::Keep })),
            Deed::TakeBack => self.working = Some(state.call(DecideFirewall { decision: Decision::TakeBack })),
            Deed::Apply => {
                let (Some(Ok(preview)), Some(status)) = (&self.preview, &self.status) else { return Stays::Open };
                let step = FirewallStep::Apply {
                    backend: preview.backend.clone(),
                    plan: preview.plan.clone(),
                    deadline_seconds: DEADLINE_SECONDS,
                };
                let order = FirewallOrder { folder: status.folder.clone(), step };
                self.working = Some(state.call(order));
            }
            Deed::RollBack => {
                let Some(status) = &self.status else { return Stays::Open };
                let step = FirewallStep::Rollback { reach: Reach::Last };
                let order = FirewallOrder { folder: status.folder.clone(), step };
                let body = state.words.say("firewall.roll_back_body").into_owned();
                let then = Then::call(order);
                let confirm = Confirm::new("firewall.roll_back_title", body, "firewall.roll_back", then);
                overlays::open(state, Overlay::Confirm(confirm));
            }
        }
        Stays::Open
    }

    /// What is in force, as one line.
    fn phase(&self, state: &State) -> (String, Role) {
        let say = |key| state.words.say(key).into_owned();
        let Some(status) = &self.status else {
            let reading = (say("firewall.reading"), Role::Muted);
            return self.unknown.as_ref().map_or(reading, |why| (escape(&why.message).into_owned(), Role::Error));
        };
        if let Some(until) = self.pending() {
            let left = until.since(state.now).as_millis().div_ceil(1000).to_string();
            return (state.words.fill("firewall.pending", &[("seconds", &left)]), Role::Warn);
        }
        match status.last.as_ref().map(|last| &last.phase) {
            None => (say("firewall.untouched"), Role::Popup),
            Some(FirewallPhase::Gone) => (say("firewall.gone"), Role::Warn),
            Some(FirewallPhase::Pending { .. }) => (say("firewall.unwatched"), Role::Error),
            Some(FirewallPhase::Stuck { why, .. }) => {
                (state.words.fill("firewall.stuck", &[("why", &escape(why))]), Role::Error)
            }
            Some(FirewallPhase::InForce { since }) => {
                let lasting = status.last.as_ref().map(|last| last.lasting).unwrap_or_default();
                let (key, role) = match lasting {
                    Lasting::OverRestarts => ("firewall.in_force", Role::Ok),
                    Lasting::UntilRestart => ("firewall.in_force_until_restart", Role::Warn),
                };
                (state.words.fill(key, &[("time", &state.words.date_time(*since))]), role)
            }
            Some(FirewallPhase::TakenBack { at, exactness, .. }) => {
                let key = match exactness {
                    Exactness::Exact => "firewall.taken_back",
                    Exactness::OthersChanged => "firewall.taken_back_others",
                };
                (state.words.fill(key, &[("time", &state.words.date_time(*at))]), Role::Popup)
            }
        }
    }

    fn lines(&self, state: &State) -> Vec<(String, Role)> {
        let outside = |text: &str, role: Role| -> Vec<(String, Role)> {
            text.lines().map(|line| (escape(line).into_owned(), role)).collect()
        };
        // Inside frame and margins; commands stay in one piece.
        let width = usize::from(state.size.0.saturating_sub(2).min(WIDTH).saturating_sub(4));
        match (self.page, &self.preview, &self.status) {
            (Page::Rules, Some(Ok(preview)), _) => {
                let notes = preview.notes.iter().flat_map(|note| text::wrap(&escape(note), width.saturating_sub(2)));
                let mut lines: Vec<_> = notes.map(|line| (format!("# {line}"), Role::Muted)).collect();
                lines.push((format!("# {}", state.words.say("firewall.would_apply")), Role::Accent));
                lines.extend(outside(&preview.apply, Role::Popup));
                lines.push((format!("# {}", state.words.say("firewall.would_roll_back")), Role::Accent));
                lines.extend(outside(&preview.rollback, Role::Popup));
                lines
            }
            (Page::Rules, Some(Err(failure)), _) => told_within(failure, width),
            (Page::Log, _, Some(status)) if !status.log.is_empty() => {
                let newest = status.log.iter().rev();
                let line = |time: UnixMillis, text: &str| format!("{}  {}", state.words.date_time(time), escape(text));
                newest.map(|entry| (line(entry.at, &entry.text), Role::Popup)).collect()
            }
            (Page::Log, _, Some(_)) => vec![(state.words.say("firewall.log_empty").into_owned(), Role::Muted)],
            (Page::Log, _, None) if self.unknown.is_some() => {
                self.unknown.as_ref().map(|failure| told_within(failure, width)).unwrap_or_default()
            }
            _ => vec![(state.words.say("firewall.reading").into_owned(), Role::Muted)],
        }
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let title = painter.say("firewall.title");
        let area = popup::open(painter, screen, &title, WIDTH, screen.height.saturating_sub(2).min(32));
        self.draw_inside(state, painter, area);
    }

    /// Draws what is in the box, for a box of another name too.
    pub fn draw_inside(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        if let Some(Ok(preview)) = &self.preview {
            let everyone = painter.say("firewall.everyone").into_owned();
            let list = |items: Vec<String>, none: String| if items.is_empty() { none } else { items.join(", ") };
            let plan = &preview.plan;
            let ports = list(plan.ports.iter().map(ToString::to_string).collect(), String::new());
            let from = list(plan.networks.iter().map(ToString::to_string).collect(), everyone);
            let none = painter.say("firewall.no_ssh").into_owned();
            let ssh = list(plan.ssh.iter().map(|ssh| ssh.from.to_string()).collect(), none);
            let facts = [
                ("firewall.backend", preview.backend.clone(), Role::Popup),
                ("firewall.ports", ports, Role::Popup),
                ("firewall.from", from, if plan.networks.is_empty() { Role::Warn } else { Role::Popup }),
                ("firewall.ssh", ssh, Role::Popup),
            ];
            painter.pairs(area, 4, &facts);
        }
        let (phase, role) = self.phase(state);
        let line = row(area, 4);
        painter.paragraph(Rect { height: 2.min(area.height), ..line }, &phase, role);
        if self.working.is_some_and(|ticket| state.pending.contains_key(&ticket)) {
            painter.right(line, form::spinner(state), Role::Info);
        }
        let body = Rect { y: area.y + HEAD, height: area.height.saturating_sub(HEAD + 2), ..area };
        let lines = self.lines(state);
        let page = usize::from(body.height);
        let scrolled = self.scrolled.min(lines.len().saturating_sub(page));
        painter.geometry.lists.insert(ListId::Overlay, ListGeometry { offset: scrolled, page, base: 0 });
        for (number, (text, role)) in lines.iter().skip(scrolled).take(page).enumerate() {
            painter.text(row(body, cells(number)), text, *role);
        }
        table::scroll_bar(painter, Rect { width: body.width + 1, ..body }, scrolled, page, lines.len());
        let labels: Vec<_> = self.deeds().iter().map(|deed| painter.say(self.label(*deed))).collect();
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &labels, Some(self.focus));
    }

    fn label(&self, deed: Deed) -> &'static str {
        match deed {
            Deed::Keep => "firewall.keep",
            Deed::TakeBack => "firewall.take_back",
            Deed::Apply => "firewall.apply",
            Deed::RollBack => "firewall.roll_back",
            Deed::Turn if self.page == Page::Rules => "firewall.show_log",
            Deed::Turn => "firewall.show_rules",
            Deed::Close => "button.close",
        }
    }
}
