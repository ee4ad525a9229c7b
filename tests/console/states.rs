//! Pictures of what a person waits for, cannot have, did wrong, or is told: every place that reads while it does and when it
//! fails, every form with what is wrong with its fields, and every toast.

use std::collections::BTreeSet;

use flm::tui::effect::{Reply, Request};
use flm::tui::overlays::Overlay;
use flm::tui::overlays::toasts::Level;
use flm::tui::state::State;
use flm::tui::text;
use flm::types::calls::Access;
use flm::types::failure::{ErrorCode, Failure};
use flm::types::policy::SecurityPolicy;

use crate::fixture::{self, answer, busy, calls, console, draw, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check, everywhere, named};
use crate::{captures, compare, wizard, words};

/// Keys, and words to type behind a `=`.
fn play(state: &mut State, script: &str) -> Vec<flm::tui::effect::Effect> {
    let mut effects = Vec::new();
    for step in script.split(' ') {
        match step.strip_prefix('=') {
            Some(text) if !text.is_empty() => type_text(state, text),
            _ => effects.extend(press(state, step)),
        }
    }
    effects
}

fn failure() -> Failure {
    Failure::new(ErrorCode::DbError, "security.db cannot be read: disk I/O error")
        .hint("free some disk space, or restore a backup: flm security backup restore")
}

/// Attached to a busy home of which no page was read yet.
fn unread(language: &str, size: (u16, u16)) -> (State, Vec<(flm::tui::effect::Ticket, Request)>) {
    let mut state = console(language, size);
    let mut asked = calls(fixture::attach(&mut state, fixture::snapshot()));
    // What is no reading tells its failure in the corner.
    asked.retain(|(_, request)| request.access() == Access::Reads);
    state.toasts.clear();
    draw(&mut state);
    (state, asked)
}

/// The places that show pages of a home, and the keys that lead there while nothing was read.
const PAGES: [(&str, &str); 17] = [
    ("keys", "3 v"),
    ("usage", "3 v v"),
    ("load", "3 v v v"),
    ("allowed", "5 v"),
    ("trusted", "5 v v"),
    ("engine_history", "1 j enter"),
    ("model", "2 enter"),
    ("request", "3 j enter"),
    ("settings", "f2"),
    ("all_settings", "f2 a"),
    ("alerts_inbox", "!"),
    ("alerts_channels", "! tab"),
    ("comparisons", "f7 f8"),
    ("policy", "3 P"),
    ("wizard", "3 w"),
    ("firewall", "3 F"),
    ("firewall_log", "3 F l"),
];

/// The places that look for something when they are asked to, in a home that was read.
const LOOKS: [(&str, &str); 8] = [
    ("detection", "1 d"),
    ("history", "6 v"),
    ("preview", "6 e f9"),
    ("leak", "3 v b"),
    ("exposed", ": e x p o s e - c h e c k enter"),
    ("move_in", ": m o v e - i n enter =/home/ann/.old-flm enter"),
    ("capture", "captured"),
    ("comparison", "saved"),
];

/// A place while it reads, with the calls that it waits for.
fn reading(keys: &str, language: &str, size: (u16, u16)) -> (State, Vec<(flm::tui::effect::Ticket, Request)>) {
    if PAGES.iter().any(|(_, known)| *known == keys) {
        let (mut state, mut asked) = unread(language, size);
        asked.extend(calls(press(&mut state, keys)));
        return (state, asked);
    }
    let mut state = match keys {
        "captured" => captures::captured(language, size, flm::types::capture::Kept::Whole).0,
        _ => busy(language, size),
    };
    let asked = match keys {
        "captured" => press(&mut state, "b"),
        "saved" => {
            let (ticket, asked) = calls(press(&mut state, "f7 f8")).pop().expect("the list is read");
            let Request::ListComparisons(call) = asked else { panic!("{asked:?}") };
            answer(&mut state, ticket, Reply::ListComparisons(call, Ok(compare::entries())));
            press(&mut state, "enter")
        }
        keys => play(&mut state, keys),
    };
    (state, calls(asked))
}

