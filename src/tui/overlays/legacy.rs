//! Moving in from the old program: which folder, what would be moved, the move itself, and what became of everything.
//!
//! The plan is shown whole before anything is changed. The move is work that takes long and can be cancelled until it stores.

use crate::tui::overlays::form::{Field, Form, Submit};
use crate::tui::overlays::forms::{Faults, FormKind, fault};
use crate::tui::overlays::notice::{Deed, Notice};
use crate::tui::overlays::{self, Overlay};
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::types::calls::legacy::{
    ApplyLegacy, Confirmation, LegacyFate, LegacyItem, LegacyKind, LegacyReport, LegacyWork, PlanLegacy,
};
use crate::types::text::escape;

/// Every fate in the order in which they are told, with its word and colour.
const FATES: [(LegacyFate, &str, Role); 6] = [
    (LegacyFate::Moves, "legacy.moves", Role::Ok),
    (LegacyFate::Moved, "legacy.moved", Role::Ok),
    (LegacyFate::NotMovable, "legacy.not_movable", Role::Warn),
    (LegacyFate::Exists, "legacy.exists", Role::Muted),
    (LegacyFate::Duplicate, "legacy.duplicate", Role::Muted),
    (LegacyFate::Noted, "legacy.noted", Role::Muted),
];

/// A form that asks for the old program's folder.
#[must_use]
pub fn ask() -> Form {
    Form::new(FormKind::MoveIn, vec![Field::text("legacy.folder", "legacy.folder_hint", "")])
}

/// What a correct form asks for: the plan.
pub(super) fn build(state: &State, folder: &str, faults: &mut Faults) -> Option<Submit> {
    if folder.is_empty() {
        return fault(state, 0, "legacy.folder_rule", faults);
    }
    // The owner works in another folder than this console.
    let source = state.export_folder.join(folder).to_string_lossy().into_owned();
    Some(Submit::Call(PlanLegacy { source }.into()))
}

/// Shows what would be moved, and offers to do it.
pub fn planned(state: &mut State, report: &LegacyReport) {
    let say = |key| state.words.say(key).into_owned();
    let moves = report.items.iter().any(|item| item.fate == LegacyFate::Moves);
    let mut lines = vec![(escape(&report.source).into_owned(), Role::Title)];
    let explained = say(if moves { "legacy.plan" } else { "legacy.nothing" });
    lines.push((explained, Role::Popup));
    lines.extend(told(state, &report.items));
    let notice = Notice::new("legacy.title", lines);
    let call = ApplyLegacy { source: report.source.clone(), tmp: None, confirmation: Confirmation::Given };
    let deed = Deed { button: "legacy.move", title: "work.move_in", what: report.source.clone(), request: call.into() };
    let notice = if moves { notice.offering(deed) } else { notice };
    overlays::open(state, Overlay::Notice(notice));
}

/// Shows what became of everything.
pub fn applied(state: &mut State, report: &LegacyReport) {
    let say = |key| state.words.say(key).into_owned();
    let mut lines = vec![(escape(&report.source).into_owned(), Role::Title)];
    let explained = say(if report.backup.is_some() { "legacy.done" } else { "legacy.whole" });
    lines.push((explained, Role::Popup));
    for (key, path) in [("legacy.backup", &report.backup), ("legacy.log", &report.log)] {
        if let Some(path) = path {
            lines.push((state.words.fill(key, &[("path", &escape(path))]), Role::Accent));
        }
    }
    lines.extend(told(state, &report.items));
    overlays::open(state, Overlay::Notice(Notice::new("legacy.title", lines)));
}

/// The key of the words for a stage.
#[must_use]
pub fn stage(stage: LegacyWork) -> &'static str {
    match stage {
        LegacyWork::Reading => "work.stage_reading",
        LegacyWork::Hashing => "work.stage_hashing",
        LegacyWork::Copying => "work.stage_copying",
        LegacyWork::Storing => "work.stage_storing",
    }
}

/// Everything that was found, by what becomes of it.
fn told(state: &State, items: &[LegacyItem]) -> Vec<(String, Role)> {
    let mut lines = Vec::new();
    for (fate, word, role) in FATES {
        let of_this: Vec<_> = items.iter().filter(|item| item.fate == fate).collect();
        if of_this.is_empty() {
            continue;
        }
        lines.push((String::new(), Role::Popup));
        lines.push((state.words.fill(word, &[("count", &of_this.len().to_string())]), role));
        for item in of_this {
            let line = match kind(item.kind) {
                Some(kind) => format!("{} {}: {}", state.words.say(kind), escape(&item.name), escape(&item.detail)),
                None => format!("{}: {}", escape(&item.name), escape(&item.detail)),
            };
            lines.push((format!("  {line}"), Role::Popup));
        }
    }
    lines
}

fn kind(kind: LegacyKind) -> Option<&'static str> {
    Some(match kind {
        LegacyKind::Engine => "legacy.engine",
        LegacyKind::Alias => "legacy.alias",
        LegacyKind::Profile => "legacy.profile",
        LegacyKind::Key => "legacy.key",
        LegacyKind::Prompt => "legacy.prompt",
        LegacyKind::Setting => "legacy.setting",
        LegacyKind::Note => return None,
    })
}
