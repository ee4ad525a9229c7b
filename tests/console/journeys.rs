//! What people do, as keys in and effects out.

use std::time::Duration;

use flm::tui::action::Action;
use flm::tui::effect::{Effect, Reply, Request};
use flm::tui::overlays::Overlay;
use flm::tui::state::Dirty;
use flm::tui::tabs::Tab;
use flm::tui::update::update;
use flm::tui::{ConsoleEnd, OwnerOrigin};
use flm::types::audit::{AuditKind, Severity};
use flm::types::calls::addresses::NetworkList;
use flm::types::calls::proxy::StartListener;
use flm::types::failure::{ErrorCode, Failure};
use flm::types::language::LANGUAGES;
use flm::types::listener::{ListenerConfig, OwnerKind, ProxyStatus};
use flm::types::live::{LiveEvent, LiveLine, LiveSnapshot, Noun};
use flm::types::prompt::PromptView;

use crate::fixture::{
    NOW, answer, attach, audit_row, busy, calls, console, created_key, draw, empty, happen, press, request,
    screen_text, snapshot, status, type_text, versions,
};
use crate::screens::everywhere;

#[test]
fn a_first_start_detects_starts_the_proxy_and_makes_a_key() {
    let mut state = console("en", (80, 24));
    update(&mut state, Action::Attached(OwnerOrigin::StartedHere));
    let mut stopped = snapshot();
    stopped.status.listeners.clear();
    let line = LiveLine::Snapshot { snapshot: Box::new(stopped), dropped: 0 };
    let asked = calls(update(&mut state, Action::Live(Box::new(line))));
    let has = |wanted: fn(&Request) -> bool| asked.iter().any(|(_, request)| wanted(request));
    assert!(has(|r| matches!(r, Request::DetectEngines(_))));
    assert!(has(|r| matches!(r, Request::StartListener(_))));
    let (ticket, Request::EnsureFirstKey(call)) =
        asked.into_iter().find(|(_, r)| matches!(r, Request::EnsureFirstKey(_))).expect("asks for a first key")
    else {
        panic!("a first key");
    };
    answer(&mut state, ticket, Reply::EnsureFirstKey(call, Ok(Some(created_key()))));
    assert!(matches!(state.overlays.last(), Some(Overlay::Key(_))));
    let copied = press(&mut state, "y");
    assert!(copied.iter().any(|effect| matches!(effect, Effect::Copy(text) if text.starts_with("flm_Ab12Cd34_"))));
}

#[test]
fn attaching_to_a_daemon_that_ran_before_leaves_its_listeners_alone() {
    let mut state = console("en", (80, 24));
    let mut stopped = snapshot();
    stopped.status.listeners.clear();
    let asked = calls(attach(&mut state, stopped));
    assert!(!asked.iter().any(|(_, r)| matches!(r, Request::StartListener(_) | Request::DetectEngines(_))));
}

#[test]
fn attaching_again_reads_again_and_takes_no_first_steps() {
    let mut state = busy("en", (80, 24));
    let failure = Failure::new(ErrorCode::IoError, "gone");
    update(&mut state, Action::Lost { failure, attempt: 1, retry_at: NOW });
    update(&mut state, Action::Attached(OwnerOrigin::StartedHere));
    let line = LiveLine::Snapshot { snapshot: Box::new(snapshot()), dropped: 0 };
    let asked = calls(update(&mut state, Action::Live(Box::new(line))));
    assert!(asked.iter().any(|(_, r)| matches!(r, Request::ListKeys(_))));
    assert!(!asked.iter().any(|(_, r)| matches!(r, Request::EnsureFirstKey(_) | Request::DetectEngines(_))));
}

#[test]
fn a_taken_port_offers_the_free_one() {
    let refused = |language: &str, size| {
        let mut state = busy(language, size);
        let call = StartListener { config: Some(ListenerConfig::default()), unnamed: Vec::new() };
        let failure = Failure::new(ErrorCode::ProxyPortInUse, "port 8484 is held by python3 (pid 17)").suggest("8487");
        answer(&mut state, flm::tui::effect::Ticket(77), Reply::StartListener(call, Err(failure)));
        state
    };
    everywhere("form_port", refused);
    let mut state = refused("en", (80, 24));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("held by python3") && text.contains("8487"), "{text}");
    let asked = calls(press(&mut state, "enter"));
    let [(_, Request::StartListener(StartListener { config: Some(config), .. }))] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(config.port, 8487);
}

