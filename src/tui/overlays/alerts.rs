//! Alerts: the inbox, and the channels that tell others. A box over the tab, since alerts concern all of them.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::effect::{Bell, Effect, Notification};
use crate::tui::geometry::{ListId, Target};
use crate::tui::overlays::alert_form::{self, kind_key};
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, Stays};
use crate::tui::signs::{self, unread};
use crate::tui::state::State;
use crate::tui::tab_security;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::cursor::moved;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::popup;
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::alert::{AlertKind, ChannelState, ChannelView, InboxAlert};
use crate::types::audit::Severity;
use crate::types::calls::alerts::{ChannelChanges, EditAlertChannel, MarkRead, RemoveAlertChannel, TestAlertChannel};
use crate::types::text::escape;

/// What the box shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum View {
    /// Alerts that came.
    #[default]
    Inbox,
    /// Who else is told.
    Channels,
}

const VIEWS: [(View, &str); 2] = [(View::Inbox, "alerts.inbox"), (View::Channels, "alerts.channels")];

/// The box.
#[derive(Debug, Default)]
pub struct Alerts {
    view: View,
    alert: usize,
    channel: usize,
}

/// An alert came: the header counts it, and the terminal calls, as the setting says.
pub fn arrived(state: &mut State, alert: &InboxAlert) {
    let what = state.words.say(signs::kind(alert.kind));
    let count = text::count(alert.events);
    let news = state.words.fill("alerts.news", &[("count", &count), ("what", &what)]);
    let level = if alert.severity == Severity::Critical { Level::Error } else { Level::Warn };
    let key = state.keymap.first(Command::Alerts);
    let told = state.words.fill("alerts.toast", &[("news", &news), ("key", &key)]);
    state.toast(level, told);
    let settings = state.world.settings.value.as_deref().unwrap_or_default();
    let how = settings.iter().find(|setting| setting.key == "console.notify").map_or("both", |one| one.value.as_str());
    let (message, bell) = match how {
        "off" => return,
        "bell" => (None, Bell::Rings),
        "message" => (Some(news), Bell::Silent),
        _ => (Some(news), Bell::Rings),
    };
    state.ask(Effect::Notify(Notification { message: message.map(|news| format!("FLM: {news}")), bell }));
}

fn inbox(state: &State) -> &[InboxAlert] {
    state.world.inbox.value.as_ref().map_or(&[], |inbox| &inbox.alerts)
}

fn channels(state: &State) -> &[ChannelView] {
    state.world.channels.value.as_deref().unwrap_or_default()
}

