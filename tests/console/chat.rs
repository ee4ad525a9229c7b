//! The chat tester: asked from the Models tab, streamed, left, given back when it fails, copied.

use std::time::Duration;

use flm::tui::action::{Action, Wheel};
use flm::tui::effect::{Effect, Progressed, Reply, Request, Ticket, Told};
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::tab_models::View;
use flm::tui::tab_models::chat::{MOST_TURNS, TurnEnd};
use flm::tui::update::update;
use flm::types::calls::chat::{Chat, ChatProgress};
use flm::types::chat::{ChatAnswer, ChatDelivery, ChatRoute, ChatTiming, Said, Speaker};
use flm::types::failure::{ErrorCode, Failure};
use flm::types::request::{TokenSource, TokenUsage};

use crate::fixture::{self, answer, busy, calls, draw, press, screen_text, snapshot, type_text};
use crate::screens::{LANGUAGES, SIZES, check};

const ID: &str = "req_01JD9ZK4W8Q2";
const THOUGHT: &str = "The sky scatters short waves more than long ones.";
const SAID: &str = "Blue light is scattered more than red.\n\n* It has a shorter wave.\n* 空気の分子は波長の短い光をより強く散乱します。";

/// A console that shows the chat tester.
fn chat(language: &str, size: (u16, u16)) -> State {
    let mut state = busy(language, size);
    press(&mut state, "2 c");
    state
}

/// Asks, and answers the call.
fn ask(state: &mut State, question: &str) -> (Ticket, Chat) {
    type_text(state, question);
    let asked = calls(press(state, "enter")).pop();
    let Some((ticket, Request::Chat(call))) = asked else { panic!("{asked:?}") };
    (ticket, call)
}

fn tell(state: &mut State, ticket: Ticket, progress: ChatProgress) {
    update(state, Action::Progressed(Box::new(Progressed { ticket, told: Told::Chat(progress) })));
    draw(state);
}

fn begin(state: &mut State, ticket: Ticket) {
    tell(state, ticket, ChatProgress::Begun { status: 200, request_id: Some(ID.to_owned()) });
    state.now = state.now.plus(Duration::from_millis(140));
    tell(state, ticket, ChatProgress::Reasoning(THOUGHT.to_owned()));
    tell(state, ticket, ChatProgress::Text("Blue light ".to_owned()));
}

pub(crate) fn whole(model: &str, text: &str, first_ms: f64, total_ms: f64, tokens: u64) -> ChatAnswer {
    ChatAnswer {
        model: model.to_owned(),
        status: 200,
        request_id: Some(ID.to_owned()),
        text: text.to_owned(),
        reasoning: THOUGHT.to_owned(),
        audio: None,
        finish_reason: Some("stop".to_owned()),
        usage: TokenUsage { prompt: 12, completion: tokens, cached: 0, source: TokenSource::Engine },
        timing: ChatTiming::of(Some(first_ms), total_ms, tokens),
    }
}

#[test]
fn an_answer_streams_with_status_id_and_times_and_the_next_question_carries_what_was_said() {
    let mut state = chat("en", (120, 40));
    let (ticket, call) = ask(&mut state, "Why is the sky blue?");
    assert_eq!((call.model.as_str(), call.delivery), ("llama3.1:8b", ChatDelivery::Streamed));
    assert!(call.earlier.is_empty());
    begin(&mut state, ticket);
    let text = screen_text(&draw(&mut state));
    for wanted in ["Blue light", THOUGHT, "200", ID, "first token 140 ms"] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    // A piece of another call changes nothing.
    tell(&mut state, Ticket(9999), ChatProgress::Text("stray".to_owned()));
    assert!(!screen_text(&draw(&mut state)).contains("stray"));
    answer(&mut state, ticket, Reply::Chat(call, Ok(whole("llama3.1:8b", SAID, 120.0, 2620.0, 101))));
    let text = screen_text(&draw(&mut state));
    for wanted in ["first token 120 ms", "40.0 tok/s", "12 + 101 tokens", "2.62 s"] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    let (_, call) = ask(&mut state, "And at dusk?");
    let said = |by, text: &str| Said { by, text: text.to_owned() };
    assert_eq!(call.earlier, [said(Speaker::User, "Why is the sky blue?"), said(Speaker::Assistant, SAID)]);
}