/// The reads of tabs have their pictures in `screens`.
const OF_TABS: [&str; 7] =
    ["ListAudit", "ListBlocks", "ListKeys", "ListPrompts", "PageRequests", "SecurityStats", "ListEngineKinds"];

#[test]
fn every_place_that_reads_while_it_does_and_when_it_cannot() {
    let mut pictured: BTreeSet<String> = OF_TABS.map(str::to_owned).into();
    for (name, keys) in PAGES.iter().chain(&LOOKS) {
        for language in LANGUAGES {
            for size in SIZES {
                let (mut state, mut asked) = reading(keys, language, size);
                assert!(!asked.is_empty(), "{name} asks for something");
                // What takes long shows for how long already.
                state.now = state.now.plus(std::time::Duration::from_secs(3));
                check(&named(&format!("{name}_reading"), language, size), &mut state);
                while let Some((ticket, request)) = asked.pop() {
                    let word = format!("{request:?}");
                    pictured.extend(word.split(['(', ' ']).next().map(str::to_owned));
                    asked.extend(calls(answer(&mut state, ticket, request.failed(failure()))));
                }
                check(&named(&format!("{name}_failed"), language, size), &mut state);
            }
        }
    }
    let reads = Request::ALL.iter().filter(|(_, access)| *access == Access::Reads);
    let missing: Vec<_> = reads.filter(|(name, _)| !pictured.contains(*name)).collect();
    assert!(missing.is_empty(), "no picture of waiting for these and of their failures: {missing:?}");
}

/// Cells of a line in these.
const IN_A_FORM: usize = 70;
const IN_A_TOAST: usize = 64;

/// What is wrong with each form: how it is opened and what is typed into it, before it is sent.
const FAULTS: [(&str, &str); 19] = [
    ("engine", "1 a tab ctrl-u =no,name tab ctrl-u =127.0.0.1:8080 tab =9KEY tab tab =many"),
    ("engine_taken", "1 a tab ctrl-u =ollama"),
    ("edit_engine", "1 e ctrl-u =ftp://gpu"),
    ("pull", "2 p"),
    ("profile", "2 e ctrl-u tab ctrl-u =hot tab =7 tab ctrl-u =some tab =[1] tab =loud tab =large tab ctrl-u =num_gpu"),
    ("profile_nothing", "2 e tab ctrl-u tab ctrl-u tab ctrl-u tab ctrl-u tab ctrl-u tab ctrl-u tab ctrl-u"),
    ("key", "3 v a tab =soon tab ctrl-u =x tab ctrl-u =y tab =z tab =0"),
    ("key_taken", "3 v a =first tab"),
    ("capture", "3 v c ctrl-u =25h"),
    ("block", "4 b ctrl-u =203.0.113 tab ctrl-u =soon"),
    ("import", "5 i tab =soon"),
    ("export_blocks", "5 E ctrl-u"),
    ("allow", "5 v a =nobody"),
    ("trust", "4 a ctrl-u =::1/200"),
    ("chat", "f6 f4 tab =3 tab =0 tab =x"),
    ("compare", "f7 f4 ctrl-u =0 tab =warm"),
    ("webhook", "! tab a enter ctrl-u =Ops! tab tab tab tab tab ctrl-u =nothing tab ctrl-u =2d tab ctrl-u =0"),
    ("move_in", ": m o v e - i n enter"),
    ("ntfy", "! tab a right enter"),
];

/// Whether words stand whole on the screen, in lines of so many cells.
#[track_caller]
pub(crate) fn stands(state: &mut State, words: &str, cells: usize) {
    let shown = screen_text(&draw(state));
    for line in words.split('\n').flat_map(|line| text::wrap(line, cells)) {
        assert!(shown.contains(&line), "{} {:?}: {line} is cut in\n{shown}", state.words.language(), state.size);
    }
}

