//! Captured bodies: switched on by key, marked in the header, read, copied with a curl command, asked of another model.

use std::time::Duration;

use flm::tui::action::{Action, Command};
use flm::tui::effect::{Effect, Reply, Request, Ticket};
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::tab_models::View;
use flm::tui::tab_models::chat::TurnEnd;
use flm::tui::update::update;
use flm::types::calls::captures::{CapturePage, ClearCaptures, ListCaptures, ReplayCapture, ShowCapture};
use flm::types::calls::keys::{CaptureSwitch, EditKey};
use flm::types::capture::{Capture, CaptureEntry, CapturedSize, Kept};
use flm::types::failure::{ErrorCode, Failure};
use flm::types::key::KeyView;
use flm::types::live::{LiveEvent, Noun};
use flm::types::request::RequestRow;

use crate::chat::whole;
use crate::fixture::{self, NOW, answer, busy, calls, draw, happen, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check, everywhere, named};

const ASKED: &str = "{\"model\":\"llama3.1:8b\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},\
    {\"role\":\"user\",\"content\":\"Why is the sky \u{202e}blue? 'quoted' なぜ空は青いの？\"}],\n\t\"stream\":true}";
const GOT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Blue light is scattered more.\"}}]}\n\n: \u{1b}]0;x\u{7}\n\ndata: [DONE]\n\n";

fn capture(row: &RequestRow, kept: Kept) -> Capture {
    Capture {
        entry: CaptureEntry {
            id: row.id,
            at: row.at,
            key: row.key.expect("a key"),
            method: row.method.clone().into_owned(),
            path: row.path.clone().into_owned(),
            model: row.model.as_deref().map(str::to_owned),
            status: row.status,
            request: CapturedSize { bytes: 1_832, kept },
            answer: CapturedSize { bytes: 3_000_000, kept: Kept::Cut },
        },
        request_text: if kept == Kept::Binary { String::new() } else { ASKED.to_owned() },
        answer_text: GOT.to_owned(),
    }
}

fn captured_key(until: Duration) -> KeyView {
    KeyView { capture_until: Some(NOW.plus(until)), ..fixture::key("Ab12Cd34", "first key") }
}

/// A console with the request selected whose bodies were captured, and a key that is.
pub(crate) fn captured(language: &str, size: (u16, u16), kept: Kept) -> (State, Capture) {
    let mut state = busy(language, size);
    let row = state.world.requests[1].clone();
    let capture = capture(&row, kept);
    let page = CapturePage { captures: vec![capture.entry.clone()], total: 1, bytes: 5_000, lost: 0 };
    let asked = calls(happen(&mut state, LiveEvent::Changed(Noun::Captures)));
    let Some((ticket, Request::ListCaptures(call))) = asked.into_iter().next() else { panic!("the list is read") };
    answer(&mut state, ticket, Reply::ListCaptures(call, Ok(page)));
    let keys = vec![captured_key(Duration::from_secs(7_200))];
    answer(&mut state, Ticket(0), Reply::ListKeys(flm::types::calls::keys::ListKeys {}, Ok(keys)));
    press(&mut state, "3 j");
    (state, capture)
}

/// Presses a key that fetches the bodies, and answers.
fn fetch(state: &mut State, key: &str, capture: &Capture) -> Vec<Effect> {
    let asked = calls(press(state, key)).pop();
    let Some((ticket, Request::ShowCapture(call))) = asked else { panic!("{asked:?}") };
    assert_eq!(call.id, capture.entry.id);
    let effects = answer(state, ticket, Reply::ShowCapture(call, Ok(capture.clone())));
    draw(state);
    effects
}

#[test]
fn bodies_are_read_escaped_and_scrolled_while_the_header_says_that_they_are_captured() {
    for language in LANGUAGES {
        for size in SIZES {
            let (mut state, capture) = captured(language, size, Kept::Whole);
            let name = |what: &str| format!("capture_{what}_{language}_{}x{}", size.0, size.1);
            if size.0 < 100 {
                press(&mut state, "enter");
            }
            check(&name("request"), &mut state);
            fetch(&mut state, "b", &capture);
            check(&name("bodies"), &mut state);
            press(&mut state, "tab");
            let shown = screen_text(&draw(&mut state));
            assert!(shown.contains("\\x1b]0;x\\x07"), "{shown}");
            assert!(shown.contains("Blue light is scattered more.") && shown.contains("[DONE]"), "{shown}");
            press(&mut state, "G g down pageup l");
            assert!(screen_text(&draw(&mut state)).contains("{\"model\":\"llama3.1:8b\","));
            let effects = press(&mut state, "y");
            let Some(Effect::Copy(text)) = effects.into_iter().next() else { panic!("copies") };
            assert!(text.contains("\\u{202e}") && !text.contains(['\u{1b}', '\u{202e}', '\t']), "{text}");
            update(&mut state, Action::Resize { columns: 62, rows: 20 });
            assert!(screen_text(&draw(&mut state)).contains("{\"model\":\"llama3.1:8b\","), "broken for the new size");
            press(&mut state, "enter");
            assert!(state.overlays.is_empty());
        }
    }
}