#[test]
fn a_form_says_what_is_wrong_while_it_is_typed_and_keeps_what_was_typed_when_it_fails() {
    let mut state = empty("en", (80, 24));
    press(&mut state, "a tab ctrl-u");
    type_text(&mut state, "Bad Name");
    assert!(screen_text(&draw(&mut state)).contains("use 1 to 64 of a-z"));
    press(&mut state, "shift-tab shift-tab");
    assert!(screen_text(&draw(&mut state)).contains("use 1 to 64 of a-z"), "on a button, too");
    press(&mut state, "tab tab");
    assert!(calls(press(&mut state, "enter")).is_empty(), "a faulty form is not sent");
    press(&mut state, "ctrl-u");
    type_text(&mut state, "mine");
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::AddEngine(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((call.id.as_str(), call.url.as_str()), ("mine", "http://127.0.0.1:11434"));
    let failure = Failure::new(ErrorCode::InvalidArgument, "the id is taken").hint("choose another");
    answer(&mut state, *ticket, Reply::AddEngine(call.clone(), Err(failure)));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("the id is taken") && text.contains("mine"), "{text}");
    assert!(calls(press(&mut state, "enter")).len() == 1, "it can be sent again");
}

#[test]
fn removal_asks_first_and_the_focus_is_on_cancel() {
    let mut state = busy("en", (80, 24));
    assert!(calls(press(&mut state, "x enter")).is_empty(), "Enter cancels");
    assert!(state.overlays.is_empty());
    let asked = calls(press(&mut state, "x right enter"));
    assert!(matches!(asked.as_slice(), [(_, Request::RemoveEngine(_))]), "{asked:?}");
}

#[test]
fn clearing_the_block_list_needs_the_word() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "5 C");
    assert!(calls(press(&mut state, "enter")).is_empty());
    type_text(&mut state, "clear");
    let asked = calls(press(&mut state, "enter"));
    assert!(matches!(asked.as_slice(), [(_, Request::ClearBlocks(_))]), "{asked:?}");
}

#[test]
fn only_what_is_on_screen_is_drawn_again() {
    let mut state = busy("en", (80, 24));
    draw(&mut state);
    assert_eq!(state.dirty(), Dirty::Clean);
    happen(&mut state, LiveEvent::Request(Box::new(request(0xffff, 0))));
    assert_eq!(state.dirty(), Dirty::Clean, "requests are not on the Engines tab");
    let engine = state.world.engines[0].clone();
    happen(&mut state, LiveEvent::Engine(Box::new(engine)));
    assert_eq!(state.dirty(), Dirty::Data);
}

#[test]
fn an_idle_console_has_nothing_to_wait_for() {
    let mut state = busy("en", (80, 24));
    for tab in ["1", "2", "3", "4", "6"] {
        press(&mut state, tab);
        assert_eq!(state.next_change(), None, "tab {tab}");
    }
    press(&mut state, "5");
    assert!(state.next_change().is_some_and(|wait| wait <= Duration::from_secs(1)), "a countdown is in view");
}

#[test]
fn a_block_that_ran_out_leaves_the_list_by_itself() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "5");
    assert!(screen_text(&draw(&mut state)).contains("203.0.113.77"));
    state.now = NOW.plus(Duration::from_secs(900));
    update(&mut state, Action::Tick);
    assert!(!screen_text(&draw(&mut state)).contains("203.0.113.77"));
}