#[test]
fn esc_leaves_the_answer_keeps_what_came_and_then_leaves_the_chat() {
    let mut state = chat("en", (80, 24));
    let (ticket, _) = ask(&mut state, "Why?");
    begin(&mut state, ticket);
    let effects = press(&mut state, "esc");
    assert!(matches!(effects.as_slice(), [Effect::Leave(left)] if *left == ticket), "{effects:?}");
    tell(&mut state, ticket, ChatProgress::Text("late".to_owned()));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("Blue light") && text.contains("stopped") && !text.contains("late"), "{text}");
    assert!(state.pending.is_empty() && state.next_change().is_none(), "nothing is waited for");
    press(&mut state, "esc");
    assert_eq!(state.models.view, View::List);
}

#[test]
fn a_question_that_fails_is_given_back_and_one_typed_meanwhile_stays() {
    let mut state = chat("en", (80, 24));
    let (ticket, call) = ask(&mut state, "Why?");
    let failure = Failure { request_id: Some(ID.to_owned()), ..Failure::new(ErrorCode::EngineApiError, "503 busy") };
    answer(&mut state, ticket, Reply::Chat(call, Err(failure.clone())));
    assert_eq!(state.models.chat.input.text(), "Why?");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("503 busy") && text.contains(ID) && text.contains("failed"), "{text}");
    let (ticket, call) = ask(&mut state, "!");
    assert_eq!((call.prompt.as_str(), call.earlier.len()), ("Why?!", 0), "what failed is no part of the conversation");
    type_text(&mut state, "typed meanwhile");
    answer(&mut state, ticket, Reply::Chat(call, Err(failure)));
    assert_eq!(state.models.chat.input.text(), "typed meanwhile");
}

#[test]
fn conversation_and_question_stay_over_other_tabs_and_a_lost_owner() {
    let mut state = chat("en", (80, 24));
    let (ticket, _) = ask(&mut state, "Why?");
    begin(&mut state, ticket);
    type_text(&mut state, "half a quest");
    draw(&mut state);
    update(&mut state, Action::Click { column: 30, row: 2 });
    assert_ne!(state.tab, flm::tui::tabs::Tab::Models);
    update(
        &mut state,
        Action::Lost { failure: Failure::new(ErrorCode::IoError, "gone"), attempt: 1, retry_at: fixture::NOW },
    );
    fixture::attach(&mut state, snapshot());
    press(&mut state, "f6");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("Blue light") && text.contains("half a quest"), "{text}");
    assert!(matches!(state.models.chat.turns[0].end, TurnEnd::Failed(_)) && state.models.chat.asking.is_none());
}

#[test]
fn parameters_and_the_model_are_chosen_and_used() {
    let mut state = chat("en", (80, 24));
    press(&mut state, "f4");
    type_text(&mut state, "Be brief.");
    press(&mut state, "tab");
    type_text(&mut state, "9");
    press(&mut state, "enter");
    assert!(screen_text(&draw(&mut state)).contains("a number from 0 to 2"), "the form says what is wrong");
    press(&mut state, "ctrl-u");
    type_text(&mut state, "0.5");
    press(&mut state, "tab");
    type_text(&mut state, "64");
    press(&mut state, "tab tab right enter");
    assert!(state.overlays.is_empty());
    press(&mut state, "f3");
    type_text(&mut state, "qwen");
    press(&mut state, "enter");
    let (_, call) = ask(&mut state, "Why?");
    assert_eq!((call.model.as_str(), call.route), ("qwen3:14b", ChatRoute::Responses));
    assert_eq!((call.sampling.temperature, call.sampling.max_tokens, call.sampling.seed), (Some(0.5), Some(64), None));
    assert_eq!(call.earlier, [Said { by: Speaker::System, text: "Be brief.".to_owned() }]);
}

#[test]
fn an_alias_is_a_model_that_no_engine_lists() {
    let mut state = chat("en", (80, 24));
    press(&mut state, "f3");
    type_text(&mut state, "my-alias");
    press(&mut state, "enter");
    assert_eq!(state.models.chat.model.as_deref(), Some("my-alias"));
}

#[test]
fn lines_are_broken_by_hand_pastes_are_text_and_nothing_blank_is_sent() {
    let mut state = chat("en", (80, 24));
    assert!(calls(press(&mut state, "enter")).is_empty(), "nothing to send");
    type_text(&mut state, "one");
    press(&mut state, "ctrl-j");
    update(&mut state, Action::Paste("two\nq\x1b[31m".to_owned()));
    let (_, call) = ask(&mut state, "");
    assert_eq!(call.prompt, "one\ntwo\nq[31m");
    assert!(calls(press(&mut state, "x enter")).is_empty(), "one question at a time");
    assert_eq!(state.models.chat.input.text(), "x");
}