#[test]
fn a_body_that_is_no_text_or_very_long_says_so() {
    let (mut state, mut capture) = captured("en", (80, 24), Kept::Binary);
    capture.answer_text = "x".repeat(1 << 20);
    fetch(&mut state, "b", &capture);
    assert!(screen_text(&draw(&mut state)).contains("This body is no text"));
    press(&mut state, "tab G");
    assert!(screen_text(&draw(&mut state)).contains("Only the first 256"), "{}", screen_text(&draw(&mut state)));
}

#[test]
fn a_body_that_is_empty_or_no_text_says_so_at_every_size() {
    for (name, kept) in [("body_binary", Kept::Binary), ("body_empty", Kept::Whole)] {
        everywhere(name, |language, size| {
            let (mut state, mut capture) = captured(language, size, kept);
            capture.request_text.clear();
            fetch(&mut state, "b", &capture);
            state
        });
    }
}

#[test]
fn a_request_that_was_not_captured_says_so_and_copies_and_asks_as_before() {
    let (mut state, _) = captured("en", (120, 40), Kept::Whole);
    press(&mut state, "j j j");
    assert!(calls(press(&mut state, "b")).is_empty());
    assert!(state.toasts.iter().any(|toast| toast.text.contains("were not captured")), "{:?}", state.toasts);
    let effects = press(&mut state, "Y");
    assert!(matches!(effects.as_slice(), [Effect::Copy(text)] if text.contains("Hello")), "{effects:?}");
    press(&mut state, "R");
    assert!(matches!(state.overlays.as_slice(), [Overlay::Confirm(_)]));
    let (mut state, _) = captured("en", (120, 40), Kept::Cut);
    press(&mut state, "R");
    assert!(matches!(state.overlays.as_slice(), [Overlay::Confirm(_)]), "what was cut is no question");
}

#[test]
fn curl_gets_the_real_body_as_one_safe_word() {
    let (mut state, capture) = captured("en", (80, 24), Kept::Whole);
    let effects = fetch(&mut state, "Y", &capture);
    let Some(Effect::Copy(text)) = effects.into_iter().next() else { panic!("copies") };
    assert!(
        text.starts_with(
            "curl -X 'POST' 'http://127.0.0.1:8484/v1/chat/completions' -H \"Authorization: Bearer $FLM_API_KEY\""
        ),
        "{text}"
    );
    assert!(text.contains("'\\''quoted'\\''") && !text.chars().any(char::is_control), "{text}");
    let body =
        text.split(" -d '").nth(1).and_then(|rest| rest.strip_suffix('\'')).expect("a body").replace("'\\''", "'");
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(read(&body), read(ASKED));
}

#[test]
fn another_model_is_asked_exactly_the_same_and_answers_in_the_chat_tester() {
    let pictures = LANGUAGES.iter().flat_map(|language| SIZES.map(|size| (language, size)));
    for (language, size) in pictures {
        let (mut state, capture) = captured(language, size, Kept::Whole);
        fetch(&mut state, "R", &capture);
        check(&named("capture_replay_picker", language, size), &mut state);
        type_text(&mut state, "qwen");
        let asked = calls(press(&mut state, "enter")).pop();
        let Some((ticket, Request::ReplayCapture(call))) = asked else { panic!("{asked:?}") };
        assert_eq!(call, ReplayCapture { id: capture.entry.id, model: "qwen3:14b".into() });
        assert_eq!((state.models.view, state.models.chat.turns.len()), (View::Chat, 1));
        answer(&mut state, ticket, Reply::ReplayCapture(call, Ok(whole("qwen3:14b", "Scattering.", 120.0, 900.0, 9))));
        assert!(matches!(state.models.chat.turns[0].end, TurnEnd::Whole(_)));
        check(&named("capture_replay", language, size), &mut state);
    }
}