impl Alerts {
    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let command = match key.code {
            KeyCode::Char('q' | '!') | KeyCode::F(3) => return Stays::Closed,
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right | KeyCode::Char('v' | 'h' | 'l') => {
                return self.show(usize::from(self.view == View::Inbox));
            }
            KeyCode::Up | KeyCode::Char('k') => Command::Up,
            KeyCode::Down | KeyCode::Char('j') => Command::Down,
            KeyCode::PageUp => Command::PageUp,
            KeyCode::PageDown => Command::PageDown,
            KeyCode::Home | KeyCode::Char('g') => Command::First,
            KeyCode::End | KeyCode::Char('G') => Command::Last,
            _ if self.view == View::Inbox => return self.press_inbox(state, key),
            _ => return self.press_channels(state, key),
        };
        let page = state.geometry.page(ListId::Overlay);
        match self.view {
            View::Inbox => self.alert = moved(self.alert, command, page, inbox(state).len()).unwrap_or(0),
            View::Channels => self.channel = moved(self.channel, command, page, channels(state).len()).unwrap_or(0),
        }
        Stays::Open
    }

    /// Shows one of its views.
    pub fn show(&mut self, view: usize) -> Stays {
        self.view = VIEWS.get(view).map_or(self.view, |(view, _)| *view);
        Stays::Open
    }

    /// Takes a click on a row; one on the selected row opens it.
    pub fn click(&mut self, state: &mut State, place: usize) -> Stays {
        let selected = match self.view {
            View::Inbox => &mut self.alert,
            View::Channels => &mut self.channel,
        };
        if std::mem::replace(selected, place) == place {
            return self.press(state, KeyEvent::from(KeyCode::Enter));
        }
        Stays::Open
    }

    fn press_inbox(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let selected = inbox(state).get(self.alert).map(|alert| (alert.number, alert.last, alert.read));
        match (key.code, selected) {
            (KeyCode::Enter, Some((number, sequence, read))) => {
                if read.is_none() && number != 0 {
                    mark_read(state, vec![number]);
                }
                if sequence == 0 {
                    // It could not be recorded, so there is no event to go to.
                    state.toast(Level::Warn, state.words.say("alerts.event_gone").into_owned());
                    return Stays::Open;
                }
                tab_security::jump(state, sequence);
                return Stays::Closed;
            }
            (KeyCode::Char('r' | ' '), Some((number, _, None))) if number != 0 => mark_read(state, vec![number]),
            (KeyCode::Char('R'), _) => mark_read(state, Vec::new()),
            _ => {}
        }
        Stays::Open
    }

    fn press_channels(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        if key.code == KeyCode::Char('a') {
            let form = alert_form::choose_kind(state);
            overlays::open(state, Overlay::Form(form));
            return Stays::Open;
        }
        let Some(channel) = channels(state).get(self.channel).cloned() else { return Stays::Open };
        let id = channel.id.clone();
        match key.code {
            KeyCode::Char('e') | KeyCode::Enter => {
                let form = alert_form::edit(state, &channel);
                overlays::open(state, Overlay::Form(form));
            }
            KeyCode::Char('t') => {
                state.call(TestAlertChannel { id });
            }
            KeyCode::Char(' ') => {
                let turned = match channel.rules.state {
                    ChannelState::On => ChannelState::Off,
                    ChannelState::Off => ChannelState::On,
                };
                let changes = Box::new(ChannelChanges { state: Some(turned), ..ChannelChanges::default() });
                state.call(EditAlertChannel { id, changes });
            }
            KeyCode::Char('x') | KeyCode::Delete => {
                let body = state.words.fill("alerts.remove_body", &[("id", id.as_str())]);
                let then = Then::call(RemoveAlertChannel { id });
                overlays::open(
                    state,
                    Overlay::Confirm(Confirm::new("alerts.remove_title", body, "button.remove", then)),
                );
            }
            _ => {}
        }
        Stays::Open
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let title = painter.say("alerts.title");
        let width = screen.width.saturating_sub(4).min(130);
        let area = popup::open(painter, screen, &title, width, screen.height.saturating_sub(4).min(34));
        self.draw_views(state, painter, row(area, 0));
        let body = Rect { y: area.y + 2, height: area.height.saturating_sub(5), ..area };
        // The table draws its marker and scroll bar beside its cells.
        let body = Rect { x: body.x.saturating_sub(1), width: body.width + 1, ..body };
        match self.view {
            View::Inbox => self.draw_inbox(state, painter, body),
            View::Channels => self.draw_channels(state, painter, body),
        }
        let (hint, note) = match self.view {
            View::Inbox => ("alerts.inbox_keys", self.inbox_note(state)),
            View::Channels => ("alerts.channel_keys", self.channel_note(state)),
        };
        if let Some((note, role)) = note {
            painter.text(row(area, area.height.saturating_sub(2)), &note, role);
        }
        painter.text(row(area, area.height.saturating_sub(1)), &painter.say(hint), Role::Muted);
    }

    fn draw_views(&self, state: &State, painter: &mut Painter<'_>, line: Rect) {
        let mut x = line.x;
        for (number, (view, key)) in VIEWS.iter().enumerate() {
            let count = match view {
                View::Inbox => state.world.inbox.value.as_ref().map(|inbox| inbox.unread),
                View::Channels => state.world.channels.value.as_ref().map(|channels| channels.len() as u64),
            };
            let count = count.map_or_else(String::new, |count| format!("{} ", text::count(count)));
            let label = format!(" {} {count}", painter.say(key));
            let place = Rect { x, width: cells(text::width(&label)).min(line.right().saturating_sub(x)), ..line };
            painter.text(place, &label, if *view == self.view { Role::ButtonFocus } else { Role::Muted });
            painter.hit(place, Target::View(number));
            x = x.saturating_add(place.width + 1);
        }
    }

    fn draw_inbox(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        let alerts = inbox(state);
        if let Some(lines) = unread(painter.words, &state.world.inbox) {
            return painter.message(area, &lines);
        }
        if alerts.is_empty() {
            let lines = [
                (painter.say("alerts.inbox_empty").into_owned(), Role::Text),
                (painter.say("alerts.inbox_empty_hint").into_owned(), Role::Muted),
            ];
            return painter.message(area, &lines);
        }
        let say = |key| state.words.say(key);
        let columns = [
            Column::text("".into(), Width::Exact(1), 0),
            Column::text(say("column.time"), Width::Exact(8), 1),
            Column::text(say("column.severity"), Width::Exact(8), 0),
            Column::number(say("alerts.events"), 6, 2),
            Column::text(say("column.event"), Width::Share { min: 18, weight: 1 }, 0),
            Column::text(say("column.address"), Width::Share { min: 15, weight: 0 }, 4),
            Column::text(say("column.details"), Width::Share { min: 14, weight: 4 }, 3),
        ];
        let (new, off) = (painter.symbols.running, painter.symbols.off);
        let selected = Some(self.alert.min(alerts.len() - 1));
        let table = Table {
            list: ListId::Overlay,
            columns: &columns,
            rows: alerts.len(),
            selected,
            target: Target::OverlayRow,
        };
        table::draw(painter, area, &table, |index, column| {
            let alert = &alerts[index];
            let (word, role) = signs::severity(alert.severity);
            let plain = if alert.read.is_some() { Role::Muted } else { Role::Popup };
            match column {
                0 => Cell::new(if alert.read.is_none() { new } else { " " }, Role::Accent),
                1 => Cell::new(state.words.time(alert.at), Role::Muted),
                2 => Cell::new(say(word), role),
                3 => Cell::new(text::count(alert.events), plain),
                4 => Cell::new(say(signs::kind(alert.kind)), plain),
                5 => match alert.address {
                    Some(address) => Cell::new(address.to_string(), plain),
                    None => Cell::new(off, Role::Faint),
                },
                _ => Cell::outside(&alert.details, Role::Muted),
            }
        });
    }

    fn draw_channels(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        let channels = channels(state);
        if let Some(lines) = unread(painter.words, &state.world.channels) {
            return painter.message(area, &lines);
        }
        if channels.is_empty() {
            let lines = [
                (painter.say("alerts.channels_empty").into_owned(), Role::Text),
                (painter.say("alerts.channels_empty_hint").into_owned(), Role::Muted),
            ];
            return painter.message(area, &lines);
        }
        let say = |key| state.words.say(key);
        let columns = [
            Column::text(say("alerts.channel"), Width::Share { min: 8, weight: 1 }, 0),
            Column::text(say("alerts.kind"), Width::Exact(10), 2),
            Column::text(say("alerts.goes_to"), Width::Share { min: 14, weight: 3 }, 1),
            Column::text(say("column.severity"), Width::Exact(8), 0),
            Column::number(say("alerts.waiting"), 7, 4),
            Column::text(say("alerts.last"), Width::Share { min: 17, weight: 3 }, 3),
        ];
        let selected = Some(self.channel.min(channels.len() - 1));
        let table = Table {
            list: ListId::Overlay,
            columns: &columns,
            rows: channels.len(),
            selected,
            target: Target::OverlayRow,
        };
        table::draw(painter, area, &table, |index, column| {
            let channel = &channels[index];
            let on = channel.rules.state == ChannelState::On;
            let (word, role) = signs::severity(channel.rules.severity);
            match column {
                0 => Cell::new(channel.id.to_string(), if on { Role::Popup } else { Role::Faint }),
                1 => Cell::new(say(kind_key(channel.kind)), Role::Muted),
                2 if channel.kind == AlertKind::Terminal => Cell::new(say("alerts.this_console"), Role::Muted),
                2 => Cell::outside(&channel.place, if on { Role::Popup } else { Role::Faint }),
                3 if on => Cell::new(say(word), role),
                3 => Cell::new(say("alerts.off"), Role::Warn),
                4 => Cell::new(text::count(channel.waiting), Role::Popup),
                _ => match &channel.last {
                    None => Cell::new(say("alerts.nothing_sent"), Role::Faint),
                    Some(last) => {
                        let (key, role) = if last.fault.is_none() {
                            ("alerts.arrived", Role::Ok)
                        } else {
                            ("alerts.failed", Role::Error)
                        };
                        Cell::new(format!("{} {}", state.words.time(last.at), say(key)), role)
                    }
                },
            }
        });
    }

    /// What the row says that has no room in it.
    fn inbox_note(&self, state: &State) -> Option<(String, Role)> {
        let details = &inbox(state).get(self.alert)?.details;
        Some((escape(details).into_owned(), Role::Popup))
    }

    /// Why the last alert of the selected channel failed.
    fn channel_note(&self, state: &State) -> Option<(String, Role)> {
        let fault = channels(state).get(self.channel)?.last.as_ref()?.fault.as_ref()?;
        Some((escape(fault).into_owned(), Role::Error))
    }
}

/// Marks alerts as read; none is all. What is shown changes when the inbox was read again.
fn mark_read(state: &mut State, numbers: Vec<u64>) {
    if state.world.unread() > 0 {
        state.call(MarkRead { numbers });
    }
}
