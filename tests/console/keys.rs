//! Keys: the table is whole, and no sequence of keys brings the console down.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use flm::tui::action::{Action, COMMANDS, Safety, Wheel};
use flm::tui::effect::Effect;
use flm::tui::text::Words;
use flm::tui::update::update;
use flm::tui::{ConsoleAccess, event};
use flm::types::calls::Access;
use flm::types::language::LANGUAGES;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use crate::fixture::{busy, draw, empty};

#[test]
fn every_command_has_words_in_every_language() {
    for language in LANGUAGES {
        let words = Words::new(language, TimeZone::UTC);
        for row in COMMANDS {
            assert_ne!(words.say(row.text), row.text, "{language}: {}", row.name);
            assert_ne!(words.say(row.context.title()), row.context.title());
        }
    }
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        8 => prop::sample::select("abcdefghijklmnoprstuvxyzCGSY123456/?:!日 -_.".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char),
        4 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Up, KeyCode::Down, KeyCode::Left,
            KeyCode::Right, KeyCode::Home, KeyCode::End, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Backspace,
            KeyCode::Delete, KeyCode::F(1), KeyCode::F(2), KeyCode::F(5), KeyCode::F(8), KeyCode::F(10),
        ]),
    ];
    let modifiers = prop_oneof![9 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL)];
    (code, modifiers).prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, rng_seed: proptest::test_runner::RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_keys_clicks_and_pastes_never_panic(
        keys in prop::collection::vec(any_key(), 150),
        clicks in prop::collection::vec((0u16..90, 0u16..26), 10),
        full in any::<bool>(),
    ) {
        let mut state = if full { busy("ja", (80, 24)) } else { empty("en", (61, 15)) };
        for (number, key) in keys.into_iter().enumerate() {
            if let Some(action) = event::translate(&state, crossterm::event::Event::Key(key)) {
                update(&mut state, action);
            }
            if number % 15 == 0 {
                let (column, row) = clicks[number / 15 % clicks.len()];
                update(&mut state, Action::Click { column, row });
                update(&mut state, Action::Turn { wheel: Wheel::Down, column, row });
                update(&mut state, Action::Paste("a\u{1b}[31m\n日本".to_owned()));
            }
            if number % 3 == 0 {
                draw(&mut state);
            }
        }
        draw(&mut state);
    }

    #[test]
    fn a_read_only_console_never_asks_for_a_change(keys in prop::collection::vec(any_key(), 200)) {
        let mut state = busy("en", (80, 24));
        state.access = ConsoleAccess::ReadOnly;
        for key in keys {
            let Some(action) = event::translate(&state, crossterm::event::Event::Key(key)) else { continue };
            for effect in update(&mut state, action) {
                if let Effect::Call { request, .. } = effect {
                    prop_assert_eq!(request.access(), Access::Reads);
                }
            }
            draw(&mut state);
        }
    }
}

#[test]
fn what_destroys_is_marked_in_the_table() {
    for row in COMMANDS {
        let destroys = ["remove-", "revoke-", "rotate-", "clear-", "delete-", "stop-", "unblock"];
        let named = destroys.iter().any(|verb| row.name.starts_with(verb));
        assert_eq!(row.safety == Safety::Dangerous, named, "{}", row.name);
    }
}
