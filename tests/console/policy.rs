//! The security policy: rule by rule and as JSON, told what is wrong, and never lost.

use flm::tui::effect::{Reply, Request, Ticket};
use flm::tui::state::State;
use flm::types::calls::policy::{SetPolicy, ShowPolicy};
use flm::types::failure::{ErrorCode, Failure};
use flm::types::policy::{Mode, RuleName, SecurityPolicy};

use crate::fixture::{answer, busy, calls, draw, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check};

/// A console that shows the policy in force.
fn opened(language: &str, size: (u16, u16)) -> State {
    let mut state = busy(language, size);
    show(&mut state, SecurityPolicy::default());
    state
}

fn show(state: &mut State, policy: SecurityPolicy) {
    let asked = calls(press(state, "3 P"));
    let [(ticket, Request::ShowPolicy(_))] = asked.as_slice() else { panic!("{asked:?}") };
    answer(state, *ticket, Reply::ShowPolicy(ShowPolicy {}, Ok(policy)));
}

fn save(state: &mut State) -> (Ticket, SetPolicy, SecurityPolicy) {
    let asked = calls(press(state, "ctrl-s")).pop();
    let Some((ticket, Request::SetPolicy(call))) = asked else { panic!("{asked:?}") };
    let policy = SecurityPolicy::parse(&call.json).expect("a policy");
    (ticket, call, policy)
}

#[test]
fn a_rule_is_changed_saved_and_in_force() {
    let mut state = opened("en", (80, 24));
    press(&mut state, "j left");
    assert!(screen_text(&draw(&mut state)).contains("simulate *"));
    let (ticket, call, policy) = save(&mut state);
    for (number, rule) in RuleName::ALL.into_iter().enumerate() {
        let wanted = if number == 1 { Mode::Simulate } else { Mode::Enforce };
        assert_eq!(policy.rules.scoring(rule).mode, wanted, "{rule}");
    }
    assert!(calls(press(&mut state, "ctrl-s")).is_empty(), "one saving at a time");
    answer(&mut state, ticket, Reply::SetPolicy(call, Ok(policy)));
    assert!(state.overlays.is_empty(), "the box made place");
    assert!(screen_text(&draw(&mut state)).contains("The security policy is in force"));
}

#[test]
fn json_says_what_is_wrong_while_it_is_typed_and_is_saved_whole() {
    let mut state = opened("en", (100, 30));
    press(&mut state, "f9");
    assert!(screen_text(&draw(&mut state)).contains("\"failed_authentication\""));
    type_text(&mut state, "x");
    assert!(screen_text(&draw(&mut state)).contains("expected"), "{}", screen_text(&draw(&mut state)));
    assert!(calls(press(&mut state, "ctrl-s")).is_empty(), "what is wrong is not sent");
    press(&mut state, "ctrl-u");
    assert!(screen_text(&draw(&mut state)).contains("can be saved"));
    let (_, _, policy) = save(&mut state);
    assert_eq!(policy, SecurityPolicy::default());
}

#[test]
fn what_was_changed_stays_when_the_box_is_closed_and_when_saving_fails() {
    let mut state = opened("en", (80, 24));
    press(&mut state, "left");
    let (ticket, call, _) = save(&mut state);
    let failure = Failure::new(ErrorCode::DbError, "the disk is full");
    answer(&mut state, ticket, Reply::SetPolicy(call, Err(failure)));
    assert!(screen_text(&draw(&mut state)).contains("the disk is full"));
    press(&mut state, "esc");
    assert!(state.overlays.is_empty());
    show(&mut state, SecurityPolicy::default());
    assert!(screen_text(&draw(&mut state)).contains("simulate *"), "it is still there");
}

#[test]
fn a_read_only_console_looks_and_saves_nothing() {
    let mut state = opened("en", (80, 24));
    state.access = flm::tui::ConsoleAccess::ReadOnly;
    assert!(calls(press(&mut state, "left ctrl-s")).is_empty());
}

#[test]
fn the_policy_in_both_forms() {
    for language in LANGUAGES {
        for size in SIZES {
            let name = |what: &str| format!("policy_{what}_{language}_{}x{}", size.0, size.1);
            let mut state = opened(language, size);
            press(&mut state, "j left");
            check(&name("rules"), &mut state);
            press(&mut state, "f9");
            check(&name("json"), &mut state);
        }
    }
}
