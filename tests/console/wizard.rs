//! The setup wizard: looks first, loses nothing on the way back, says what it will change, and does it step by step.

use flm::tui::action::Action;
use flm::tui::effect::{Effect, Reply, Request, Ticket};
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::update::update;
use flm::types::calls::policy::SetPolicy;
use flm::types::calls::proxy::StartListener;
use flm::types::calls::publish::{
    CheckPublish, ModeInfo, PortFinding, PortPurpose, PortState, PublishReport, WirePrivacy,
};
use flm::types::certificate::TlsStatus;
use flm::types::failure::{ErrorCode, Failure};
use flm::types::listener::{Exposure, ListenerConfig, ListenerPhase, ListenerStatus};
use flm::types::live::LiveEvent;
use flm::types::policy::{Mode, RuleName, SecurityPolicy};

use crate::fixture::{self, answer, busy, calls, draw, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check};

fn report(config: &ListenerConfig) -> PublishReport {
    let mode = |name: &str, title: &str, privacy| ModeInfo { name: name.to_owned(), title: title.to_owned(), privacy };
    let port = |port, purpose| PortFinding { port, purpose, state: PortState::Free };
    let policy = SecurityPolicy { ..SecurityPolicy::default() };
    PublishReport {
        exposure: Exposure::Local,
        modes: vec![
            mode("local-http", "plain HTTP on this machine", WirePrivacy::InClear),
            mode("dev-selfsigned", "a self-signed certificate", WirePrivacy::Kept),
            mode("packaged-ca", "a certificate of FLM's own authority", WirePrivacy::Kept),
            mode("certificate-files", "your own certificate", WirePrivacy::Kept),
            mode("https-acme", "a certificate from an ACME directory", WirePrivacy::Kept),
        ],
        addresses: vec!["192.168.1.20".parse().expect("parses"), "fd00::20".parse().expect("parses")],
        names: vec!["workstation".to_owned(), "workstation.local".to_owned()],
        ports: vec![port(config.port, PortPurpose::Plain), port(config.https_port.unwrap_or(0), PortPurpose::Tls)],
        privacy: WirePrivacy::Kept,
        keys: 2,
        allowed: 0,
        policy: SecurityPolicy { rules: policy.rules.clone().all_in(Mode::Simulate), ..policy },
    }
}

fn asked_to_look(effects: Vec<Effect>) -> (Ticket, CheckPublish) {
    let asked = calls(effects).pop();
    let Some((ticket, Request::CheckPublish(call))) = asked else { panic!("{asked:?}") };
    (ticket, call)
}

/// A console whose wizard has looked.
pub(crate) fn opened(language: &str, size: (u16, u16)) -> State {
    let mut state = busy(language, size);
    let (ticket, call) = asked_to_look(press(&mut state, "3 w"));
    let found = report(&call.config);
    answer(&mut state, ticket, Reply::CheckPublish(call, Ok(found)));
    state
}

/// The same on the page after mode and ports.
pub(crate) fn at_policy(language: &str, size: (u16, u16)) -> State {
    let mut state = opened(language, size);
    press(&mut state, "enter");
    let (ticket, call) = asked_to_look(press(&mut state, "enter"));
    let found = report(&call.config);
    answer(&mut state, ticket, Reply::CheckPublish(call, Ok(found)));
    state
}

fn started(config: ListenerConfig) -> ListenerStatus {
    ListenerStatus {
        addresses: vec!["https://192.168.1.20:8495/v1".to_owned(), "https://workstation.local:8495/v1".to_owned()],
        phase: ListenerPhase::Running,
        started: Some(fixture::NOW),
        tls: None,
        config,
    }
}

