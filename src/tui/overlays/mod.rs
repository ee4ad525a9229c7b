//! Boxes over the tabs: a stack whose last one has the keyboard.
//!
//! Called by `update` and `view`. A box knows what it asks and what to send; it must never read a tab's state.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::Target;
use crate::tui::state::{Dirty, State};
use crate::tui::widgets::painter::Painter;
use crate::types::failure::Failure;

pub mod alert_form;
pub mod alerts;
pub mod asking_forms;
pub mod bodies;
pub mod confirm;
pub mod expose;
pub mod firewall;
pub mod form;
pub mod forms;
pub mod key;
pub mod legacy;
pub mod menu;
pub mod notice;
pub mod picker;
pub mod policy;
pub mod profile_form;
pub mod quit;
pub mod saved;
pub mod settings;
pub mod toasts;
pub mod wizard;
mod wizard_acme;
pub mod wizard_view;
pub mod work;

/// A box.
#[derive(Debug)]
pub enum Overlay {
    /// Help and palette.
    Menu(menu::Menu),
    /// A question before something is removed.
    Confirm(confirm::Confirm),
    /// Fields to fill in.
    Form(form::Form),
    /// A new key, shown once.
    Key(key::NewKey),
    /// What becomes of the proxy.
    Quit(quit::Quit),
    /// Language, theme, mouse, refresh rate.
    Settings(settings::Settings),
    /// Something to read.
    Notice(notice::Notice),
    /// Something that takes long.
    Work(work::Work),
    /// Models to choose.
    Picker(picker::Picker),
    /// Saved comparisons.
    Saved(saved::Saved),
    /// Going public, step by step.
    Wizard(Box<wizard::Wizard>),
    /// The machine's firewall.
    Firewall(Box<firewall::Firewall>),
    /// The inbox and the alert channels.
    Alerts(alerts::Alerts),
    /// The security policy.
    Policy(Box<policy::Policy>),
    /// What a captured request sent and got.
    Bodies(Box<bodies::Bodies>),
}

impl Overlay {
    /// Whether text may be typed into it.
    #[must_use]
    pub fn takes_text(&self) -> bool {
        match self {
            Self::Menu(_) | Self::Confirm(_) | Self::Form(_) | Self::Picker(_) | Self::Wizard(_) | Self::Policy(_) => {
                true
            }
            Self::Key(_)
            | Self::Quit(_)
            | Self::Settings(_)
            | Self::Notice(_)
            | Self::Work(_)
            | Self::Saved(_)
            | Self::Firewall(_)
            | Self::Alerts(_)
            | Self::Bodies(_) => false,
        }
    }
}

/// What becomes of a box after a key press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// It stays.
    Open,
    /// It goes.
    Closed,
}

/// Puts a box on top. A menu is never put over a menu.
pub fn open(state: &mut State, overlay: Overlay) {
    if matches!(overlay, Overlay::Menu(_)) {
        state.overlays.retain(|known| !matches!(known, Overlay::Menu(_)));
    }
    state.overlays.push(overlay);
    state.soil(Dirty::Now);
}

/// Gives a key press to the top box. The box is taken off the stack meanwhile, so that it may change the state.
pub fn type_key(state: &mut State, key: KeyEvent) {
    let Some(mut top) = state.overlays.pop() else { return };
    let depth = state.overlays.len();
    let stays = if let Overlay::Work(work) = &mut top {
        // Esc ends the work as well as its box.
        work.press(state, key)
    } else if let Overlay::Wizard(wizard) = &mut top {
        // Esc goes one step back.
        wizard.press(state, key)
    } else if key.code == KeyCode::Esc {
        Stays::Closed
    } else {
        match &mut top {
            Overlay::Menu(menu) => menu.press(state, key),
            Overlay::Confirm(confirm) => confirm.press(state, key),
            Overlay::Form(form) => form.press(state, key),
            Overlay::Key(new_key) => new_key.press(state, key),
            Overlay::Quit(quit) => quit.press(state, key),
            Overlay::Settings(settings) => settings.press(state, key),
            Overlay::Notice(notice) => notice.press(state, key),
            Overlay::Work(work) => work.press(state, key),
            Overlay::Picker(picker) => picker.press(state, key),
            Overlay::Saved(saved) => saved.press(state, key),
            Overlay::Wizard(wizard) => wizard.press(state, key),
            Overlay::Firewall(firewall) => firewall.press(state, key),
            Overlay::Alerts(alerts) => alerts.press(state, key),
            Overlay::Policy(policy) => policy.press(state, key),
            Overlay::Bodies(bodies) => bodies.press(state, key),
        }
    };
    put_back(state, top, depth, stays);
}

/// Boxes that were opened meanwhile lie above.
fn put_back(state: &mut State, top: Overlay, depth: usize, stays: Stays) {
    if stays == Stays::Open {
        state.overlays.insert(depth.min(state.overlays.len()), top);
    } else {
        match top {
            Overlay::Wizard(wizard) => wizard::closed(state, wizard),
            Overlay::Policy(policy) => policy::closed(state, policy),
            _ => {}
        }
    }
}

/// Gives pasted text to the top box.
pub fn paste(state: &mut State, text: &str) {
    let Some(mut top) = state.overlays.pop() else { return };
    match &mut top {
        Overlay::Menu(menu) => menu.paste(text),
        Overlay::Confirm(confirm) => confirm.paste(text),
        Overlay::Form(form) => form.paste(state, text),
        Overlay::Picker(picker) => picker.paste(text),
        Overlay::Wizard(wizard) => wizard.paste(state, text),
        Overlay::Policy(policy) => policy.paste(text),
        Overlay::Key(_)
        | Overlay::Quit(_)
        | Overlay::Settings(_)
        | Overlay::Notice(_)
        | Overlay::Work(_)
        | Overlay::Saved(_)
        | Overlay::Firewall(_)
        | Overlay::Alerts(_)
        | Overlay::Bodies(_) => {}
    }
    state.overlays.push(top);
}

