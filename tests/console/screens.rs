//! Whole screens as text, in two languages and three sizes, and laws that hold for every screen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flm::tui::action::Action;
use flm::tui::effect::{Reply, Request};
use flm::tui::state::State;
use flm::tui::text;
use flm::tui::update::update;
use flm::types::audit::{AuditKind, Severity};
use flm::types::calls::keys::CreateKey;
use flm::types::certificate::{CertificateView, TlsStatus};
use flm::types::egress::{EgressMode, EgressState, EgressStatus};
use flm::types::engine::{EngineLoad, Waiting};
use flm::types::failure::{ErrorCode, Failure};
use flm::types::ids::{EngineId, KeyId};
use flm::types::key::{KeyLimits, Priority};
pub(crate) use flm::types::language::LANGUAGES;
use flm::types::listener::{ListenerPhase, Overload, ProxyStatus, TlsMode};
use flm::types::live::LiveEvent;
use flm::types::usage::{UsageReport, UsageSums};

use crate::fixture::{self, busy, calls, console, draw, empty, press, screen_text};

/// The languages whose pictures are compared with reviewed ones; another one keeps the laws of every screen.
const REVIEWED: [&str; 2] = ["en", "ja"];
pub(crate) const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 50)];
const TABS: [(&str, &str); 6] =
    [("1", "engines"), ("2", "models"), ("3", "proxy"), ("4", "security"), ("5", "blocklist"), ("6", "prompts")];

/// The name of a picture; the smallest size goes without saying.
pub(crate) fn named(what: &str, language: &str, size: (u16, u16)) -> String {
    if size == SIZES[0] { format!("{what}_{language}") } else { format!("{what}_{language}_{}x{}", size.0, size.1) }
}

/// The same picture in every language and size.
pub(crate) fn everywhere(what: &str, mut open: impl FnMut(&str, (u16, u16)) -> State) {
    for language in LANGUAGES {
        for size in SIZES {
            check(&named(what, language, size), &mut open(language, size));
        }
    }
}

/// Draws, checks the widths and compares with the reviewed picture.
pub(crate) fn check(name: &str, state: &mut State) {
    let buffer = draw(state);
    check_widths(name, &buffer);
    if !REVIEWED.contains(&state.words.language()) {
        return;
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "snapshots" }, {
        insta::assert_snapshot!(name, screen_text(&buffer));
    });
}

/// No row is wider than the terminal and no wide character hangs over its edge.
fn check_widths(name: &str, buffer: &ratatui::buffer::Buffer) {
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut x = buffer.area.left();
        while x < buffer.area.right() {
            let symbol = buffer[(x, y)].symbol();
            let wide = u16::try_from(text::width(symbol)).expect("narrow").max(1);
            assert!(x + wide <= buffer.area.right(), "{name}: {symbol:?} hangs over row {y}");
            for behind in x + 1..x + wide {
                let hidden = buffer[(behind, y)].symbol();
                assert!(hidden == " " || hidden.is_empty(), "{name}: row {y}: {hidden:?} lies behind {symbol:?}");
            }
            assert!(!symbol.chars().any(char::is_control), "{name}: row {y}: a control character");
            x += wide;
        }
    }
}

#[test]
fn every_tab_with_data() {
    for language in LANGUAGES {
        for size in SIZES {
            for (key, tab) in TABS {
                let mut state = busy(language, size);
                press(&mut state, key);
                check(&format!("{tab}_{language}_{}x{}", size.0, size.1), &mut state);
            }
        }
    }
}

/// Place in the queue and how long already (SPEC §3.8).
#[test]
fn an_engines_details_tell_who_waits_for_a_slot_in_which_order_and_since_when() {
    for (language, lines) in [
        ("en", ["Waiting for a slot", "1. ノートPC, since 14:02:18", "2. first key, since 14:01:20"]),
        ("ja", ["スロット", "1. ノートPC（14:02:18 から）", "2. first key（14:01:20 から）"]),
    ] {
        let mut state = busy(language, (120, 40));
        let waits = |key: &str, priority, seconds| Waiting {
            key: KeyId::parse(key).expect("an id"),
            priority,
            since: fixture::NOW.minus(Duration::from_secs(seconds)),
        };
        let load = EngineLoad {
            engine: EngineId::parse("llamacpp-8080").expect("an id"),
            in_flight: 2,
            queued: 2,
            slots: 4,
            // Served in the order of their priority, not of their arrival.
            waiting: vec![waits("Qw34Er56", Priority::High, 62), waits("Ab12Cd34", Priority::Low, 120)],
        };
        fixture::happen(&mut state, LiveEvent::Load(vec![load]));
        press(&mut state, "1 enter");
        let text = screen_text(&draw(&mut state));
        // Behind a wide character stands the blank that it covers.
        let narrow = |text: &str| text.replace(' ', "");
        for line in lines {
            assert!(narrow(&text).contains(&narrow(line)), "{line} in\n{text}");
        }
    }
}

