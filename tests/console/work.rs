//! Work that takes long: begun from the Models tab, told how far it is, and left.

use flm::tui::action::Action;
use flm::tui::effect::{Effect, Progressed, Reply, Request, Ticket, Told};
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::update::update;
use flm::types::calls::backup::{BackupProgress, BackupStage};
use flm::types::calls::models::PullModel;
use flm::types::engine::TransferProgress;
use flm::types::failure::{ErrorCode, Failure};

use crate::fixture::{answer, busy, calls, draw, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check};

/// A console in which a model is being fetched.
fn pulling(language: &str, size: (u16, u16)) -> (State, Ticket, PullModel) {
    let mut state = busy(language, size);
    press(&mut state, "2 p tab");
    type_text(&mut state, "qwen3:8b");
    let (ticket, asked) = calls(press(&mut state, "enter")).pop().expect("it is asked for");
    let Request::PullModel(call) = asked else { panic!("{asked:?}") };
    (state, ticket, call)
}

fn tell(state: &mut State, ticket: Ticket, stage: &str, completed: u64, total: Option<u64>) {
    let told = Told::Transfer(TransferProgress { stage: stage.to_owned(), completed, total });
    update(state, Action::Progressed(Box::new(Progressed { ticket, told })));
    draw(state);
}

#[test]
fn a_pull_shows_how_far_it_is_and_says_when_it_is_done() {
    let (mut state, ticket, call) = pulling("en", (80, 24));
    assert_eq!(call.model, "qwen3:8b");
    assert!(matches!(state.overlays.last(), Some(Overlay::Work(_))), "the form made place");
    tell(&mut state, ticket, "pulling 58065875508d", 1_200_000_000, Some(4_800_000_000));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("25%") && text.contains("pulling 58065875508d"), "{text}");
    // A line of another call changes nothing.
    tell(&mut state, Ticket(9999), "other", 1, Some(1));
    assert!(screen_text(&draw(&mut state)).contains("25%"));
    answer(&mut state, ticket, Reply::PullModel(call, Ok(Vec::new())));
    assert!(state.overlays.is_empty());
    assert!(screen_text(&draw(&mut state)).contains("qwen3:8b is fetched"));
}

#[test]
fn esc_leaves_the_work_and_its_late_progress_opens_nothing() {
    let (mut state, ticket, _call) = pulling("en", (80, 24));
    let effects = press(&mut state, "esc");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Leave(left) if *left == ticket)), "{effects:?}");
    assert!(state.overlays.is_empty() && state.pending.is_empty());
    tell(&mut state, ticket, "late", 1, Some(2));
    assert!(state.overlays.is_empty());
}

#[test]
fn a_pull_that_fails_gives_back_what_was_typed() {
    let (mut state, ticket, call) = pulling("en", (80, 24));
    let failure = Failure::new(ErrorCode::NotFound, "it has no model of that name").hint("check the name");
    answer(&mut state, ticket, Reply::PullModel(call, Err(failure)));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("qwen3:8b") && text.contains("no model of that name"), "{text}");
    let again = calls(press(&mut state, "enter"));
    assert!(matches!(again.as_slice(), [(_, Request::PullModel(call))] if call.model == "qwen3:8b"), "{again:?}");
}

#[test]
fn a_model_is_deleted_only_after_a_yes() {
    let mut state = busy("en", (80, 24));
    assert!(calls(press(&mut state, "2 x enter")).is_empty(), "the focus is on Cancel");
    let asked = calls(press(&mut state, "x y"));
    assert!(
        matches!(asked.as_slice(), [(_, Request::DeleteModel(call))] if call.model.starts_with("flm://")),
        "{asked:?}"
    );
}

#[test]
fn a_read_only_console_begins_nothing() {
    let mut state = busy("en", (80, 24));
    state.access = flm::tui::ConsoleAccess::ReadOnly;
    for key in ["L", "U", "p", "x"] {
        assert!(calls(press(&mut state, &format!("2 {key}"))).is_empty(), "{key}");
        assert!(state.overlays.is_empty(), "{key}");
    }
}

#[test]
fn the_boxes_of_models() {
    for language in LANGUAGES {
        for size in SIZES {
            let name = |what: &str| format!("{what}_{language}_{}x{}", size.0, size.1);
            let (mut state, ticket, _) = pulling(language, size);
            tell(&mut state, ticket, "pulling 58065875508d", 1_200_000_000, Some(4_800_000_000));
            check(&name("pulling"), &mut state);
            let mut state = busy(language, size);
            press(&mut state, "2 L");
            check(&name("loading"), &mut state);
            let mut state = busy(language, size);
            press(&mut state, "2 p");
            check(&name("form_pull"), &mut state);
            let mut state = busy(language, size);
            press(&mut state, "2 x");
            check(&name("confirm_delete_model"), &mut state);
        }
    }
}

#[test]
fn a_backup_is_begun_from_the_palette_tells_how_far_it_is_and_can_be_left() {
    let begun = || {
        let mut state = busy("ja", (80, 24));
        let (ticket, asked) = calls(press(&mut state, ": b a c k u p enter")).pop().expect("it is asked for");
        let Request::CreateBackup(call) = asked else { panic!("{asked:?}") };
        assert!(call.passphrase.is_none() && call.folder.is_none());
        (state, ticket, call)
    };
    let (mut state, ticket, call) = begun();
    let progress = BackupProgress { stage: BackupStage::Security, done: 30, total: 120 };
    let told = Told::Backup(progress);
    update(&mut state, Action::Progressed(Box::new(Progressed { ticket, told })));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("25%") && text.contains("コピー中"), "{text}");
    let failure = Failure::new(ErrorCode::IoError, "the disk is full");
    answer(&mut state, ticket, Reply::CreateBackup(call, Err(failure)));
    assert!(state.overlays.is_empty());
    assert!(screen_text(&draw(&mut state)).contains("the disk is full"));
    let (mut state, ticket, _call) = begun();
    let effects = press(&mut state, "esc");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Leave(left) if *left == ticket)), "{effects:?}");
    assert!(state.pending.is_empty());
}