#[test]
fn every_form_says_what_is_wrong_with_which_field() {
    let mut told: BTreeSet<String> = BTreeSet::new();
    for (name, script) in FAULTS {
        everywhere(&format!("fault_{name}"), |language, size| {
            let mut state = busy(language, size);
            play(&mut state, script);
            if name == "key_taken" {
                // The one with a space.
                press(&mut state, "up space");
                type_text(&mut state, "key");
            }
            let sent = calls(press(&mut state, "enter"));
            assert!(sent.is_empty(), "{name}: {sent:?}");
            let Some(Overlay::Form(form)) = state.overlays.last() else { panic!("{name}: no form") };
            let faults: Vec<_> = form.fields.iter().map(|field| field.told().map(str::to_owned)).collect();
            assert!(faults.iter().any(Option::is_some), "{name}: nothing is wrong");
            for (number, fault) in faults.iter().enumerate() {
                let Some(fault) = fault else { continue };
                let Some(Overlay::Form(mut form)) = state.overlays.pop() else { panic!("{name}: no form") };
                form.focus_on(number);
                state.overlays.push(Overlay::Form(form));
                stands(&mut state, fault, IN_A_FORM);
                if language == "en" {
                    told.insert(fault.clone());
                } else {
                    assert!(!fault.is_ascii(), "{name} {language}: {fault}");
                }
            }
            let first = faults.iter().position(Option::is_some).expect("one is wrong");
            let Some(Overlay::Form(mut form)) = state.overlays.pop() else { panic!("{name}: no form") };
            form.focus_on(first);
            state.overlays.push(Overlay::Form(form));
            state
        });
    }
    for (key, text) in &words::languages()["en"] {
        let last = key.rsplit('.').next().unwrap_or_default();
        let is_rule = last.ends_with("rule") || last.ends_with("taken") || last == "needed";
        // The wizard tells that one too.
        if key.starts_with("form.") && key != "form.port.rule" && is_rule {
            // Limits differ from field to field.
            let known = text.split("%{").next().unwrap_or_default();
            assert!(told.iter().any(|told| told.starts_with(known)), "no form is seen that tells {key}: {text}");
        }
    }
}

#[test]
fn a_form_that_waits_and_one_whose_deed_failed() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            let (ticket, request) = calls(play(&mut state, "1 a enter")).pop().expect("an engine is added");
            state.now = state.now.plus(std::time::Duration::from_secs(2));
            check(&named("form_waiting", language, size), &mut state);
            let mut refused = Failure::new(ErrorCode::EngineNetworkError, "nothing answers at http://127.0.0.1:11434")
                .hint("start the engine, or correct the address");
            refused.request_id = Some("req_0123456789abcdef".to_owned());
            answer(&mut state, ticket, request.failed(refused));
            check(&named("form_failed", language, size), &mut state);
            let mut state = busy(language, size);
            for (ticket, request) in calls(play(&mut state, "6 e =x ctrl-s")) {
                answer(&mut state, ticket, request.failed(failure()));
            }
            check(&named("editor_failed", language, size), &mut state);
            let mut state = busy(language, size);
            for (ticket, asked) in calls(press(&mut state, "3 P")) {
                let Request::ShowPolicy(call) = asked else { continue };
                answer(&mut state, ticket, Reply::ShowPolicy(call, Ok(SecurityPolicy::default())));
            }
            press(&mut state, "f9 x");
            check(&named("fault_policy", language, size), &mut state);
        }
    }
}

/// Pages of the wizard with what is wrong: which page, what is typed into it, and the key of what is told.
const WIZARD_FAULTS: [(&str, &str, &str); 12] = [
    ("bind", "tab ctrl-u =nowhere", "wizard.bind_rule"),
    ("in_clear", "right right right", "wizard.in_clear"),
    ("same_port", "tab tab tab ctrl-u =8494", "wizard.same_port"),
    ("port", "tab tab ctrl-u =99999", "form.port.rule"),
    ("files", "right tab tab tab tab =chain.pem", "wizard.file_rule"),
    ("domains", "acme", "obtain.domains_rule"),
    ("contact", "acme =llm.example.org tab =nobody", "obtain.contact_rule"),
    ("url", "acme =llm.example.org tab =ops@example.org tab right right tab =ca", "obtain.url_rule"),
    ("terms", "acme =llm.example.org tab =ops@example.org", "obtain.terms_rule"),
    ("wildcard", "acme =*.example.org tab =ops@example.org tab tab tab right", "obtain.wildcard_rule"),
    ("server", "acme =*.example.org tab =ops@example.org tab tab right tab right", "obtain.server_rule"),
    ("secret", "acme =*.example.org tab =ops@example.org tab tab right tab left tab =a-b", "obtain.secret_rule"),
];