/// SPEC §9: state and address, requests with sparkline, p95, streams, tokens, blocks and unread alerts, whatever is in front.
#[test]
fn the_header_tells_everything_over_every_tab_from_80_columns_on() {
    let figures = ["header.per_second", "header.tokens", "header.blocked", "proxy.running"];
    for language in LANGUAGES {
        for size in SIZES {
            for (key, tab) in TABS {
                let mut state = busy(language, size);
                press(&mut state, key);
                let screen = screen_text(&draw(&mut state));
                let header: Vec<&str> = screen.lines().take(2).collect();
                let header = header.join("\n");
                let counted =
                    |key, count: u64| format!("{count} {}", state.words.fill(key, &[("count", &count.to_string())]));
                let streams = state.world.traffic.active_streams;
                let counts = [counted("header.alerts", 0), counted("header.streams", streams.into())];
                let words = figures.map(|figure| state.words.say(figure).into_owned());
                let fixed = ["http://127.0.0.1:8484/v1", "p95 842 ms", "▇"].map(str::to_owned);
                for wanted in words.iter().chain(&counts).chain(&fixed) {
                    assert!(header.contains(wanted), "{tab} {language} {size:?}: no {wanted} in\n{header}");
                }
            }
        }
    }
}

#[test]
fn an_engine_shows_its_latency_and_its_errors_over_an_hour() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            for (ticket, asked) in calls(press(&mut state, "1 j enter")) {
                let Request::EngineHealth(call) = asked else { continue };
                let points = fixture::health(call.id.as_ref().expect("one engine"));
                fixture::answer(&mut state, ticket, Reply::EngineHealth(call, Ok(points)));
            }
            check(&format!("engine_history_{language}_{}x{}", size.0, size.1), &mut state);
        }
    }
}

#[test]
fn a_request_shows_the_rules_that_it_met() {
    everywhere("request_rules", |language, size| {
        let mut state = busy(language, size);
        let id = flm::types::ids::RequestId::from_random(0x33_3333);
        let mut row = fixture::audit_row(401, AuditKind::RuleHit, Severity::High, "path_climbing +40: /v1/../../etc");
        row.event.request_id = Some(id);
        fixture::happen(&mut state, LiveEvent::Audit(Box::new(row)));
        press(&mut state, if size.0 < 100 { "3 j j enter" } else { "3 j j" });
        state
    });
}

#[test]
fn every_tab_without_data() {
    for language in LANGUAGES {
        for size in SIZES {
            for (key, tab) in TABS {
                let mut state = empty(language, size);
                press(&mut state, key);
                check(&named(&format!("{tab}_empty"), language, size), &mut state);
            }
        }
    }
}

#[test]
fn every_tab_while_its_pages_are_read_and_when_they_cannot_be() {
    let failure = || Failure::new(ErrorCode::DbError, "security.db cannot be read: disk I/O error");
    for language in LANGUAGES {
        for size in SIZES {
            for (key, tab) in TABS {
                let mut state = console(language, size);
                let mut asked = calls(fixture::attach(&mut state, fixture::nothing()));
                state.toasts.clear();
                asked.extend(calls(press(&mut state, key)));
                check(&named(&format!("{tab}_reading"), language, size), &mut state);
                while let Some((ticket, request)) = asked.pop() {
                    asked.extend(calls(fixture::answer(&mut state, ticket, request.failed(failure()))));
                }
                state.toasts.clear();
                check(&named(&format!("{tab}_failed"), language, size), &mut state);
            }
        }
    }
}