/// An address is dealt with where it is seen, whatever the event is.
#[test]
fn the_address_of_any_event_is_blocked_unblocked_trusted_and_allowed() {
    for down in 0..3 {
        let at_event = || {
            let mut state = busy("en", (100, 30));
            press(&mut state, "4");
            for _ in 0..down {
                press(&mut state, "j");
            }
            state
        };
        let mut state = at_event();
        press(&mut state, "b");
        let asked = calls(press(&mut state, "enter"));
        let [(_, Request::AddBlock(call))] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!(call.network.to_string(), "203.0.113.77/32");

        let mut state = at_event();
        press(&mut state, "u");
        assert!(screen_text(&draw(&mut state)).contains("Unblock this address?"));
        let asked = calls(press(&mut state, "y"));
        let [(_, Request::RemoveBlock(call))] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!(call.network.to_string(), "203.0.113.77/32");

        let mut state = at_event();
        press(&mut state, "a");
        let asked = calls(press(&mut state, "enter"));
        let [(_, Request::AddNetwork(call))] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!((call.network.to_string().as_str(), call.list), ("203.0.113.77/32", NetworkList::Trusted));
        let mut state = at_event();
        press(&mut state, "a tab right");
        let asked = calls(press(&mut state, "enter"));
        let [(_, Request::AddNetwork(call))] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!((call.network.to_string().as_str(), call.list), ("203.0.113.77/32", NetworkList::Allow));
    }
    // Nobody is blocked any more, and an event without an address: both are said.
    let mut state = busy("en", (100, 30));
    state.now = NOW.plus(Duration::from_secs(900));
    press(&mut state, "4 u");
    assert!(screen_text(&draw(&mut state)).contains("203.0.113.77 is not blocked"));
    for keys in ["b", "u", "a"] {
        let mut state = busy("en", (100, 30));
        press(&mut state, "4 G");
        assert!(calls(press(&mut state, keys)).is_empty());
        assert!(screen_text(&draw(&mut state)).contains("names no address"), "{keys}");
    }
}

#[test]
fn a_changed_store_is_read_again() {
    let mut state = busy("en", (80, 24));
    let asked = calls(happen(&mut state, LiveEvent::Changed(Noun::Blocklist)));
    assert!(matches!(asked.as_slice(), [(_, Request::ListBlocks(_))]), "{asked:?}");
}

#[test]
fn the_editor_keeps_what_was_typed_through_a_failed_save_and_other_tabs() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "6 e");
    type_text(&mut state, "!precious!");
    let asked = calls(press(&mut state, "ctrl-s"));
    let [(ticket, Request::SetPrompt(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let failure = Failure::new(ErrorCode::DbError, "the disk is full");
    answer(&mut state, *ticket, Reply::SetPrompt(call.clone(), Err(failure)));
    press(&mut state, "esc 1 6 e");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("!precious!") && text.contains("the disk is full"), "{text}");
    assert!(state.prompts.has_unsaved());
}

#[test]
fn q_asks_while_the_proxy_serves_and_control_c_twice_leaves_it_running() {
    let mut state = busy("en", (80, 24));
    assert!(press(&mut state, "q").is_empty());
    assert!(matches!(state.overlays.last(), Some(Overlay::Quit(_))));
    assert!(matches!(press(&mut state, "ctrl-c").as_slice(), [Effect::End(ConsoleEnd::LeaveProxyRunning)]));
    let mut state = busy("en", (80, 24));
    assert!(matches!(press(&mut state, "q s").as_slice(), [Effect::End(ConsoleEnd::StopProxy)]));
}

#[test]
fn in_process_the_dialog_says_that_the_proxy_stops() {
    let mut state = busy("en", (80, 24));
    let mut own = status();
    own.owner = OwnerKind::InProcess;
    happen(&mut state, LiveEvent::Status(Box::new(own)));
    press(&mut state, "q");
    assert!(screen_text(&draw(&mut state)).contains("stops with it"));
    assert!(press(&mut state, "enter").is_empty(), "the focus is on Cancel");
    assert!(matches!(press(&mut state, "q left enter").as_slice(), [Effect::End(ConsoleEnd::StopProxy)]));
}

#[test]
fn quitting_an_owner_that_was_never_reached_does_not_ask() {
    let mut state = console("en", (40, 10));
    assert!(matches!(press(&mut state, "q").as_slice(), [Effect::End(ConsoleEnd::LeaveProxyRunning)]));
}

#[test]
fn settings_switch_language_and_theme_at_once_and_store_them() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "f2");
    let at = |shown: &str| LANGUAGES.iter().position(|language| *language == shown).expect("a language");
    for _ in LANGUAGES {
        let next = LANGUAGES[(at(state.words.language()) + 1) % LANGUAGES.len()];
        let asked = calls(press(&mut state, "right"));
        let [(_, Request::SetSetting(call))] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!((call.key.as_str(), call.value.as_str()), ("preferred_language", next));
        assert!(screen_text(&draw(&mut state)).contains(&*state.words.say("settings.title")));
    }
    let asked = calls(press(&mut state, "down right"));
    assert!(matches!(asked.as_slice(), [(_, Request::SetSetting(call))] if call.key == "console.theme"));
    assert_ne!(state.theme.name, "dark");
}

