//! Work that takes long: begun from the Models tab, told how far it is, and left.

use flm::tui::action::Action;
use flm::tui::effect::{Effect, Progressed, Reply, Request, Ticket, Told};
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::update::update;
use flm::types::calls::backup::{BackupProgress, BackupStage};
use flm::types::calls::legacy::{
    ApplyLegacy, Confirmation, LegacyFate, LegacyItem, LegacyKind, LegacyProgress, LegacyReport, LegacyStage,
    LegacyWork,
};
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

/// What is found in a folder of the old program.
fn found(stage: LegacyStage) -> LegacyReport {
    let item =
        |kind, name: &str, fate, detail: &str| LegacyItem { kind, name: name.into(), fate, detail: detail.into() };
    let moves = if stage == LegacyStage::Applied { LegacyFate::Moved } else { LegacyFate::Moves };
    let applied = |text: &str| (stage == LegacyStage::Applied).then(|| text.to_owned());
    LegacyReport {
        stage,
        source: "/home/ann/.old-flm".into(),
        database: Some("flm.db".into()),
        fingerprint: "ab".repeat(32),
        items: vec![
            item(LegacyKind::Engine, "ollama", moves, "ollama at http://localhost:11434"),
            item(LegacyKind::Alias, "Home-Chat", moves, "of llama3.2:3b; clients ask for either"),
            item(LegacyKind::Key, "laptop", moves, "works as before, for Home-Chat only, 120 requests a minute"),
            item(
                LegacyKind::Key,
                "phone\u{1b}[2J",
                LegacyFate::NotMovable,
                "only a hash of it was kept: make a new one",
            ),
            item(LegacyKind::Setting, "console.theme", LegacyFate::Exists, "this home has dark"),
            item(LegacyKind::Note, "telemetry_url", LegacyFate::Noted, "FLM has nothing like it"),
        ],
        conversion: None,
        backup: applied("/home/ann/.local/share/flm/legacy/backup-1780000000000/flm-20260528-200000Z-before-legacy"),
        log: applied("/home/ann/.local/state/flm/logs/migrate-legacy.log"),
        resumed: false,
    }
}

/// A console that shows what would be moved.
fn planned(language: &str, size: (u16, u16)) -> State {
    let mut state = busy(language, size);
    press(&mut state, ": m o v e - i n enter");
    type_text(&mut state, "/home/ann/.old-flm");
    let (ticket, asked) = calls(press(&mut state, "enter")).pop().expect("the plan is asked for");
    let Request::PlanLegacy(call) = asked else { panic!("{asked:?}") };
    assert_eq!(call.source, "/home/ann/.old-flm");
    answer(&mut state, ticket, Reply::PlanLegacy(call, Ok(found(LegacyStage::Planned))));
    state
}

fn moving(language: &str, size: (u16, u16)) -> (State, Ticket, ApplyLegacy) {
    let mut state = planned(language, size);
    let (ticket, asked) = calls(press(&mut state, "right enter")).pop().expect("it is asked for");
    let Request::ApplyLegacy(call) = asked else { panic!("{asked:?}") };
    assert_eq!((call.source.as_str(), call.confirmation), ("/home/ann/.old-flm", Confirmation::Given));
    (state, ticket, call)
}

fn tell_move(state: &mut State, ticket: Ticket, stage: LegacyWork, done: u64, total: u64) -> String {
    let told = Told::Legacy(LegacyProgress { stage, done, total });
    update(state, Action::Progressed(Box::new(Progressed { ticket, told })));
    screen_text(&draw(state))
}

#[test]
fn moving_in_shows_what_would_be_moved_asks_tells_how_far_it_is_and_what_became_of_everything() {
    let mut state = planned("en", (120, 40));
    let text = screen_text(&draw(&mut state));
    assert!(
        text.contains("Is moved: 3") && text.contains("laptop") && text.contains("Nothing is changed yet"),
        "{text}"
    );
    assert!(calls(press(&mut state, "enter")).is_empty() && state.overlays.is_empty(), "the focus is on Cancel");
    let (mut state, ticket, call) = moving("en", (120, 40));
    let text = tell_move(&mut state, ticket, LegacyWork::Hashing, 3, 12);
    assert!(text.contains("hashing keys 3/12") && text.contains("Cancel it"), "{text}");
    assert!(tell_move(&mut state, ticket, LegacyWork::Copying, 1 << 20, 4 << 20).contains("25%"));
    answer(&mut state, ticket, Reply::ApplyLegacy(call, Ok(found(LegacyStage::Applied))));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("Was moved: 3") && text.contains("migrate-legacy.log"), "{text}");
    assert!(calls(press(&mut state, "enter")).is_empty() && state.overlays.is_empty());
}

#[test]
fn moving_in_is_cancelled_by_esc_until_it_stores() {
    let (mut state, ticket, _call) = moving("en", (80, 24));
    tell_move(&mut state, ticket, LegacyWork::Hashing, 3, 12);
    let effects = press(&mut state, "esc");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Leave(left) if *left == ticket)), "{effects:?}");
    assert!(state.overlays.is_empty() && state.pending.is_empty());
    assert!(screen_text(&draw(&mut state)).contains("/home/ann/.old-flm is cancelled"));

    let (mut state, ticket, call) = moving("en", (80, 24));
    let text = tell_move(&mut state, ticket, LegacyWork::Storing, 0, 0);
    assert!(text.contains("storing") && !text.contains("Cancel it"), "{text}");
    assert!(press(&mut state, "esc").is_empty(), "too late, and it says so by having no button");
    answer(&mut state, ticket, Reply::ApplyLegacy(call, Err(Failure::new(ErrorCode::IoError, "the disk is full"))));
    assert!(state.overlays.is_empty());
    assert!(screen_text(&draw(&mut state)).contains("the disk is full"));
}

#[test]
fn a_folder_without_anything_of_the_old_program_is_told_in_the_form() {
    let mut state = busy("en", (80, 24));
    press(&mut state, ": m o v e - i n enter");
    assert!(calls(press(&mut state, "enter")).is_empty(), "no folder yet");
    assert!(screen_text(&draw(&mut state)).contains("enter the folder of the old program"));
    type_text(&mut state, "/tmp");
    let (ticket, asked) = calls(press(&mut state, "enter")).pop().expect("the plan is asked for");
    let Request::PlanLegacy(call) = asked else { panic!("{asked:?}") };
    let failure = Failure::new(ErrorCode::NotFound, "/tmp holds neither config.json nor a database of the old program");
    answer(&mut state, ticket, Reply::PlanLegacy(call, Err(failure)));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("/tmp holds neither") && text.contains("Folder"), "{text}");
}

#[test]
fn the_boxes_of_moving_in() {
    for language in LANGUAGES {
        for size in SIZES {
            let name = |what: &str| format!("{what}_{language}_{}x{}", size.0, size.1);
            let mut state = busy(language, size);
            press(&mut state, ": m o v e - i n enter");
            check(&name("form_move_in"), &mut state);
            check(&name("move_in_planned"), &mut planned(language, size));
            let (mut state, ticket, call) = moving(language, size);
            tell_move(&mut state, ticket, LegacyWork::Hashing, 3, 12);
            check(&name("moving_in"), &mut state);
            answer(&mut state, ticket, Reply::ApplyLegacy(call, Ok(found(LegacyStage::Applied))));
            check(&name("moved_in"), &mut state);
        }
    }
}