#[test]
fn the_first_frame_and_a_lost_owner() {
    for language in LANGUAGES {
        for size in SIZES {
            check(&named("connecting", language, size), &mut console(language, size));
            let mut state = console(language, size);
            let failure = Failure::new(ErrorCode::IoError, "nothing answers at /run/flm/control.sock")
                .hint("start it with 'flm proxy start'");
            update(&mut state, Action::Lost { failure: failure.clone(), attempt: 3, retry_at: fixture::NOW });
            check(&named("lost", language, size), &mut state);
            let mut state = busy(language, size);
            update(&mut state, Action::Lost { failure, attempt: 3, retry_at: fixture::NOW });
            press(&mut state, "3");
            check(&named("lost_with_data", language, size), &mut state);
        }
    }
}

#[test]
fn details_take_the_place_of_the_list_on_a_narrow_screen() {
    for language in LANGUAGES {
        for (keys, name) in
            [("1 enter", "engine"), ("2 enter", "model"), ("3 j enter", "request"), ("4 enter", "event")]
        {
            for size in SIZES {
                let mut state = busy(language, size);
                press(&mut state, keys);
                check(&named(&format!("detail_{name}"), language, size), &mut state);
            }
        }
    }
}

#[test]
fn every_view_and_box() {
    for language in LANGUAGES {
        for (keys, name) in [
            ("3 v", "keys"),
            ("3 v j enter", "key_detail"),
            ("5 v v", "trusted"),
            ("6 e", "editor"),
            ("?", "help"),
            (":", "palette"),
            (": s t o p", "palette_search"),
            ("3 R", "replay"),
            ("f2", "settings"),
            ("f2 a", "all_settings"),
            ("2 e", "form_profile"),
            ("2 D", "confirm_profile"),
            ("q", "quit"),
            ("1 a", "form_engine"),
            ("3 v a", "form_key"),
            ("4 b", "form_block"),
            ("1 x", "confirm"),
            ("5 C c l e", "confirm_typed"),
            ("/ o l l", "filter"),
            ("1 e", "form_edit_engine"),
            ("5 i", "form_import"),
            ("5 E", "form_export_blocks"),
            ("4 v t s", "security_sorted"),
            ("3 o o o o", "requests_sorted"),
            ("/ z z z enter", "filter_nothing"),
            ("5 v", "allowed_empty"),
            ("5 v a", "form_allow"),
            ("5 v v a", "form_trust"),
            ("5 v v x", "confirm_network"),
            ("5 x", "confirm_unblock"),
            ("3 v x", "confirm_revoke"),
            ("3 v o", "confirm_rotate"),
            ("3 S", "confirm_stop"),
            ("6 x", "confirm_prompt"),
            ("6 e a f8", "confirm_discard"),
            ("f7 f4", "form_compare"),
        ] {
            for size in SIZES {
                let mut state = busy(language, size);
                press(&mut state, keys);
                check(&named(name, language, size), &mut state);
            }
        }
    }
}

#[test]
fn every_view_without_data() {
    for (keys, name) in [("3 v", "keys_empty"), ("3 v v v", "load_empty"), ("5 v v", "trusted_empty")] {
        everywhere(name, |language, size| {
            let mut state = empty(language, size);
            press(&mut state, keys);
            state
        });
    }
    everywhere("usage_empty", |language, size| {
        let mut state = empty(language, size);
        for (ticket, asked) in calls(press(&mut state, "3 v v")) {
            let Request::ShowUsage(call) = asked else { continue };
            let report =
                UsageReport { by: call.by, since: fixture::NOW, rows: Vec::new(), total: UsageSums::default() };
            fixture::answer(&mut state, ticket, Reply::ShowUsage(call, Ok(report)));
        }
        state
    });
}

#[test]
fn what_a_detection_found() {
    for (name, found) in [("detected", 3), ("detected_nothing", 0)] {
        everywhere(name, |language, size| {
            let mut state = busy(language, size);
            for (ticket, asked) in calls(press(&mut state, "1 d")) {
                let Request::DetectEngines(call) = asked else { continue };
                let report = fixture::detection(found);
                fixture::answer(&mut state, ticket, Reply::DetectEngines(call, Ok(report)));
            }
            state.toasts.clear();
            state
        });
    }
}