#[test]
fn del_takes_a_stored_setting_back_to_its_default_and_leaves_what_is_set_elsewhere() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "f2 down down down");
    state.refresh = 4;
    let asked = calls(press(&mut state, "delete"));
    assert!(
        matches!(asked.as_slice(), [(_, Request::UnsetSetting(call))] if call.key == "console.refresh"),
        "{asked:?}"
    );
    assert_eq!(state.refresh, 10);
    // By flm.toml, and by nobody.
    for other in ["down down", "up"] {
        assert!(calls(press(&mut state, &format!("{other} delete"))).is_empty(), "{other}");
    }
}

#[test]
fn a_prompt_that_was_never_saved_is_seen_and_edited_on_when_the_editor_was_left() {
    let mut state = empty("en", (80, 24));
    press(&mut state, "6 a enter");
    type_text(&mut state, "Half a thought");
    press(&mut state, "esc 1 6");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("Half a thought") && text.contains("chat.completions *"), "{text}");
    press(&mut state, "e");
    type_text(&mut state, ", and the rest");
    assert!(screen_text(&draw(&mut state)).contains("Half a thought, and the rest"));
}

#[test]
fn on_a_small_screen_a_whole_request_shows_its_path_and_the_rules_that_it_met() {
    let mut state = busy("en", (80, 24));
    let mut row = audit_row(401, AuditKind::RuleHit, Severity::High, "path_climbing +40: /v1/../../etc");
    row.event.request_id = Some(state.world.requests[1].id);
    happen(&mut state, LiveEvent::Audit(Box::new(row)));
    press(&mut state, "3 j enter");
    let text = screen_text(&draw(&mut state));
    for wanted in ["POST /v1/chat/completions ", "412 + 128 (96 cached)", "first token", "path_climbing +40"] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
}

#[test]
fn a_paste_never_runs_commands() {
    let mut state = busy("en", (80, 24));
    let effects = update(&mut state, Action::Paste("q\nx\nflm_secret".to_owned()));
    assert!(effects.is_empty() && state.overlays.is_empty());
    press(&mut state, "/");
    update(&mut state, Action::Paste("olla\nma".to_owned()));
    assert_eq!(state.filter().input.text(), "ollama");
}

#[test]
fn the_palette_finds_and_runs_a_command() {
    let mut state = busy("en", (80, 24));
    press(&mut state, ":");
    type_text(&mut state, "gomod");
    press(&mut state, "enter");
    assert_eq!((state.tab, state.overlays.len()), (Tab::Models, 0));
}

#[test]
fn escape_goes_one_step_back_and_never_out() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "/ o l enter enter ?");
    for _ in 0..6 {
        assert!(press(&mut state, "esc").is_empty());
    }
    assert!(state.overlays.is_empty() && state.filter().input.is_empty());
}

#[test]
fn a_click_on_a_tab_and_on_a_row() {
    let mut state = busy("en", (80, 24));
    draw(&mut state);
    update(&mut state, Action::Click { column: 16, row: 2 });
    assert_eq!(state.tab, Tab::Models);
    draw(&mut state);
    update(&mut state, Action::Click { column: 10, row: 7 });
    let rows = flm::tui::tab_models::rows(&state);
    assert_eq!(flm::tui::tab_models::selected(&state, &rows), Some(2));
}

#[test]
fn the_demo_starts_nothing_by_itself_and_is_marked() {
    let mut state = console("en", (80, 24));
    update(&mut state, Action::Attached(OwnerOrigin::InProcess));
    let mut demo = LiveSnapshot { ..snapshot() };
    demo.status.demo = true;
    let line = LiveLine::Snapshot { snapshot: Box::new(demo), dropped: 0 };
    let asked = calls(update(&mut state, Action::Live(Box::new(line))));
    assert!(!asked.iter().any(|(_, r)| matches!(r, Request::EnsureFirstKey(_) | Request::DetectEngines(_))));
    assert!(screen_text(&draw(&mut state)).contains("DEMO"));
}

#[test]
fn the_profile_editor_says_what_is_wrong_pins_and_saves() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "2 e tab ctrl-u");
    type_text(&mut state, "9");
    assert!(screen_text(&draw(&mut state)).contains("a number from 0 to 2"));
    assert!(calls(press(&mut state, "enter")).is_empty(), "a faulty form is not sent");
    press(&mut state, "ctrl-u");
    type_text(&mut state, "0.5");
    press(&mut state, "ctrl-t");
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::SaveProfile(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let temperature = call.parameters.iter().find(|value| value.name == "temperature").expect("a value");
    assert_eq!((&temperature.value, temperature.pinned), (&serde_json::json!(0.5), true));
    let failure = Failure::new(ErrorCode::InvalidArgument, "llama.cpp takes no context_length with a request");
    answer(&mut state, *ticket, Reply::SaveProfile(call.clone(), Err(failure)));
    assert!(screen_text(&draw(&mut state)).contains("takes no context_length"), "the form stays and says why");
}