#[test]
fn it_looks_asks_and_does_what_the_summary_says_in_that_order() {
    let mut state = at_policy("en", (100, 30));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("0 enforce, 13 simulate"), "{text}");
    assert!(calls(press(&mut state, "enter")).is_empty(), "nothing is done before the summary was seen");
    let text = screen_text(&draw(&mut state));
    for wanted in [
        "All rules of the security policy enforce",
        "0.0.0.0:8494, mode packaged-ca, TLS on port 8495",
        "http://127.0.0.1:8484/v1 stays",
    ] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::SetPolicy(SetPolicy { json }))] = asked.as_slice() else { panic!("{asked:?}") };
    let policy = SecurityPolicy::parse(json).expect("a policy");
    assert!(RuleName::ALL.iter().all(|rule| policy.rules.scoring(*rule).mode == Mode::Enforce));
    assert!(calls(press(&mut state, "enter")).is_empty(), "one after the other");
    let call = SetPolicy { json: json.clone() };
    let asked = calls(answer(&mut state, *ticket, Reply::SetPolicy(call, Ok(policy))));
    let [(ticket, Request::StartListener(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let config = call.config.clone().expect("a listener");
    assert_eq!((config.port, config.https_port, config.insecure_plain_http), (8494, Some(8495), false));
    answer(&mut state, *ticket, Reply::StartListener(call.clone(), Ok(started(config))));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("https://192.168.1.20:8495/v1"), "{text}");
    let asked = calls(press(&mut state, "enter"));
    assert!(asked.iter().any(|(_, asked)| matches!(asked, Request::PreviewFirewall(_))), "{asked:?}");
    assert!(matches!(state.overlays.as_slice(), [Overlay::Firewall(_)]), "the firewall's box takes the wizard's place");
}

/// A certificate of the world may take minutes: it is told how far it is, and the start can be broken off (issue 6).
#[test]
fn a_start_that_waits_for_its_certificate_tells_how_far_it_is_and_is_broken_off() {
    let mut state = at_policy("en", (100, 30));
    press(&mut state, "enter");
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::SetPolicy(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let policy = SecurityPolicy::parse(&call.json).expect("a policy");
    assert!(calls(press(&mut state, "esc")).is_empty(), "what is stored takes no time");
    let asked = calls(answer(&mut state, *ticket, Reply::SetPolicy(call.clone(), Ok(policy))));
    let [(ticket, Request::StartListener(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let mut status = fixture::status();
    let step = "the ACME directory checks llm.example.org by http-01";
    let mut obtaining = started(call.config.clone().expect("a listener"));
    obtaining.phase = ListenerPhase::Obtaining;
    obtaining.tls = Some(TlsStatus { progress: Some(step.to_owned()), ..TlsStatus::default() });
    status.listeners.push(obtaining);
    fixture::happen(&mut state, LiveEvent::Status(Box::new(status)));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("ACME directory checks llm.example.org") && text.contains("Cancel it"), "{text}");
    assert!(!text.contains("192.168.1.20:8495/v1 stays"), "the new one is not among those that stay: {text}");
    let effects = press(&mut state, "esc");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Leave(left) if left == ticket)), "{effects:?}");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("cancelled; the same button tries again"), "{text}");
    let asked = calls(press(&mut state, "enter"));
    assert!(matches!(asked.as_slice(), [(_, Request::StartListener(_))]), "the policy is not set again: {asked:?}");
}

#[test]
fn going_back_and_closing_lose_nothing_that_was_typed() {
    let mut state = opened("en", (100, 30));
    press(&mut state, "enter tab tab ctrl-u");
    type_text(&mut state, "9000");
    assert!(screen_text(&draw(&mut state)).contains("9001"), "the port for TLS follows");
    press(&mut state, "esc esc");
    assert!(state.overlays.is_empty(), "closed from the first page");
    let (ticket, call) = asked_to_look(press(&mut state, "f12"));
    assert_eq!((call.config.port, call.config.https_port), (9000, Some(9001)));
    let found = report(&call.config);
    answer(&mut state, ticket, Reply::CheckPublish(call, Ok(found)));
    press(&mut state, "enter");
    assert!(screen_text(&draw(&mut state)).contains("9000"));
}

#[test]
fn a_port_that_is_held_or_forbidden_is_told_beside_its_field_and_stops_the_way() {
    let mut state = opened("en", (100, 30));
    press(&mut state, "enter");
    let (ticket, call) = asked_to_look(press(&mut state, "enter"));
    let mut found = report(&call.config);
    found.ports[0].state = PortState::Held { by: Some("nginx (17)".to_owned()), free: Some(8496) };
    answer(&mut state, ticket, Reply::CheckPublish(call, Ok(found)));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("held by nginx (17); 8496 is free"), "{text}");
    press(&mut state, "ctrl-u");
    type_text(&mut state, "80");
    let (ticket, call) = asked_to_look(press(&mut state, "enter"));
    let mut found = report(&call.config);
    found.ports[0].state = PortState::Forbidden;
    answer(&mut state, ticket, Reply::CheckPublish(call, Ok(found)));
    assert!(screen_text(&draw(&mut state)).contains("CAP_NET_BIND_SERVICE"));
}

#[test]
fn keys_in_clear_over_a_network_are_refused_and_wrong_fields_say_why() {
    let mut state = opened("en", (100, 30));
    press(&mut state, "enter right right right");
    assert!(screen_text(&draw(&mut state)).contains("in clear over the network"));
    assert!(calls(press(&mut state, "enter")).is_empty());
    press(&mut state, "left tab ctrl-u");
    type_text(&mut state, "nowhere");
    assert!(screen_text(&draw(&mut state)).contains("write an IP address"));
    assert!(calls(press(&mut state, "enter")).is_empty());
}