/// Places in full-width letters take two cells for each.
#[test]
fn what_stands_behind_a_place_is_aligned_whatever_its_letters() {
    let mut state = busy("ja", (120, 40));
    let (ticket, asked) = calls(press(&mut state, "1 d")).pop().expect("a detection");
    let Request::DetectEngines(call) = asked else { panic!("{asked:?}") };
    fixture::answer(&mut state, ticket, Reply::DetectEngines(call, Ok(fixture::detection(3))));
    let shown = screen_text(&draw(&mut state));
    let lines: Vec<&str> =
        shown.lines().filter(|line| line.contains("(port 11434)") || line.contains("(process 42")).collect();
    let narrow = text::width(lines[0].split("0.12.6").next().expect("a version"));
    let wide = shown.lines().find(|line| line.contains("ツール")).expect("the program");
    let off = text::width(wide.split("  -  ").next().expect("no version")) + 2;
    assert_eq!((lines.len(), off), (2, narrow), "{shown}");
}

/// The reviewed pictures by what they show: languages and sizes of each.
fn reviewed() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut found: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for (name, _) in pictures() {
        let (rest, size) = match name.rsplit_once('_') {
            Some((rest, size)) if size.starts_with(|c: char| c.is_ascii_digit()) => (rest, size),
            _ => (name.as_str(), "80x24"),
        };
        let (what, language) = rest.rsplit_once('_').expect("a language");
        found.entry(what.to_owned()).or_default().insert((language.to_owned(), size.to_owned()));
    }
    found
}

/// Names and texts of the reviewed pictures.
fn pictures() -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/snapshots");
    let files = std::fs::read_dir(folder).expect("lists").filter_map(Result::ok).map(|file| file.path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("reads"))
    };
    files.filter(|path| path.extension().is_some_and(|end| end == "snap")).map(read).collect()
}

/// A size of its own has no others.
const OF_ITS_OWN_SIZE: [&str; 2] = ["small", "smallest_usable"];

#[test]
fn every_picture_is_there_in_every_size_and_reviewed_language() {
    let sizes = SIZES.map(|(columns, rows)| format!("{columns}x{rows}"));
    let whole: BTreeSet<(String, String)> =
        REVIEWED.iter().flat_map(|language| sizes.iter().map(|size| ((*language).to_owned(), size.clone()))).collect();
    let all = reviewed();
    assert!(all.len() > 100);
    for (what, found) in all.iter().filter(|(what, _)| !OF_ITS_OWN_SIZE.contains(&what.as_str())) {
        assert_eq!(found, &whole, "{what}");
    }
}

/// Every box has a title and every list that can be empty says so, in words of their own; each of them was looked at.
#[test]
fn every_box_and_every_empty_list_is_among_the_pictures() {
    let seen = |text: &str| text.replace(char::is_whitespace, "");
    let shown: Vec<String> =
        pictures().iter().filter(|(name, _)| name.contains("_en")).map(|(_, text)| seen(text)).collect();
    let english = crate::words::languages().remove("en").expect("English");
    for (key, words) in &english {
        let last = key.rsplit('.').next().unwrap_or_default();
        if !["title", "empty"].iter().any(|kind| last == *kind || last.ends_with(&format!("_{kind}"))) {
            continue;
        }
        // What is put in differs from picture to picture.
        let pieces = words.split("%{").map(|piece| piece.split_once('}').map_or(piece, |(_, rest)| rest));
        let piece = seen(pieces.max_by_key(|piece| piece.len()).unwrap_or_default());
        assert!(shown.iter().any(|text| text.contains(&piece)), "no picture shows {key}: {words}");
    }
}

#[test]
fn a_copy_once_more_shows_what_was_copied() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            press(&mut state, "3 Y");
            assert!(state.overlays.is_empty());
            assert!(press(&mut state, "Y").is_empty(), "nothing is sent to a terminal that may not take it");
            check(&named("copied", language, size), &mut state);
        }
    }
}

