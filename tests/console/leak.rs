//! A key that leaked, from one key press to the block; and a home that only reads.

use flm::tui::effect::{Reply, Request};
use flm::types::calls::keys::{LeakAddress, LeakAnswer, LeakReport, LeftOut, PreviewLeak, RevokeLeaked};
use flm::types::clock::UnixMillis;
use flm::types::firewall::SshSession;
use flm::types::key::KeyView;
use flm::types::live::LiveSnapshot;

use crate::fixture::{self, NOW, busy, calls, console, draw, press, screen_text};
use crate::screens::{LANGUAGES, SIZES, check, named};

fn report(key: KeyView) -> LeakReport {
    let address = |network: &str, requests, left_out| LeakAddress {
        network: network.parse().expect("a network"),
        requests,
        last: NOW,
        left_out,
    };
    let other = LeftOut::OtherKey { id: key.id, label: "desk \u{1b}[31m".into() };
    LeakReport {
        since: UnixMillis(NOW.0 - 7 * 86_400_000),
        requests: 1_234,
        failed: 12,
        tokens: 98_765,
        span: Some((UnixMillis(NOW.0 - 3_600_000), NOW)),
        models: Vec::new(),
        paths: Vec::new(),
        addresses: vec![
            address("203.0.113.7/32", 900, None),
            address("2001:db8:1:2::/64", 200, None),
            address("192.0.2.9/32", 99, Some(other)),
            address("198.51.100.4/32", 20, Some(LeftOut::Trusted)),
            address("127.0.0.1/32", 10, Some(LeftOut::ThisMachine)),
            address("203.0.113.50/32", 4, Some(LeftOut::Operator)),
            address("203.0.113.51/32", 1, Some(LeftOut::Blocked)),
        ],
        key,
    }
}

#[test]
fn one_key_shows_what_a_leaked_key_did_and_a_yes_revokes_and_blocks() {
    for language in LANGUAGES {
        for size in SIZES {
            let mut state = busy(language, size);
            state.ssh = SshSession::parse("203.0.113.50 50022 10.0.0.1 22");
            press(&mut state, "3 v");
            let asked = calls(press(&mut state, "b")).pop();
            let Some((ticket, Request::PreviewLeak(call))) = asked else { panic!("{asked:?} asks for a look") };
            assert_eq!(call.operator, state.ssh.map(|ssh| ssh.from));
            let key = state.world.keys.value.iter().flatten().find(|key| key.id == call.id).expect("is listed").clone();
            let told = report(key.clone());
            fixture::answer(&mut state, ticket, Reply::PreviewLeak(call.clone(), Ok(told.clone())));
            check(&format!("leak_{language}_{}x{}", size.0, size.1), &mut state);
            assert!(!screen_text(&draw(&mut state)).contains('\u{1b}'));

            // Cancel has the focus.
            assert!(calls(press(&mut state, "enter")).is_empty());
            fixture::answer(&mut state, ticket, Reply::PreviewLeak(call.clone(), Ok(told.clone())));
            let asked = calls(press(&mut state, "y")).pop();
            let Some((ticket, Request::RevokeLeaked(deed))) = asked else { panic!("{asked:?} does it") };
            assert_eq!((deed.id, deed.networks.clone()), (call.id, told.to_block()));
            assert_eq!(deed.networks.len(), 2);
            let answer = LeakAnswer { key, blocked: deed.networks.clone() };
            fixture::answer(&mut state, ticket, Reply::RevokeLeaked(deed, Ok(answer)));
            assert!(!state.toasts.is_empty());
        }
    }
}

#[test]
fn a_look_that_fails_is_told_and_opens_nothing() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "3 v");
    let Some((ticket, Request::PreviewLeak(call))) = calls(press(&mut state, "b")).pop() else { panic!("asks") };
    let failure = flm::types::failure::Failure::new(flm::types::failure::ErrorCode::NotFound, "there is no API key");
    fixture::answer(&mut state, ticket, Reply::PreviewLeak(PreviewLeak { ..call }, Err(failure)));
    assert!(state.overlays.is_empty() && !state.toasts.is_empty());
    let deed = RevokeLeaked { id: flm::types::ids::KeyId::OWN, networks: Vec::new(), operator: None };
    assert_eq!(Request::from(deed).access(), flm::types::calls::Access::Destroys);
}

#[test]
fn a_home_that_only_reads_says_so_with_the_way_out_and_still_serves() {
    let pictures = LANGUAGES.iter().flat_map(|language| SIZES.map(|size| (language, size)));
    for (language, size) in pictures {
        let mut state = console(language, size);
        let whole = fixture::snapshot();
        let mut status = whole.status.clone();
        let why =
            "/home/me/.local/share/flm/security.db could not be brought from schema version 4 to 5: disk I/O error";
        status.read_only = Some(why.to_owned());
        status.listeners.clear();
        flm::tui::update::update(&mut state, flm::tui::action::Action::Attached(flm::tui::OwnerOrigin::StartedHere));
        let snapshot = LiveSnapshot { status, ..whole };
        let line = flm::types::live::LiveLine::Snapshot { snapshot: Box::new(snapshot), dropped: 0 };
        let asked = calls(flm::tui::update::update(&mut state, flm::tui::action::Action::Live(Box::new(line))));
        assert!(
            asked.iter().any(|(_, request)| matches!(request, Request::StartListener(_))),
            "existing keys are served"
        );
        assert!(!asked.iter().any(|(_, request)| matches!(request, Request::EnsureFirstKey(_))));
        check(&named("read_only_home", language, size), &mut state);
        press(&mut state, "enter");
        assert!(state.overlays.is_empty());
        let header = screen_text(&draw(&mut state));
        let mark = state.words.say("header.read_only").into_owned();
        assert!(header.contains(&mark), "the mark stays: {header}");
    }
}
