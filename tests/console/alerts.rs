//! The inbox of alerts and the channels: screens, and journeys through them.

use std::time::Duration;

use flm::tui::action::{Action, Command};
use flm::tui::effect::{Bell, Effect, Reply, Request};
use flm::tui::state::State;
use flm::tui::tabs::Tab;
use flm::tui::update::update;
use flm::types::alert::{
    AlertKind, AlertRules, ChannelId, ChannelState, ChannelView, DeliveryView, Inbox, InboxAlert, PrivateHosts,
};
use flm::types::audit::{AuditKind, Severity};
use flm::types::calls::alerts::{ChannelSettled, ListAlertChannels, ListInbox};
use flm::types::calls::expose::{
    AddressReach, AnswerSeen, ExposeFinding, ExposeReport, KeyNeed, LocalAddress, PortSeen, Problem, Service,
};
use flm::types::engine::EngineKind;
use flm::types::ids::EngineId;
use flm::types::live::{LiveEvent, Noun};
use flm::types::order::Place;
use flm::types::secret::Secret;

use crate::fixture::{NOW, answer, audit_row, busy, calls, draw, happen, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check, everywhere, named};

fn alert(number: u64, kind: AuditKind, severity: Severity, details: &str) -> InboxAlert {
    InboxAlert {
        number,
        at: NOW.minus(Duration::from_secs(60 * number)),
        kind,
        severity,
        events: number * 7 - 6,
        first: 390 + number,
        last: 397 + number,
        address: (number > 1).then(|| "203.0.113.77".parse().expect("an address")),
        details: details.to_owned(),
        read: (number == 3).then_some(NOW),
    }
}

fn inbox() -> Inbox {
    Inbox {
        unread: 2,
        alerts: vec![
            alert(1, AuditKind::Maintenance, Severity::Critical, "the audit log cannot be written: no space left"),
            alert(2, AuditKind::RuleHit, Severity::High, "path traversal: /\u{1b}[2J\u{202e}../etc/passwd"),
            alert(3, AuditKind::BlockAdded, Severity::High, "203.0.113.77 blocked: 5 wrong keys"),
        ],
    }
}

fn channel(id: &str, kind: AlertKind, place: &str) -> ChannelView {
    ChannelView {
        id: ChannelId::parse(id).expect("a name"),
        kind,
        place: place.to_owned(),
        private: matches!(kind, AlertKind::Webhook | AlertKind::Ntfy).then_some(PrivateHosts::Refused),
        rules: AlertRules::default(),
        created: NOW,
        waiting: 0,
        last: None,
    }
}

fn delivery(channel: &str, fault: Option<&str>) -> DeliveryView {
    DeliveryView {
        number: 1,
        at: NOW,
        channel: channel.to_owned(),
        events: 3,
        first: 1,
        last: 3,
        attempts: 8,
        summary: "3 × rule hit (high)".to_owned(),
        fault: fault.map(str::to_owned),
    }
}

fn channels() -> Vec<ChannelView> {
    let mut phone = channel("phone", AlertKind::Ntfy, "https://ntfy.sh/fl…");
    (phone.waiting, phone.last) = (1204, Some(delivery("phone", Some("the receiver answered 500: \u{1b}[2J"))));
    let mut hook = channel("ops", AlertKind::Webhook, "https://alerts.example.org/…");
    hook.last = Some(delivery("ops", None));
    let mut mail = channel("mail", AlertKind::Command, "/usr/local/bin/alert-by-mail 運用@example.org");
    mail.rules.state = ChannelState::Off;
    vec![channel("console", AlertKind::Terminal, "the console"), mail, hook, phone]
}

/// A console with alerts whose box is open.
fn open(language: &str, size: (u16, u16)) -> State {
    let mut state = busy(language, size);
    for (ticket, request) in calls(happen(&mut state, LiveEvent::Changed(Noun::Alerts))) {
        match request {
            Request::ListInbox(call) => answer(&mut state, ticket, Reply::ListInbox(call, Ok(inbox()))),
            Request::ListAlertChannels(call) => {
                answer(&mut state, ticket, Reply::ListAlertChannels(call, Ok(channels())))
            }
            other => panic!("{other:?}"),
        };
    }
    press(&mut state, "!");
    state
}

