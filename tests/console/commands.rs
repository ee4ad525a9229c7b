//! Commands: that all of the table keep what is promised of them, and those that no journey uses.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use flm::tui::ConsoleAccess;
use flm::tui::action::{Action, COMMANDS, Command, CommandRow, Context, Safety};
use flm::tui::effect::{Effect, Request};
use flm::tui::keymap::KeyMap;
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::terminal::Keyboard;
use flm::tui::update::update;
use flm::tui::widgets::symbols::Motion;
use flm::tui::{event, tab_models};
use flm::types::calls::Access;
use flm::types::failure::{ErrorCode, Failure};

use crate::fixture::{answer, busy, calls, draw, press, screen_text, type_text};

/// The keys that lead to where commands of a context are valid.
fn place(context: Context) -> &'static str {
    match context {
        Context::Global | Context::List | Context::Engines => "1",
        Context::Models => "2",
        Context::Chat => "f6",
        Context::Compare => "f7",
        Context::Proxy | Context::Requests => "3",
        Context::Keys => "3 v",
        Context::Usage => "3 v v",
        Context::Security => "4",
        Context::Lists | Context::Blocks => "5",
        Context::Networks => "5 v v",
        Context::Prompts => "6",
        Context::Editor => "6 e",
    }
}

fn run(row: &CommandRow, access: ConsoleAccess) -> (State, Vec<Request>) {
    let mut state = busy("en", (100, 30));
    press(&mut state, place(row.context));
    state.access = access;
    state.toasts.clear();
    let effects = update(&mut state, Action::Run(row.command));
    draw(&mut state);
    let asked = calls(effects).into_iter().map(|(_, request)| request).collect();
    (state, asked)
}

/// SPEC §9.7.
#[test]
fn no_command_of_a_read_only_console_changes_anything_and_those_that_would_say_why_not() {
    for row in COMMANDS {
        let (state, asked) = run(row, ConsoleAccess::ReadOnly);
        assert!(asked.iter().all(|request| request.access() == Access::Reads), "{}: {asked:?}", row.name);
        if row.safety != Safety::Looks {
            assert!(state.overlays.is_empty(), "{} opens something to change", row.name);
            assert_eq!(state.toasts.len(), 1, "{}", row.name);
            assert_eq!(state.toasts[0].text, "This console is read-only.", "{}", row.name);
        }
    }
}

/// SPEC §9.7.
#[test]
fn every_command_that_destroys_asks_first_and_an_enter_does_nothing() {
    // These look first at what they would do, and ask with what they found (tests/console/leak.rs), or have nothing to do
    // in the home of these tests.
    let later = [Command::RevokeLeaked, Command::UnblockSource];
    for row in COMMANDS.iter().filter(|row| row.safety == Safety::Dangerous && !later.contains(&row.command)) {
        let (mut state, asked) = run(row, ConsoleAccess::Full);
        assert!(asked.iter().all(|request| request.access() == Access::Reads), "{}: {asked:?}", row.name);
        assert!(matches!(state.overlays.last(), Some(Overlay::Confirm(_))), "{} does not ask", row.name);
        let asked = calls(press(&mut state, "enter"));
        assert!(asked.is_empty(), "{}: the focus is on Cancel: {asked:?}", row.name);
    }
}

#[test]
fn models_are_sorted_by_each_column_and_found_by_letters_that_follow_each_other() {
    let mut state = busy("en", (120, 40));
    press(&mut state, "2");
    let sizes = |state: &State| tab_models::rows(state).iter().map(|model| model.size_bytes).collect::<Vec<_>>();
    let contexts = |state: &State| tab_models::rows(state).iter().map(|model| model.context_length).collect::<Vec<_>>();
    press(&mut state, "s s");
    assert!(contexts(&state).is_sorted(), "{:?}", contexts(&state));
    press(&mut state, "s");
    assert!(sizes(&state).is_sorted(), "{:?}", sizes(&state));
    press(&mut state, "S");
    assert!(sizes(&state).iter().rev().is_sorted(), "{:?}", sizes(&state));
    assert!(sizes(&state).first() != sizes(&state).last(), "there is something to sort");
    press(&mut state, "S s");
    let loaded: Vec<_> = tab_models::rows(&state).iter().map(|model| model.loaded).collect();
    assert!(loaded.iter().rev().is_sorted(), "loaded ones first: {loaded:?}");
    let all = loaded.len();
    press(&mut state, "/");
    type_text(&mut state, "qwn3");
    let found = tab_models::rows(&state);
    assert!(!found.is_empty() && found.len() < all, "letters are missing, and it is found all the same");
    assert!(found[0].listed_as.contains("qwen3"), "the best first: {}", found[0].listed_as);
}

#[test]
fn the_address_is_copied_and_the_proxy_is_reloaded_and_stopped() {
    let mut state = busy("en", (100, 30));
    let copied = press(&mut state, "3 u");
    assert!(copied.iter().any(|effect| matches!(effect, Effect::Copy(url) if url == "http://127.0.0.1:8484/v1")));
    let asked = calls(press(&mut state, "r"));
    assert!(matches!(asked.as_slice(), [(_, Request::Reload(call))] if call.port.is_none()), "{asked:?}");
    let asked = calls(press(&mut state, "S y"));
    assert!(matches!(asked.as_slice(), [(_, Request::StopListener(call))] if call.port == Some(8484)), "{asked:?}");
}