#[test]
fn what_was_used_and_a_refused_reload() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            for (ticket, asked) in calls(press(&mut state, "3 v v")) {
                let Request::ShowUsage(call) = asked else { continue };
                let report = fixture::usage(call.by);
                fixture::answer(&mut state, ticket, Reply::ShowUsage(call, Ok(report)));
            }
            check(&format!("usage_{language}_{}x{}", size.0, size.1), &mut state);
            press(&mut state, "v");
            check(&format!("load_{language}_{}x{}", size.0, size.1), &mut state);
        }
        for size in SIZES {
            let mut state = busy(language, size);
            press(&mut state, "3");
            let why = "/etc/flm/flm.toml, line 2, column 15: engine.gap_timeout cannot be \"fast\"".to_owned();
            let status = ProxyStatus { reload_fault: Some(why), ..fixture::status() };
            fixture::happen(&mut state, LiveEvent::Status(Box::new(status)));
            check(&named("reload_refused", language, size), &mut state);
        }
    }
}

/// The status of a listener with TLS.
fn with_tls(tls: TlsStatus) -> ProxyStatus {
    let mut status = fixture::status();
    let listener = &mut status.listeners[0];
    listener.config.mode = TlsMode(TlsMode::HTTPS_ACME.to_owned());
    (listener.config.port, listener.config.https_port) = (80, Some(443));
    listener.addresses = vec!["https://llm.example.org".to_owned()];
    if tls.certificate.is_none() {
        listener.phase = ListenerPhase::Obtaining;
    }
    listener.tls = Some(tls);
    status
}

#[test]
fn a_certificate_that_is_obtained_served_failing_and_a_stand_in() {
    let day = std::time::Duration::from_hours(24);
    let certificate = CertificateView {
        names: vec!["llm.example.org".to_owned()],
        subject: String::new(),
        issuer: "C=US, O=Let's Encrypt, CN=E7".to_owned(),
        not_before: fixture::NOW.minus(day * 30),
        not_after: fixture::NOW.plus(day * 60),
        fingerprint: "AB:CD".to_owned(),
    };
    let good = TlsStatus {
        certificate: Some(certificate.clone()),
        next_renewal: Some(fixture::NOW.plus(day * 30)),
        ..TlsStatus::default()
    };
    let stand_in = CertificateView { issuer: "CN=FLM, self-signed".to_owned(), ..certificate };
    let failed = "could not be checked by http-01: 203.0.113.7: Timeout during connect (connection)";
    let step = "the ACME directory checks llm.example.org by http-01";
    for (name, tls) in [
        ("obtaining", TlsStatus { progress: Some(step.to_owned()), ..TlsStatus::default() }),
        ("good", good.clone()),
        ("failing", TlsStatus { last_error: Some(format!("llm.example.org {failed}")), ..good.clone() }),
        ("renewing", TlsStatus { progress: Some(step.to_owned()), ..good.clone() }),
        (
            "stand_in",
            TlsStatus {
                certificate: Some(stand_in),
                warning: Some("SELF-SIGNED: nobody can tell this server from an impostor".to_owned()),
                last_error: Some(failed.to_owned()),
                ..good
            },
        ),
    ] {
        for language in LANGUAGES {
            for size in SIZES {
                let mut state = busy(language, size);
                fixture::happen(&mut state, LiveEvent::Status(Box::new(with_tls(tls.clone()))));
                press(&mut state, "3");
                check(&format!("tls_{name}_{language}_{}x{}", size.0, size.1), &mut state);
            }
        }
    }
}

#[test]
fn badges_of_the_header() {
    let egress = |state| EgressStatus {
        mode: EgressMode::Tor,
        endpoint: Some("127.0.0.1:9050".to_owned()),
        state,
        last_error: Some("connection refused".to_owned()),
        ..EgressStatus::default()
    };
    let mut clear = fixture::status();
    clear.listeners[0].config.insecure_plain_http = true;
    clear.listeners[0].config.bind = std::net::Ipv4Addr::UNSPECIFIED.into();
    for (name, status) in [
        ("in_clear", clear),
        ("egress_down", ProxyStatus { egress: egress(EgressState::Unreachable), ..fixture::status() }),
        ("egress_open", ProxyStatus { egress: egress(EgressState::FallenBack), ..fixture::status() }),
        ("processor", ProxyStatus { overload: Some(Overload::Processor { percent: 97 }), ..fixture::status() }),
        ("memory", ProxyStatus { overload: Some(Overload::Memory { free_megabytes: 120 }), ..fixture::status() }),
        (
            "simulating",
            ProxyStatus { simulating: vec!["honeypot".to_owned(), "address_rate".to_owned()], ..fixture::status() },
        ),
        ("group", ProxyStatus { overload: Some(Overload::ControlGroup { free_megabytes: 64 }), ..fixture::status() }),
    ] {
        for language in LANGUAGES {
            for size in SIZES {
                let mut state = busy(language, size);
                fixture::happen(&mut state, LiveEvent::Status(Box::new(status.clone())));
                press(&mut state, "3");
                check(&format!("badge_{name}_{language}_{}x{}", size.0, size.1), &mut state);
            }
        }
    }
}