#[test]
fn inbox_and_channels() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = open(language, size);
            press(&mut state, "j");
            check(&format!("alerts_inbox_{language}_{}x{}", size.0, size.1), &mut state);
            press(&mut state, "tab G");
            check(&format!("alerts_channels_{language}_{}x{}", size.0, size.1), &mut state);
        }
        for size in SIZES {
            let mut state = busy(language, size);
            press(&mut state, "!");
            check(&named("alerts_empty", language, size), &mut state);
        }
    }
}

#[test]
fn no_channel_and_a_question_before_one_is_removed() {
    everywhere("alerts_channels_empty", |language, size| {
        let mut state = busy(language, size);
        press(&mut state, "! tab");
        state
    });
    everywhere("alerts_remove", |language, size| {
        let mut state = open(language, size);
        press(&mut state, "tab j x");
        state
    });
}

#[test]
fn the_forms_of_channels() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = open(language, size);
            press(&mut state, "tab a");
            check(&named("alerts_kind", language, size), &mut state);
            press(&mut state, "enter");
            check(&named("alerts_add_webhook", language, size), &mut state);
            press(&mut state, "esc j j j e");
            check(&named("alerts_edit_ntfy", language, size), &mut state);
        }
    }
}

#[test]
fn an_alert_is_counted_told_and_called_for_until_it_is_read() {
    let mut state = busy("en", (120, 40));
    let effects = happen(&mut state, LiveEvent::Alert(Box::new(alert(9, AuditKind::RuleHit, Severity::High, "x"))));
    let [Effect::Notify(notification)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(notification.message.as_deref(), Some("FLM: 57 × Suspicious request"));
    assert_eq!(notification.bell, Bell::Rings);
    assert!(screen_text(&draw(&mut state)).contains("1 alert"));
    // The same alert read with the inbox is no second one.
    let read = Inbox { unread: 1, alerts: vec![alert(9, AuditKind::RuleHit, Severity::High, "x")] };
    for (ticket, request) in calls(happen(&mut state, LiveEvent::Changed(Noun::Alerts))) {
        if let Request::ListInbox(call) = request {
            answer(&mut state, ticket, Reply::ListInbox(call, Ok(read.clone())));
        }
    }
    happen(&mut state, LiveEvent::Alert(Box::new(alert(9, AuditKind::RuleHit, Severity::High, "x"))));
    assert_eq!(state.world.unread(), 1);
    let asked = calls(press(&mut state, "! r"));
    let [(_, Request::MarkRead(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(call.numbers, [9]);
    let asked = calls(press(&mut state, "R"));
    assert!(matches!(asked.as_slice(), [(_, Request::MarkRead(call))] if call.numbers.is_empty()), "{asked:?}");
}

#[test]
fn enter_goes_to_the_event_also_when_it_is_older_than_what_is_kept() {
    let mut state = open("en", (120, 40));
    // Row 399 is among those that the console has; reading it marks it.
    let asked = calls(press(&mut state, "j enter"));
    // The tab that it goes to reads its counts.
    assert!(
        matches!(asked.as_slice(), [(_, Request::MarkRead(call)), (_, Request::SecurityStats(_))] if call.numbers == [2]),
        "{asked:?}"
    );
    assert_eq!((state.tab, state.overlays.len()), (Tab::Security, 0));
    assert!(!state.security.is_paused());

    let old = InboxAlert { first: 7, last: 9, ..alert(3, AuditKind::BlockAdded, Severity::High, "long ago") };
    let ticket = calls(happen(&mut state, LiveEvent::Changed(Noun::Alerts)))[0].0;
    let page = Inbox { unread: 0, alerts: vec![old] };
    answer(&mut state, ticket, Reply::ListInbox(ListInbox { limit: 200 }, Ok(page)));
    let asked = calls(press(&mut state, "! enter"));
    let page = asked.iter().find_map(|(ticket, request)| match request {
        Request::ListAudit(call) => Some((ticket, call)),
        _ => None,
    });
    let Some((ticket, call)) = page else { panic!("{asked:?}") };
    assert_eq!(call.place, Place::Behind(10));
    let rows = vec![
        audit_row(9, AuditKind::BlockAdded, Severity::High, "the very one"),
        audit_row(8, AuditKind::RuleHit, Severity::Low, "before"),
    ];
    answer(&mut state, *ticket, Reply::ListAudit(call.clone(), Ok(rows)));
    assert!(!state.security.follows(), "the selection stays there");
    assert!(screen_text(&draw(&mut state)).contains("the very one"));
    assert_eq!(state.world.audit.front().map(|row| row.sequence), Some(400), "what is kept stays");
}

/// A console that shows the secret of a channel that was added.
fn secret(language: &str, size: (u16, u16)) -> State {
    let mut state = open(language, size);
    press(&mut state, "tab a enter");
    press(&mut state, "tab");
    type_text(&mut state, "https://alerts.example.org/flm?key=hunter2");
    let asked = calls(press(&mut state, "enter"));
    let [(ticket, Request::AddAlertChannel(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((call.id.as_str(), call.rules.severity), ("webhook", Severity::High));
    let view = channel("webhook", AlertKind::Webhook, "https://alerts.example.org/…");
    let settled = ChannelSettled { view, secret: Some(Secret::new("whsec_0123456789abcdef".to_owned())) };
    answer(&mut state, *ticket, Reply::AddAlertChannel(call.clone(), Ok(settled)));
    state
}

#[test]
fn a_channel_is_added_with_its_secret_shown_once() {
    everywhere("alerts_secret", secret);
    let mut state = secret("en", (80, 24));
    let effects = press(&mut state, "y");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Copy(text) if text == "whsec_0123456789abcdef")));
    press(&mut state, "enter");
    assert!(!screen_text(&draw(&mut state)).contains("whsec"), "it is gone for good");
}

#[test]
fn channels_are_tested_switched_changed_and_removed() {
    let mut state = open("en", (80, 24));
    press(&mut state, "tab j");
    let asked = calls(press(&mut state, "t"));
    assert!(
        matches!(asked.as_slice(), [(_, Request::TestAlertChannel(call))] if call.id.as_str() == "mail"),
        "{asked:?}"
    );
    let asked = calls(press(&mut state, "x"));
    assert!(asked.is_empty(), "it asks first");
    let asked = calls(press(&mut state, "y"));
    assert!(
        matches!(asked.as_slice(), [(_, Request::RemoveAlertChannel(call))] if call.id.as_str() == "mail"),
        "{asked:?}"
    );
    // What is left empty is not changed.
    press(&mut state, "j e");
    let asked = calls(press(&mut state, "enter"));
    let [(_, Request::EditAlertChannel(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((call.id.as_str(), &call.changes.url, call.changes.severity), ("ops", &None, Some(Severity::High)));
}

#[test]
fn a_console_that_may_only_look_changes_no_channel() {
    let mut state = open("en", (80, 24));
    state.access = flm::tui::ConsoleAccess::ReadOnly;
    assert!(calls(press(&mut state, "R tab t")).is_empty());
    let list = ListAlertChannels {};
    let ticket = state.read(list);
    assert!(state.pending.contains_key(&ticket), "reading goes on");
}

#[test]
fn what_is_exposed_is_told_with_its_mend() {
    let at = |address: &str, reach| LocalAddress { address: address.parse().expect("an address"), reach };
    let (loopback, lan) = (at("127.0.0.1", AddressReach::Loopback), at("192.168.1.20", AddressReach::Private));
    let ollama = Service::Engine { kind: EngineKind::named("ollama"), id: EngineId::parse("desk").ok() };
    let report = ExposeReport {
        addresses: vec![loopback, lan],
        ports: vec![
            PortSeen {
                port: 8484,
                service: Service::Proxy,
                encrypted: false,
                answers: vec![AnswerSeen { at: loopback, key: KeyNeed::Key }],
            },
            PortSeen {
                port: 11434,
                service: ollama.clone(),
                encrypted: false,
                answers: [loopback, lan].map(|at| AnswerSeen { at, key: KeyNeed::None }).to_vec(),
            },
        ],
        findings: vec![ExposeFinding {
            severity: Severity::High,
            problem: Problem::EngineOpen,
            port: 11434,
            service: ollama,
            addresses: vec![lan.address],
            mend: vec!["OLLAMA_HOST=127.0.0.1:11434 ollama serve".to_owned()],
        }],
        elsewhere: Vec::new(),
    };
    everywhere("expose", |language, size| {
        let mut state = busy(language, size);
        let asked = calls(update(&mut state, Action::Run(Command::ExposeCheck)));
        let [(ticket, Request::ExposeCheck(call))] = asked.as_slice() else { panic!("{asked:?}") };
        answer(&mut state, *ticket, Reply::ExposeCheck(call.clone(), Ok(report.clone())));
        state
    });
}