#[test]
fn a_replay_that_fails_or_is_asked_twice_is_told() {
    let (mut state, capture) = captured("en", (120, 40), Kept::Whole);
    fetch(&mut state, "R", &capture);
    let Some((ticket, Request::ReplayCapture(call))) = calls(press(&mut state, "enter")).pop() else { panic!("asks") };
    update(&mut state, Action::Run(Command::Tab3));
    fetch(&mut state, "R", &capture);
    assert!(calls(press(&mut state, "enter")).is_empty(), "one question at a time");
    assert!(!state.toasts.is_empty());
    let failure = Failure::new(ErrorCode::NotFound, "the bodies are gone");
    answer(&mut state, ticket, Reply::ReplayCapture(call, Err(failure)));
    assert!(matches!(state.models.chat.turns[0].end, TurnEnd::Failed(_)));
    update(&mut state, Action::Run(Command::Tab3));
    let Some((ticket, Request::ShowCapture(call))) = calls(press(&mut state, "b")).pop() else { panic!("asks") };
    let gone = Failure::new(ErrorCode::NotFound, "the bodies are gone");
    answer(&mut state, ticket, Reply::ShowCapture(ShowCapture { id: call.id }, Err(gone)));
    assert!(state.overlays.is_empty() && state.toasts.iter().any(|toast| toast.text.contains("gone")));
}

#[test]
fn a_key_is_captured_for_at_most_a_day_and_the_mark_goes_when_it_is_over() {
    let pictures = LANGUAGES.iter().flat_map(|language| SIZES.map(|size| (language, size)));
    for (language, size) in pictures {
        let mut state = busy(language, size);
        let mark = state.words.say("header.capturing").into_owned();
        assert!(!screen_text(&draw(&mut state)).contains(&mark));
        press(&mut state, "3 v c");
        check(&named("capture_form", language, size), &mut state);
        type_text(&mut state, "00");
        assert!(calls(press(&mut state, "enter")).is_empty(), "1h00 is no span");
        press(&mut state, "esc c");
        let asked = calls(press(&mut state, "enter")).pop();
        let Some((ticket, Request::EditKey(call))) = asked else { panic!("{asked:?}") };
        let hour = Duration::from_secs(3_600);
        assert_eq!((call.capture, call.limits.is_none()), (Some(CaptureSwitch::For(hour)), true));
        let view = captured_key(hour);
        let asked = calls(answer(&mut state, ticket, Reply::EditKey(EditKey { ..call }, Ok(view.clone()))));
        let Some((ticket, Request::ListKeys(call))) = asked.into_iter().next() else { panic!("the keys are read") };
        answer(&mut state, ticket, Reply::ListKeys(call, Ok(vec![view])));
        state.toasts.clear();
        assert!(screen_text(&draw(&mut state)).contains(&mark), "{}", screen_text(&draw(&mut state)));
        press(&mut state, "enter");
        check(&named("capture_key", language, size), &mut state);
        press(&mut state, "esc c");
        let Some((_, Request::EditKey(call))) = calls(press(&mut state, "enter")).pop() else { panic!("asks") };
        assert_eq!(call.capture, Some(CaptureSwitch::Off), "the second time it ends");
        state.pending.clear();
        state.overlays.clear();
        assert_eq!(state.next_change(), Some(hour), "the screen is drawn when it is over");
        state.now = state.now.plus(hour);
        assert!(!screen_text(&draw(&mut state)).contains(&mark), "it is over");
    }
}

#[test]
fn everything_captured_is_deleted_after_a_question() {
    let asking = |language: &str, size| {
        let (mut state, _) = captured(language, size, Kept::Whole);
        update(&mut state, Action::Run(Command::ClearCaptures));
        state
    };
    everywhere("capture_clear", asking);
    let mut state = asking("en", (80, 24));
    let asked = calls(press(&mut state, "y")).pop();
    let Some((ticket, Request::ClearCaptures(call))) = asked else { panic!("{asked:?}") };
    assert_eq!(call.key, None);
    let asked = calls(answer(&mut state, ticket, Reply::ClearCaptures(ClearCaptures { key: None }, Ok(1))));
    assert!(matches!(asked.as_slice(), [(_, Request::ListCaptures(ListCaptures { .. }))]), "{asked:?}");
}