/// SPEC §6: red in the header.
#[test]
fn a_listener_in_clear_is_red_in_the_header_whatever_stands_in_front_of_it() {
    let mut status = fixture::status();
    let mut second = status.listeners[0].clone();
    second.config.port = 8494;
    second.config.bind = std::net::Ipv4Addr::UNSPECIFIED.into();
    second.config.insecure_plain_http = true;
    status.listeners.push(second);
    let mut state = busy("en", (100, 30));
    let header = |state: &mut State| screen_text(&draw(state)).lines().next().map(str::to_owned).expect("a header");
    assert!(!header(&mut state).contains("IN CLEAR"));
    fixture::happen(&mut state, LiveEvent::Status(Box::new(status.clone())));
    let told = header(&mut state);
    let at = told.find("IN CLEAR :8494").unwrap_or_else(|| panic!("{told}"));
    let cell = told[..at].chars().count();
    let shown = &draw(&mut state)[(u16::try_from(cell).expect("fits"), 0)];
    assert_eq!((shown.symbol(), Some(shown.fg)), ("I", state.theme.style(flm::tui::theme::Role::Error).fg));

    status.listeners[1].phase = ListenerPhase::Stopped;
    fixture::happen(&mut state, LiveEvent::Status(Box::new(status)));
    assert!(!header(&mut state).contains("IN CLEAR"), "what does not run tells nothing to anybody");
}

#[test]
fn versions_side_by_side_and_a_preview_beside_the_editor() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            for (ticket, asked) in calls(press(&mut state, "6 v")) {
                let Request::PromptHistory(call) = asked else { continue };
                fixture::answer(&mut state, ticket, Reply::PromptHistory(call, Ok(fixture::versions())));
            }
            press(&mut state, "j");
            check(&format!("history_{language}_{}x{}", size.0, size.1), &mut state);
            press(&mut state, "esc");
            for (ticket, asked) in calls(press(&mut state, "e f9")) {
                let Request::PreviewPrompt(call) = asked else { continue };
                let text = call.text.replace("{{date}}", "2026-11-23");
                fixture::answer(&mut state, ticket, Reply::PreviewPrompt(call, Ok(text)));
            }
            check(&format!("preview_{language}_{}x{}", size.0, size.1), &mut state);
        }
    }
}

#[test]
fn a_new_key_is_shown_with_a_request_that_is_ready_to_run() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            let call = CreateKey { label: "first key".to_owned(), expires_in: None, limits: KeyLimits::default() };
            let reply = Reply::CreateKey(call, Ok(fixture::created_key()));
            fixture::answer(&mut state, flm::tui::effect::Ticket(9999), reply);
            check(&named("new_key", language, size), &mut state);
        }
    }
}

#[test]
fn a_small_terminal_says_so_and_a_smaller_one_still_draws() {
    for language in LANGUAGES {
        check(&format!("small_{language}"), &mut busy(language, (40, 10)));
        check(&format!("smallest_usable_{language}"), &mut busy(language, (60, 15)));
        for size in [(1, 1), (2, 1), (5, 3), (59, 40), (300, 14), (61, 16)] {
            check_widths("any size", &draw(&mut busy(language, size)));
        }
    }
}

#[test]
fn ascii_mode_draws_no_frame_or_sign_outside_ascii() {
    for (key, _) in TABS {
        let mut state = empty("en", (80, 24));
        state.characters = flm::tui::widgets::symbols::CharacterSet::Ascii;
        press(&mut state, key);
        let text = screen_text(&draw(&mut state));
        assert!(text.is_ascii(), "{text}");
    }
}

#[test]
fn hostile_text_from_clients_is_escaped() {
    let mut state = busy("en", (200, 50));
    press(&mut state, "3 j j");
    assert!(screen_text(&draw(&mut state)).contains("\\x1b[31mevil"));
}