#[test]
fn a_step_that_fails_says_why_and_what_was_done_is_not_done_again() {
    let mut state = at_policy("en", (100, 30));
    press(&mut state, "enter");
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::SetPolicy(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let policy = SecurityPolicy::parse(&call.json).expect("a policy");
    let asked = calls(answer(&mut state, *ticket, Reply::SetPolicy(call.clone(), Ok(policy))));
    let [(ticket, Request::StartListener(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let failure = Failure::new(ErrorCode::ProxyPortInUse, "port 8494 was taken meanwhile").hint("choose another port");
    answer(&mut state, *ticket, Reply::StartListener(call.clone(), Err(failure)));
    assert!(screen_text(&draw(&mut state)).contains("taken meanwhile"));
    assert_eq!(state.overlays.len(), 1, "no other box opens for it");
    let again = calls(press(&mut state, "enter"));
    assert!(matches!(again.as_slice(), [(_, Request::StartListener(StartListener { .. }))]), "{again:?}");
}

/// A console on the page that asks for the certificate of an ACME directory.
pub(crate) fn at_certificate(language: &str, size: (u16, u16)) -> State {
    let mut state = opened(language, size);
    press(&mut state, "enter right right");
    let (ticket, call) = asked_to_look(press(&mut state, "enter"));
    assert_eq!((call.config.port, call.config.https_port), (80, Some(443)), "the ports of the web");
    let found = report(&call.config);
    answer(&mut state, ticket, Reply::CheckPublish(call, Ok(found)));
    state
}

#[test]
fn a_certificate_of_the_world_asks_for_its_settings_and_stores_them_before_the_listener_starts() {
    let mut state = at_certificate("en", (100, 30));
    assert!(calls(press(&mut state, "enter")).is_empty());
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("write at least one domain name"), "{text}");
    type_text(&mut state, "llm.example.org, *.llm.example.org");
    press(&mut state, "tab");
    type_text(&mut state, "ops@example.org");
    press(&mut state, "tab tab tab right enter");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("a domain with * needs dns-01"), "{text}");
    press(&mut state, "right");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("DNS provider") && text.contains("Program"), "{text}");
    press(&mut state, "tab right");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("Name server") && text.contains("Secret in") && !text.contains("Program"), "{text}");
    press(&mut state, "tab");
    type_text(&mut state, "ns1.example.org:53");
    press(&mut state, "tab");
    type_text(&mut state, "flm-key");
    press(&mut state, "tab");
    type_text(&mut state, "DNS_TOKEN");
    press(&mut state, "enter enter");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("A certificate for llm.example.org, *.llm.example.org is obtained from"), "{text}");
    let mut asked = calls(press(&mut state, "enter"));
    let mut stored = std::collections::BTreeMap::new();
    while let [(ticket, Request::SetSetting(call))] = asked.as_slice() {
        stored.insert(call.key.clone(), call.value.clone());
        let view = flm::config::settings::Settings::default().view(&call.key).expect("a setting");
        let effects = answer(&mut state, *ticket, Reply::SetSetting(call.clone(), Ok(view)));
        asked = calls(effects).into_iter().filter(|(_, asked)| !matches!(asked, Request::ListSettings(_))).collect();
    }
    for (key, value) in [
        ("acme.domains", "llm.example.org, *.llm.example.org"),
        ("acme.contact", "ops@example.org"),
        ("acme.challenge", "dns-01"),
        ("acme.dns.provider", "rfc2136"),
        ("acme.dns.rfc2136_server", "ns1.example.org:53"),
        ("acme.dns.user", "flm-key"),
        ("acme.dns.secret_env", "DNS_TOKEN"),
        ("acme.agree_tos", "true"),
    ] {
        assert_eq!(stored.get(key).map(String::as_str), Some(value), "{key} of {stored:?}");
    }
    assert!(!stored.contains_key("acme.production"), "what is so already is not stored again");
    assert!(matches!(asked.as_slice(), [(_, Request::SetPolicy(_))]), "then the rest: {asked:?}");
}

#[test]
fn a_setting_that_is_refused_is_told_and_stops_the_deeds() {
    let mut state = at_certificate("en", (100, 30));
    type_text(&mut state, "llm.example.org");
    press(&mut state, "tab");
    type_text(&mut state, "ops@example.org");
    press(&mut state, "tab tab tab right enter enter");
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::SetSetting(call))] = asked.as_slice() else { panic!("{asked:?}") };
    let failure = Failure::new(ErrorCode::ProxyInvalidConfig, "flm.toml decides over acme.domains");
    let more = calls(answer(&mut state, *ticket, Reply::SetSetting(call.clone(), Err(failure))));
    assert!(matches!(more.as_slice(), [(_, Request::ListSettings(_))]), "nothing goes on: {more:?}");
    assert!(screen_text(&draw(&mut state)).contains("flm.toml decides over acme.domains"));
}