/// Gives a click to the top box.
pub fn click(state: &mut State, target: Target) {
    let Some(mut top) = state.overlays.pop() else { return };
    let depth = state.overlays.len();
    let stays = match (&mut top, target) {
        (Overlay::Menu(menu), Target::OverlayRow(row)) => menu.choose(state, row),
        (Overlay::Form(form), Target::OverlayRow(row)) => form.focus_on(row),
        (Overlay::Settings(settings), Target::OverlayRow(row)) => settings.focus_on(state, row),
        (Overlay::Picker(picker), Target::OverlayRow(row)) => picker.choose(state, row),
        (Overlay::Saved(saved), Target::OverlayRow(row)) => saved.choose(state, row),
        (Overlay::Policy(policy), Target::OverlayRow(row)) => policy.focus_on(row),
        (Overlay::Policy(policy), Target::Button(button)) => policy.choose(state, button),
        (Overlay::Wizard(wizard), Target::OverlayRow(row)) => wizard.focus_on(row),
        (Overlay::Wizard(wizard), Target::Button(button)) => wizard.choose(state, button),
        (Overlay::Alerts(alerts), Target::OverlayRow(row)) => alerts.click(state, row),
        (Overlay::Alerts(alerts), Target::View(view)) => alerts.show(view),
        (Overlay::Confirm(confirm), Target::Button(button)) => confirm.choose(state, button),
        (Overlay::Form(form), Target::Button(button)) => form.choose(state, button),
        (Overlay::Key(new_key), Target::Button(button)) => new_key.choose(state, button),
        (Overlay::Quit(quit), Target::Button(button)) => quit.choose(state, button),
        (Overlay::Notice(notice), Target::Button(button)) => notice.choose(state, button),
        (Overlay::Bodies(bodies), Target::Button(button)) => bodies.choose(state, button),
        (Overlay::Bodies(bodies), Target::View(part)) => bodies.show(part),
        (Overlay::Work(work), Target::Button(_)) => work.leave(state),
        (Overlay::Firewall(firewall), Target::Button(button)) => firewall.choose(state, button),
        _ => Stays::Open,
    };
    put_back(state, top, depth, stays);
}

/// Scrolls the top box.
pub fn scroll(state: &mut State, command: Command) {
    let code = if command == Command::Up { KeyCode::Up } else { KeyCode::Down };
    if matches!(
        state.overlays.last(),
        Some(
            Overlay::Menu(_)
                | Overlay::Notice(_)
                | Overlay::Picker(_)
                | Overlay::Saved(_)
                | Overlay::Firewall(_)
                | Overlay::Alerts(_)
                | Overlay::Bodies(_)
        )
    ) {
        type_key(state, KeyEvent::from(code));
    }
}

/// The screen has another size: text is broken for it anew.
pub fn resized(state: &mut State) {
    let (columns, _) = state.size;
    for overlay in &mut state.overlays {
        if let Overlay::Bodies(bodies) = overlay {
            bodies.fit(columns);
        }
    }
}

/// The owner is gone: what forms wait for will not come.
pub fn forget_calls(state: &mut State, failure: &Failure) {
    state.overlays.retain(|overlay| !matches!(overlay, Overlay::Work(_)));
    for overlay in &mut state.overlays {
        match overlay {
            Overlay::Form(form) => form.waiting = None,
            Overlay::Wizard(wizard) => wizard::forget(wizard, failure),
            Overlay::Policy(policy) => policy.forget(failure),
            _ => {}
        }
    }
}

/// Draws all boxes, the top one last.
pub fn draw(state: &State, painter: &mut Painter<'_>, screen: Rect) {
    for overlay in &state.overlays {
        // Only the top box may be clicked or hold the cursor.
        painter.geometry.targets.clear();
        painter.geometry.cursor = None;
        match overlay {
            Overlay::Menu(menu) => menu.draw(state, painter, screen),
            Overlay::Confirm(confirm) => confirm.draw(painter, screen),
            Overlay::Form(form) => form.draw(state, painter, screen),
            Overlay::Key(new_key) => new_key.draw(state, painter, screen),
            Overlay::Quit(quit) => quit.draw(state, painter, screen),
            Overlay::Settings(settings) => settings.draw(state, painter, screen),
            Overlay::Notice(notice) => notice.draw(painter, screen),
            Overlay::Work(work) => work.draw(state, painter, screen),
            Overlay::Picker(picker) => picker.draw(state, painter, screen),
            Overlay::Saved(saved) => saved.draw(state, painter, screen),
            Overlay::Wizard(wizard) => wizard.draw(state, painter, screen),
            Overlay::Firewall(firewall) => firewall.draw(state, painter, screen),
            Overlay::Alerts(alerts) => alerts.draw(state, painter, screen),
            Overlay::Policy(policy) => policy.draw(state, painter, screen),
            Overlay::Bodies(bodies) => bodies.draw(painter, screen),
        }
    }
}

/// Moves a focus among `count` things by Tab and arrows; `None` when the key is another.
#[must_use]
pub fn moved_focus(focus: usize, count: usize, key: KeyEvent) -> Option<usize> {
    let count = count.max(1);
    match key.code {
        KeyCode::Tab | KeyCode::Right | KeyCode::Down => Some((focus + 1) % count),
        KeyCode::BackTab | KeyCode::Left | KeyCode::Up => Some((focus + count - 1) % count),
        _ => None,
    }
}