#[test]
fn the_wizard_says_what_is_wrong_with_which_field() {
    for (name, script, key) in WIZARD_FAULTS {
        everywhere(&format!("wizard_fault_{name}"), |language, size| {
            let mut state = if let Some(rest) = script.strip_prefix("acme") {
                let mut state = wizard::at_certificate(language, size);
                if !rest.is_empty() {
                    play(&mut state, rest.trim_start());
                }
                state
            } else {
                let mut state = wizard::opened(language, size);
                press(&mut state, "enter");
                play(&mut state, script);
                state
            };
            let sent = calls(press(&mut state, "enter"));
            assert!(sent.is_empty(), "{name}: {sent:?}");
            let told = state.words.say(key).into_owned();
            stands(&mut state, &told, usize::from(size.0.min(86)) - 6);
            state
        });
    }
}

/// What stands in the gaps of a toast: as long as such things are.
fn sample(name: &str) -> &'static str {
    match name {
        "path" => "/home/ann/.local/share/flm/backup/flm-20261123-140320Z",
        "network" => "2001:db8:bad:cafe::/64",
        "label" => "ノートPC",
        "id" => "chat.completions@Ab12Cd34",
        "model" => "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
        "address" => "http://127.0.0.1:8484/v1",
        "until" => "2026-11-23 16:03:20",
        "keys" | "parts" => "proxy.workers, proxy.http2, log.format",
        "why" => "/etc/flm/flm.toml, line 2, column 15: engine.gap_timeout cannot be \"fast\"",
        "what" => "the request",
        "key" => "z",
        "count" => "2",
        "news" => "2 × Address blocked",
        other => panic!("no sample of {other}"),
    }
}

/// Every piece of news that there are words for, some at once, as they come in the lower corner.
#[test]
fn every_toast() {
    let english = words::languages().remove("en").expect("English");
    let keys: Vec<&String> = english.keys().filter(|key| key.starts_with("toast.") || *key == "alerts.toast").collect();
    assert!(keys.len() > 40);
    for (number, some) in keys.chunks(4).enumerate() {
        everywhere(&format!("toasts_{number:02}"), |language, size| {
            let mut state = busy(language, size);
            press(&mut state, "5");
            for key in some {
                let gaps = english[*key].split("%{").skip(1).filter_map(|rest| rest.split(['}', '?']).next());
                let values: Vec<(&str, &str)> = gaps.map(|name| (name, sample(name))).collect();
                let note = state.words.fill(key.as_str().to_owned().leak(), &values);
                let level = match key.as_str() {
                    "toast.reload_refused" => Level::Error,
                    "toast.needs_restart" | "toast.read_only" | "toast.suspend_refused" => Level::Warn,
                    _ => Level::Ok,
                };
                state.toast(level, note);
            }
            for toast in state.toasts.clone() {
                stands(&mut state, &toast.text, IN_A_TOAST);
            }
            state
        });
    }
}

#[test]
fn a_failure_and_a_removal_in_the_corner() {
    everywhere("toast_failure", |language, size| {
        let mut state = busy(language, size);
        let (ticket, request) = calls(press(&mut state, "3 r")).pop().expect("a reload");
        let mut failure = failure();
        failure.request_id = Some("req_0123456789abcdef".to_owned());
        answer(&mut state, ticket, request.failed(failure));
        state
    });
    everywhere("toast_undo", |language, size| {
        let mut state = busy(language, size);
        let (ticket, request) = calls(press(&mut state, "1 x y")).pop().expect("a removal");
        let Request::RemoveEngine(call) = request else { panic!("{request:?}") };
        answer(&mut state, ticket, Reply::RemoveEngine(call, Ok(())));
        state
    });
}