#[test]
fn a_key_is_rotated_and_a_block_made_permanent() {
    let mut state = busy("en", (100, 30));
    let key = state.world.keys.value.as_ref().expect("keys")[0].id;
    let asked = calls(press(&mut state, "3 v o y"));
    let asked: Vec<_> = asked.into_iter().filter(|(_, request)| request.access() > Access::Reads).collect();
    assert!(matches!(asked.as_slice(), [(_, Request::RotateKey(call))] if call.id == key), "{asked:?}");
    press(&mut state, "5 g");
    for _ in 0..state.world.blocks.value.as_ref().expect("blocks").len() {
        let asked = calls(press(&mut state, "m"));
        if let [(_, Request::AddBlock(call))] = asked.as_slice() {
            assert_eq!(call.duration, None, "until it is lifted");
            let blocks = state.world.blocks.value.iter().flatten();
            let known = blocks.filter(|entry| entry.network == call.network && entry.reason == call.reason);
            assert_eq!(known.count(), 1, "the same network for the same reason");
            return;
        }
        press(&mut state, "j");
    }
    panic!("no block that ends was made permanent");
}

/// SPEC §9.7: help, hints and palette are made from the key map, which is a file.
#[test]
fn a_key_of_the_file_stands_in_help_hints_and_palette_and_works() {
    let mut state = busy("en", (200, 50));
    state.keymap = KeyMap::with_file("[engines]\ndetect-engines = \"w\"\n").expect("a key map");
    press(&mut state, "1");
    assert!(screen_text(&draw(&mut state)).contains("w Detect"), "among the hints");
    press(&mut state, "?");
    let help = screen_text(&draw(&mut state));
    assert!(help.lines().any(|line| line.contains("Detect") && line.contains(" w ")), "{help}");
    press(&mut state, "esc :");
    type_text(&mut state, "detect");
    let palette = screen_text(&draw(&mut state));
    assert!(palette.lines().any(|line| line.contains("Detect") && line.contains(" w ")), "{palette}");
    press(&mut state, "esc");
    assert!(calls(press(&mut state, "d")).is_empty(), "the old key is free");
    let asked = calls(press(&mut state, "w"));
    assert!(matches!(asked.as_slice(), [(_, Request::DetectEngines(_))]), "{asked:?}");
}

#[test]
fn with_reduced_motion_no_sign_turns_and_the_seconds_go_on() {
    let mut state = busy("en", (80, 24));
    state.motion = Motion::Reduced;
    press(&mut state, "1 d");
    let wait = state.next_change().expect("the seconds change");
    assert!(wait > flm::tui::SPINNER_STEP, "{wait:?}");
    let before = screen_text(&draw(&mut state));
    state.now = state.now.plus(flm::tui::SPINNER_STEP * 3);
    assert_eq!(screen_text(&draw(&mut state)), before, "nothing turns");
    state.now = state.now.plus(std::time::Duration::from_secs(1));
    assert_ne!(screen_text(&draw(&mut state)), before, "the seconds tell that it goes on");
}

/// SPEC §9.7.
#[test]
fn what_fails_is_told_with_what_to_do_and_its_request_id() {
    let mut state = busy("en", (100, 30));
    let (ticket, request) = calls(press(&mut state, "3 r")).pop().expect("a reload");
    let mut failure = Failure::new(ErrorCode::IoError, "the file is gone").hint("put it back");
    failure.request_id = Some("req_0123456789abcdef".to_owned());
    answer(&mut state, ticket, request.failed(failure));
    let text = screen_text(&draw(&mut state));
    for told in ["the file is gone", "put it back", "req_0123456789abcdef"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

/// Over a slow line Esc and the next key come in one piece, and from GNU screen always while it is asked for the mouse.
#[test]
fn an_esc_that_comes_together_with_the_next_key_is_both_unless_alt_means_something() {
    let alt = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::ALT);
    let key = |code: KeyCode| KeyEvent::new(code, KeyModifiers::NONE);
    let both = Some([key(KeyCode::Esc), key(KeyCode::Char('3'))]);
    let mut state = busy("en", (80, 24));
    assert_eq!(event::apart(&state, Keyboard::Classic, alt('3')), both);
    press(&mut state, "f2");
    assert_eq!(event::apart(&state, Keyboard::Classic, alt('3')), both, "a box without text");
    assert_eq!(event::apart(&state, Keyboard::Kitty, alt('3')), None, "such a terminal tells Esc from Alt");
    assert_eq!(event::apart(&state, Keyboard::Classic, key(KeyCode::Char('3'))), None);
    for typing in ["esc 1 a", "esc /", "esc 6 e", "esc f6", "esc :"] {
        let mut state = busy("en", (80, 24));
        press(&mut state, typing);
        assert_eq!(event::apart(&state, Keyboard::Classic, alt('b')), None, "{typing}: text has uses for Alt");
    }
    let mut state = busy("en", (80, 24));
    state.keymap = KeyMap::with_file("[global]\ntab-3 = \"alt-3\"\n").expect("a key map");
    assert_eq!(event::apart(&state, Keyboard::Classic, alt('3')), None, "the person gave it a meaning");
}