#[test]
fn the_answer_is_copied_and_a_new_chat_asks_first() {
    let mut state = chat("en", (80, 24));
    let (ticket, call) = ask(&mut state, "Why?");
    answer(&mut state, ticket, Reply::Chat(call, Ok(whole("llama3.1:8b", SAID, 120.0, 2620.0, 101))));
    let copied = press(&mut state, "f9");
    assert!(copied.iter().any(|effect| matches!(effect, Effect::Copy(text) if text == SAID)), "{copied:?}");
    press(&mut state, "f8");
    assert!(matches!(state.overlays.last(), Some(Overlay::Confirm(_))));
    press(&mut state, "enter");
    assert_eq!(state.models.chat.turns.len(), 1, "the focus is on Cancel");
    press(&mut state, "f8 y");
    assert!(state.models.chat.turns.is_empty());
}

#[test]
fn a_long_conversation_scrolls_and_stays_bounded() {
    let mut state = chat("en", (80, 24));
    for number in 0..MOST_TURNS + 3 {
        let (ticket, call) = ask(&mut state, &format!("question-{number}."));
        answer(&mut state, ticket, Reply::Chat(call, Ok(whole("llama3.1:8b", "yes", 1.0, 2.0, 3))));
    }
    assert_eq!(state.models.chat.turns.len(), MOST_TURNS);
    assert!(screen_text(&draw(&mut state)).contains(&format!("question-{}.", MOST_TURNS + 2)));
    update(&mut state, Action::Turn { wheel: Wheel::Up, column: 5, row: 9 });
    assert!(state.models.chat.top.is_some(), "the wheel scrolls too");
    press(&mut state, "pageup pageup");
    let text = screen_text(&draw(&mut state));
    assert!(!text.contains(&format!("question-{}.", MOST_TURNS + 2)) && text.contains("PgDn"), "{text}");
    for _ in 0..400 {
        press(&mut state, "pageup");
    }
    assert!(screen_text(&draw(&mut state)).contains("question-3."), "the oldest that is kept");
    for _ in 0..400 {
        press(&mut state, "pagedown");
    }
    assert_eq!(state.models.chat.top, None, "at the end the newest is followed");
}

#[test]
fn without_a_proxy_or_in_a_read_only_console_nothing_is_asked_and_the_question_stays() {
    let mut state = chat("en", (80, 24));
    state.access = flm::tui::ConsoleAccess::ReadOnly;
    type_text(&mut state, "Why?");
    assert!(calls(press(&mut state, "enter")).is_empty());
    state.access = flm::tui::ConsoleAccess::Full;
    let mut stopped = fixture::status();
    stopped.listeners.clear();
    fixture::happen(&mut state, flm::types::live::LiveEvent::Status(Box::new(stopped)));
    assert!(calls(press(&mut state, "enter")).is_empty());
    assert!(screen_text(&draw(&mut state)).contains("start it on tab 3"));
    assert_eq!(state.models.chat.input.text(), "Why?");
}

/// A conversation: an answer, and a question that failed.
pub(crate) fn full(language: &str, size: (u16, u16)) -> State {
    let mut state = chat(language, size);
    let (ticket, call) = ask(&mut state, "Why is the sky blue? なぜ空は青いの?");
    begin(&mut state, ticket);
    answer(&mut state, ticket, Reply::Chat(call, Ok(whole("llama3.1:8b", SAID, 120.0, 2620.0, 101))));
    let (ticket, call) = ask(&mut state, "And at dusk?");
    let failure = Failure::new(ErrorCode::EngineApiError, "the endpoint answered 503 model_busy: the queue is full")
        .hint("try again in a moment");
    answer(&mut state, ticket, Reply::Chat(call, Err(failure)));
    state
}

#[test]
fn the_screens_of_the_chat() {
    for language in LANGUAGES {
        for size in SIZES {
            let name = |what: &str| format!("{what}_{language}_{}x{}", size.0, size.1);
            let mut state = chat(language, size);
            check(&name("chat_empty"), &mut state);
            let (ticket, _) = ask(&mut state, "Why is the sky blue? なぜ空は青いの?");
            begin(&mut state, ticket);
            check(&name("chat_streaming"), &mut state);
            let mut state = full(language, size);
            check(&name("chat_full"), &mut state);
            press(&mut state, "f3");
            check(&name("pick_model"), &mut state);
            press(&mut state, "esc f4");
            check(&name("form_chat"), &mut state);
            press(&mut state, "esc f8");
            check(&name("confirm_new_chat"), &mut state);
        }
    }
}