#[test]
fn usage_is_read_when_it_is_shown_again_while_requests_come_and_for_another_span() {
    let mut state = busy("en", (80, 24));
    let reads = |asked: Vec<(_, Request)>| {
        let since = |request: &Request| match request {
            Request::ShowUsage(call) => Some(call.since),
            _ => None,
        };
        asked.iter().filter_map(|(_, request)| since(request)).collect::<Vec<_>>()
    };
    let day = Duration::from_hours(24);
    assert_eq!(reads(calls(press(&mut state, "3 v v"))), [day, day]);
    let row = request(1, 1);
    assert!(reads(calls(happen(&mut state, LiveEvent::Request(Box::new(row.clone()))))).is_empty(), "still fresh");
    state.now = state.now.plus(Duration::from_secs(6));
    assert_eq!(reads(calls(happen(&mut state, LiveEvent::Request(Box::new(row.clone()))))), [day, day]);
    assert_eq!(reads(calls(press(&mut state, "t"))), [day * 7, day * 7]);
    assert_eq!(reads(calls(press(&mut state, "v"))), [day * 7, day * 7], "the load shows them too");
    press(&mut state, "v");
    state.now = state.now.plus(Duration::from_secs(60));
    assert!(reads(calls(happen(&mut state, LiveEvent::Request(Box::new(row))))).is_empty(), "nobody looks");
}

#[test]
fn a_preview_follows_what_is_typed_one_question_at_a_time() {
    let mut state = busy("en", (80, 24));
    let asked = calls(press(&mut state, "6 e f9"));
    let [(ticket, Request::PreviewPrompt(first))] = asked.as_slice() else { panic!("{asked:?}") };
    type_text(&mut state, "ab");
    let more = calls(answer(&mut state, *ticket, Reply::PreviewPrompt(first.clone(), Ok("old".into()))));
    let [(ticket, Request::PreviewPrompt(second))] = more.as_slice() else { panic!("{more:?}") };
    assert!(second.text.ends_with("ab"), "what was typed meanwhile: {}", second.text);
    let failure = Failure::new(ErrorCode::InvalidArgument, "the prompt has a variable {{x}}, which is not known");
    let done = calls(answer(&mut state, *ticket, Reply::PreviewPrompt(second.clone(), Err(failure))));
    assert!(done.is_empty(), "nothing new was typed");
    assert!(screen_text(&draw(&mut state)).contains("which is not known"));
}