/// As starting does: what is missing is told here, and not when everything else is done.
#[test]
fn a_certificate_of_the_world_is_not_asked_for_without_a_mail_address() {
    let mut state = at_certificate("en", (100, 30));
    type_text(&mut state, "llm.example.org");
    press(&mut state, "tab tab tab tab right enter");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("write a mail address") && text.contains("Terms"), "{text}");
    type_text(&mut state, "ops@example.org");
    press(&mut state, "enter");
    assert!(screen_text(&draw(&mut state)).contains("Every rule acts"), "on to the policy");
}

#[test]
fn beside_port_80_the_world_looks_for_443() {
    let mut state = opened("en", (100, 30));
    press(&mut state, "enter right right tab tab ctrl-u");
    type_text(&mut state, "8080");
    assert!(screen_text(&draw(&mut state)).contains("8081"));
    press(&mut state, "ctrl-u");
    type_text(&mut state, "80");
    let (_, call) = asked_to_look(press(&mut state, "enter"));
    assert_eq!((call.config.port, call.config.https_port), (80, Some(443)));
}

#[test]
fn the_forwarding_that_a_router_needs_is_named_before_the_certificate_is_obtained() {
    let mut state = at_certificate("en", (100, 30));
    let text = screen_text(&draw(&mut state));
    for wanted in ["forward port 80 to port 80 of this machine, and 443", "to 443; where port 80", "choose dns-01"] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    press(&mut state, "tab tab tab right");
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("forward port 443 to port 443") && !text.contains("forward port 80"), "{text}");
}

#[test]
fn the_page_of_the_certificate() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = at_certificate(language, size);
            check(&format!("wizard_certificate_{language}_{}x{}", size.0, size.1), &mut state);
            press(&mut state, "tab tab right right tab tab right tab right right");
            check(&format!("wizard_certificate_dns_{language}_{}x{}", size.0, size.1), &mut state);
        }
    }
}

#[test]
fn every_mode_is_told_in_the_language_of_the_person() {
    let mut state = opened("ja", (100, 30));
    press(&mut state, "enter");
    for _ in 0..5 {
        let text = screen_text(&draw(&mut state));
        assert!(!text.contains("certificate of") && !text.contains("plain HTTP on"), "{text}");
        press(&mut state, "right");
    }
}

#[test]
fn a_lost_owner_is_told_and_looking_is_tried_again() {
    let mut state = busy("en", (100, 30));
    press(&mut state, "3 w");
    let failure = Failure::new(ErrorCode::IoError, "the proxy's process ended");
    update(&mut state, Action::Lost { failure, attempt: 1, retry_at: fixture::NOW });
    assert!(screen_text(&draw(&mut state)).contains("the proxy's process ended"));
    asked_to_look(press(&mut state, "enter"));
}

#[test]
fn a_read_only_console_has_no_wizard() {
    let mut state = busy("en", (100, 30));
    state.access = flm::tui::ConsoleAccess::ReadOnly;
    assert!(calls(press(&mut state, "3 w")).is_empty() && calls(press(&mut state, "f12")).is_empty());
    assert!(!state.overlays.iter().any(|overlay| matches!(overlay, Overlay::Wizard(_))));
}

#[test]
fn the_pages_of_the_wizard() {
    for language in LANGUAGES {
        for size in SIZES {
            let name = |what: &str| format!("wizard_{what}_{language}_{}x{}", size.0, size.1);
            let mut state = opened(language, size);
            check(&name("check"), &mut state);
            press(&mut state, "enter");
            check(&name("way"), &mut state);
            let mut state = at_policy(language, size);
            check(&name("policy"), &mut state);
            press(&mut state, "enter");
            check(&name("summary"), &mut state);
            let asked = calls(press(&mut state, "enter"));
            let [(ticket, Request::SetPolicy(call))] = asked.as_slice() else { panic!("{asked:?}") };
            let policy = SecurityPolicy::parse(&call.json).expect("a policy");
            let asked = calls(answer(&mut state, *ticket, Reply::SetPolicy(call.clone(), Ok(policy))));
            let [(ticket, Request::StartListener(call))] = asked.as_slice() else { panic!("{asked:?}") };
            let config = call.config.clone().expect("a listener");
            answer(&mut state, *ticket, Reply::StartListener(call.clone(), Ok(started(config))));
            check(&name("done"), &mut state);
        }
    }
}