#[test]
fn an_old_version_is_restored_from_the_history() {
    let mut state = busy("en", (80, 24));
    let asked = calls(press(&mut state, "6 v"));
    let [(ticket, Request::PromptHistory(call))] = asked.as_slice() else { panic!("{asked:?}") };
    answer(&mut state, *ticket, Reply::PromptHistory(call.clone(), Ok(versions())));
    let asked = calls(press(&mut state, "j j R"));
    let [(ticket, Request::SetPrompt(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(call.text, "You are an assistant.");
    let saved = PromptView { version: 4, text: call.text.clone(), ..versions().remove(0) };
    let then = calls(answer(&mut state, *ticket, Reply::SetPrompt(call.clone(), Ok(saved))));
    assert!(then.iter().any(|(_, request)| matches!(request, Request::PromptHistory(_))), "{then:?}");
}

#[test]
fn a_refused_reload_is_told_once_and_so_is_its_end() {
    let mut state = busy("en", (80, 24));
    let why = "flm.toml, line 2, column 15: no time".to_owned();
    let faulty = ProxyStatus { reload_fault: Some(why), ..status() };
    happen(&mut state, LiveEvent::Status(Box::new(faulty.clone())));
    assert!(state.toasts.iter().any(|toast| toast.text.contains("line 2, column 15")), "{:?}", state.toasts);
    state.toasts.clear();
    happen(&mut state, LiveEvent::Status(Box::new(faulty)));
    assert!(state.toasts.is_empty(), "the same again is no news");
    happen(&mut state, LiveEvent::Status(Box::new(status())));
    assert!(screen_text(&draw(&mut state)).contains("in force"));
}

#[test]
fn a_request_is_asked_again_of_another_model_by_typing_since_bodies_are_not_kept() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "3 j R");
    assert!(screen_text(&draw(&mut state)).contains("was not captured"));
    press(&mut state, "y");
    assert_eq!(state.tab, Tab::Models);
    type_text(&mut state, "qwen");
    press(&mut state, "enter");
    type_text(&mut state, "Why?");
    let asked = calls(press(&mut state, "enter"));
    assert!(matches!(asked.as_slice(), [(_, Request::Chat(call))] if call.model == "qwen3:14b"), "{asked:?}");
}

#[test]
fn the_counts_of_the_last_day_go_on_with_the_events_and_are_read_again_once_a_minute() {
    let mut state = busy("en", (80, 24));
    assert!(calls(press(&mut state, "4")).iter().any(|(_, asked)| matches!(asked, Request::SecurityStats(_))));
    let before = state.world.security_counts.value.as_ref().expect("counts").events;
    let event = |number| LiveEvent::Audit(Box::new(audit_row(number, AuditKind::RuleHit, Severity::High, "x")));
    assert!(calls(happen(&mut state, event(401))).is_empty(), "they are fresh");
    assert_eq!(state.world.security_counts.value.as_ref().expect("counts").events, before + 1);
    state.now = NOW.plus(Duration::from_secs(61));
    let asked = calls(happen(&mut state, event(402)));
    assert!(matches!(asked.as_slice(), [(_, Request::SecurityStats(_))]), "{asked:?}");
}

#[test]
fn a_theme_that_is_saved_is_in_force_at_once_and_a_faulty_one_is_told() {
    use std::collections::BTreeMap;
    let mut state = busy("en", (80, 24));
    let themes = |text: &str| Action::Themes(BTreeMap::from([("dark".to_owned(), text.to_owned())]));
    let before = state.theme.clone();
    update(&mut state, themes("title = \"Mine\"\n[roles]\naccent = \"#ff0000\""));
    assert_eq!(state.theme.title, "Mine");
    assert_ne!(state.theme, before);
    let own = state.theme.clone();
    update(&mut state, themes("[roles]\naccent = \"#f\""));
    assert_eq!(state.theme, own, "the colours stay");
    assert!(screen_text(&draw(&mut state)).contains("write colours as #rrggbb"));
}

#[test]
fn the_palette_finds_commands_of_every_tab_and_goes_where_they_are_valid() {
    let mut state = busy("en", (80, 24));
    press(&mut state, ":");
    type_text(&mut state, "createkey");
    assert!(screen_text(&draw(&mut state)).contains("API keys"), "it says where the command belongs");
    press(&mut state, "enter");
    assert_eq!(state.tab, Tab::Proxy);
    assert!(matches!(state.overlays.last(), Some(Overlay::Form(_))), "the form to make a key is open");
    press(&mut state, "esc 1 :");
    type_text(&mut state, "chattester");
    press(&mut state, "enter");
    type_text(&mut state, "q is a letter here");
    assert_eq!(state.models.chat.input.text(), "q is a letter here");
}

#[test]
fn a_history_that_was_read_goes_on_with_the_checks_that_come() {
    let mut state = busy("en", (80, 24));
    for (ticket, asked) in calls(press(&mut state, "1 enter")) {
        let Request::EngineHealth(call) = asked else { continue };
        let points = crate::fixture::health(call.id.as_ref().expect("one engine"));
        answer(&mut state, ticket, Reply::EngineHealth(call, Ok(points)));
    }
    let mut engine = state.world.engines[0].clone();
    let id = engine.record.id.clone();
    let length = |state: &flm::tui::state::State| {
        state.world.health.get(&id).and_then(|page| page.value.as_ref()).map_or(0, Vec::len)
    };
    let before = length(&state);
    engine.checked = Some(NOW.plus(Duration::from_secs(1)));
    happen(&mut state, LiveEvent::Engine(Box::new(engine.clone())));
    happen(&mut state, LiveEvent::Engine(Box::new(engine)));
    assert_eq!((before, length(&state)), (120, 121), "each check once");
}

#[test]
fn a_removal_is_taken_back_by_one_key() {
    let mut state = busy("en", (100, 30));
    let asked = calls(press(&mut state, "5 x right enter"));
    let [(ticket, Request::RemoveBlock(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let entry = state.world.blocks.value.as_ref().expect("blocks")[0].clone();
    answer(&mut state, *ticket, Reply::RemoveBlock(call.clone(), Ok(entry.clone())));
    assert!(screen_text(&draw(&mut state)).contains("z takes it back"));
    let asked = calls(press(&mut state, "z"));
    let [(_, Request::AddBlock(back))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((back.network, &back.reason), (entry.network, &entry.reason));
    assert!(back.duration.is_some_and(|left| left <= Duration::from_secs(872)), "no longer than it would have lasted");
    assert!(calls(press(&mut state, "z")).is_empty(), "once");

    let engine = state.world.engines[0].record.clone();
    let asked = calls(press(&mut state, "1 g x right enter"));
    let [(ticket, Request::RemoveEngine(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(call.id, engine.id);
    // The owner tells of the removal before it answers.
    happen(&mut state, LiveEvent::EngineRemoved(engine.id.clone()));
    answer(&mut state, *ticket, Reply::RemoveEngine(call.clone(), Ok(())));
    let asked = calls(press(&mut state, "z"));
    let [(_, Request::AddEngine(back))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((&back.id, &back.url), (&engine.id, &engine.url));
}

#[test]
fn esc_ends_a_detection_that_takes_too_long() {
    let mut state = busy("en", (80, 24));
    let asked = calls(press(&mut state, "1 d"));
    let [(ticket, Request::DetectEngines(_))] = asked.as_slice() else { panic!("{asked:?}") };
    let left = press(&mut state, "esc");
    assert!(matches!(left.as_slice(), [Effect::Leave(left)] if left == ticket), "{left:?}");
    assert!(state.pending.is_empty());
}

#[test]
fn an_engine_is_edited_in_place() {
    let mut state = busy("en", (100, 30));
    press(&mut state, "1 g e ctrl-u");
    type_text(&mut state, "http://10.0.0.7:11434");
    let asked = calls(press(&mut state, "enter"));
    let [(_, Request::EditEngine(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((&call.id, call.url.as_str()), (&state.world.engines[0].record.id, "http://10.0.0.7:11434"));
}

#[test]
fn a_block_list_comes_from_a_file_and_goes_into_one() {
    let mut state = busy("en", (100, 30));
    press(&mut state, "5 i");
    type_text(&mut state, "list.txt");
    let asked = press(&mut state, "enter");
    let [Effect::Read { ticket, path }] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(path.ends_with("list.txt"));
    let text = "203.0.113.0/24 # scanners\nnot a network\n".to_owned();
    update(&mut state, Action::FileRead { ticket: *ticket, outcome: Ok(text) });
    assert!(screen_text(&draw(&mut state)).contains("line 2"), "the form says where it is wrong");
    let asked = press(&mut state, "enter");
    let [Effect::Read { ticket, .. }] = asked.as_slice() else { panic!("{asked:?}") };
    let text = "203.0.113.0/24 # scanners\n\n# a note\n2001:db8::/32\n".to_owned();
    let asked = calls(update(&mut state, Action::FileRead { ticket: *ticket, outcome: Ok(text) }));
    let [(ticket, Request::ImportBlocks(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((call.networks.len(), call.networks[0].1.as_str(), call.duration), (2, "scanners", None));
    answer(&mut state, *ticket, Reply::ImportBlocks(call.clone(), Ok(2)));
    assert!(state.overlays.is_empty(), "the form is done");

    let asked = calls(press(&mut state, "E enter"));
    let [(ticket, Request::ListBlocks(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let entries = state.world.blocks.value.clone().expect("blocks");
    let page = flm::types::calls::addresses::BlockPage { total: 6, entries: entries.clone() };
    let asked = calls(answer(&mut state, *ticket, Reply::ListBlocks(call.clone(), Ok(page))));
    let [(ticket, Request::ListBlocks(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(call.offset, 3, "page by page until it is whole");
    let page = flm::types::calls::addresses::BlockPage { total: 6, entries };
    let effects = answer(&mut state, *ticket, Reply::ListBlocks(call.clone(), Ok(page)));
    let [Effect::Write { content, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(content.lines().count(), 6);
    assert!(
        content.contains("203.0.113.77/32  # 5 wrong keys") || content.contains("203.0.113.77  # 5 wrong keys"),
        "{content}"
    );
}
