//! The firewall's box: preview, apply with a countdown, keep, take back, roll back, log.

use std::path::PathBuf;
use std::time::Duration;

use flm::tui::action::Action;
use flm::tui::effect::{Reply, Request, Ticket};
use flm::tui::overlays::Overlay;
use flm::tui::state::State;
use flm::tui::update::update;
use flm::types::address::parse_network;
use flm::types::calls::firewall::{Decision, FirewallPreview};
use flm::types::clock::UnixMillis;
use flm::types::failure::{ErrorCode, Failure};
use flm::types::firewall::{
    Exactness, FirewallDone, FirewallLogLine, FirewallPhase, FirewallPlan, FirewallRecord, FirewallStatus,
    FirewallStep, Lasting, SshSession, TakenBackCause, Watch,
};

use crate::fixture::{NOW, answer, busy, calls, draw, press, screen_text, status};
use crate::screens::{LANGUAGES, SIZES, check, named};
use crate::states::stands;

fn plan() -> FirewallPlan {
    FirewallPlan {
        ports: vec![8484, 8485],
        networks: vec![
            parse_network("192.168.1.0/24").expect("a network"),
            parse_network("2001:db8::/32").expect("one"),
        ],
        ssh: vec![SshSession::parse("203.0.113.7 50022 198.51.100.1 22").expect("a session")],
    }
}

fn preview() -> FirewallPreview {
    let rule = |port: u16| format!("nft add rule inet flm input tcp dport {port} accept comment \"flm: allow list\"\n");
    FirewallPreview {
        backend: "nftables".to_owned(),
        system: "linux".to_owned(),
        plan: plan(),
        apply: (8484..8500).map(rule).collect(),
        rollback: "nft delete table inet flm\n".to_owned(),
        notes: vec![
            "the first rule keeps your SSH session from 203.0.113.7 to port 22 open".to_owned(),
            "a packet that another table drops stays dropped: where ufw or firewalld owns the rules, use that backend"
                .to_owned(),
        ],
    }
}

fn record(phase: FirewallPhase) -> FirewallRecord {
    FirewallRecord {
        id: "1".to_owned(),
        backend: "nftables".to_owned(),
        plan: plan(),
        applied: NOW,
        boot: None,
        lasting: Lasting::OverRestarts,
        phase,
    }
}

fn told(last: Option<FirewallPhase>, watch: Watch) -> FirewallStatus {
    let in_force = last.clone().filter(|phase| matches!(phase, FirewallPhase::InForce { .. }));
    let line = |seconds: u64, text: &str| FirewallLogLine {
        at: NOW.plus(Duration::from_secs(seconds)),
        id: "1".to_owned(),
        text: text.to_owned(),
    };
    FirewallStatus {
        loaded: None,
        last: last.map(record),
        in_force: in_force.map(record),
        watch,
        log: vec![
            line(0, "nftables: saved the state, about to apply"),
            line(1, "applied; taken back in 60 s unless confirmed"),
        ],
        folder: PathBuf::from("/home/me/.local/share/flm/firewall"),
    }
}

fn until() -> UnixMillis {
    NOW.plus(Duration::from_secs(60))
}

/// The box, with what it asked for answered.
fn opened(language: &str, size: (u16, u16), now: &FirewallStatus) -> State {
    let mut state = busy(language, size);
    state.ssh = SshSession::parse("203.0.113.7 50022 198.51.100.1 22");
    for (ticket, request) in calls(press(&mut state, "3 F")) {
        match request {
            Request::PreviewFirewall(call) => {
                assert_eq!(call.ssh, state.ssh, "the session of the terminal is kept");
                answer(&mut state, ticket, Reply::PreviewFirewall(call, Ok(preview())));
            }
            Request::ShowFirewall(call) => {
                answer(&mut state, ticket, Reply::ShowFirewall(call, Ok(now.clone())));
            }
            other => panic!("{other:?}"),
        }
    }
    state
}

fn only(state: &mut State, keys: &str) -> (Ticket, Request) {
    let mut asked = calls(press(state, keys));
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked.remove(0)
}

#[test]
fn every_state_of_the_firewall_is_readable() {
    let pending = || told(Some(FirewallPhase::Pending { until: until() }), Watch::Watched);
    let back = FirewallPhase::TakenBack { at: NOW, cause: TakenBackCause::Unconfirmed, exactness: Exactness::Exact };
    for language in LANGUAGES {
        for (name, now, keys) in [
            ("untouched", FirewallStatus { log: Vec::new(), ..told(None, Watch::Unwatched) }, None),
            ("pending", pending(), None),
            ("in_force", told(Some(FirewallPhase::InForce { since: NOW }), Watch::Unwatched), Some("b")),
            ("gone", told(Some(FirewallPhase::Gone), Watch::Unwatched), None),
            ("unwatched", told(Some(FirewallPhase::Pending { until: until() }), Watch::Unwatched), None),
            ("log_empty", FirewallStatus { log: Vec::new(), ..told(None, Watch::Unwatched) }, Some("l")),
            ("log", told(Some(back.clone()), Watch::Unwatched), Some("l")),
        ] {
            for size in SIZES {
                let mut state = opened(language, size, &now);
                if let Some(keys) = keys {
                    press(&mut state, keys);
                }
                check(&named(&format!("firewall_{name}"), language, size), &mut state);
                let width = usize::from(size.0.min(102)) - 6;
                if let Some(said) = ["gone", "unwatched"].iter().position(|said| *said == name) {
                    let said = state.words.say(["firewall.gone", "firewall.unwatched"][said]).into_owned();
                    stands(&mut state, &said, width);
                    stands(&mut state, &preview().notes[1], width - 2);
                }
            }
        }
    }
}

#[test]
fn applying_counts_down_and_y_keeps_the_rules() {
    let mut state = opened("en", (80, 24), &told(None, Watch::Unwatched));
    let (ticket, Request::FirewallOrder(order)) = only(&mut state, "a") else { panic!("a step for root") };
    assert_eq!(order.folder, PathBuf::from("/home/me/.local/share/flm/firewall"));
    let FirewallStep::Apply { backend, plan: asked, deadline_seconds } = &order.step else { panic!("applies") };
    assert_eq!((backend.as_str(), asked, *deadline_seconds), ("nftables", &plan(), 60));
    assert!(calls(press(&mut state, "a")).is_empty(), "one step at a time");

    let done = FirewallDone::Applied { until: until() };
    let mut noted = calls(answer(&mut state, ticket, Reply::FirewallOrder(order, Ok(done))));
    let (ticket, Request::RecordFirewall(call)) = noted.remove(0) else { panic!("it is written into the audit log") };
    assert_eq!(call.done, done);
    let pending = told(Some(FirewallPhase::Pending { until: until() }), Watch::Watched);
    answer(&mut state, ticket, Reply::RecordFirewall(call, Ok(pending)));
    assert!(screen_text(&draw(&mut state)).contains("taken back in 60 s"));
    assert!(state.next_change().is_some_and(|wait| wait <= Duration::from_secs(1)), "the countdown is drawn anew");

    // Somebody may answer it elsewhere, so it is asked about, once a second.
    state.now = NOW.plus(Duration::from_millis(1500));
    let looks = calls(update(&mut state, Action::Tick));
    assert!(matches!(looks.as_slice(), [(_, Request::ShowFirewall(_))]), "{looks:?}");
    assert!(calls(update(&mut state, Action::Tick)).is_empty());
    assert!(screen_text(&draw(&mut state)).contains("taken back in 59 s"));

    let (ticket, Request::DecideFirewall(call)) = only(&mut state, "y") else { panic!("a decision") };
    assert_eq!(call.decision, Decision::Keep);
    let kept = told(Some(FirewallPhase::InForce { since: NOW }), Watch::Unwatched);
    answer(&mut state, ticket, Reply::DecideFirewall(call, Ok(kept)));
    let screen = screen_text(&draw(&mut state));
    assert!(screen.contains("confirmed at") && screen.contains("Roll back"), "{screen}");

    // Rolling back asks first, with the focus on Cancel.
    press(&mut state, "b");
    assert!(matches!(state.overlays.last(), Some(Overlay::Confirm(_))));
    let (_, request) = only(&mut state, "y");
    assert!(matches!(request, Request::FirewallOrder(order) if matches!(order.step, FirewallStep::Rollback { .. })));
}

#[test]
fn without_the_right_it_says_what_to_type_and_the_demo_changes_nothing() {
    let mut state = opened("en", (120, 40), &told(None, Watch::Unwatched));
    let (ticket, Request::FirewallOrder(order)) = only(&mut state, "a") else { panic!("a step for root") };
    let refused = Failure::new(ErrorCode::InvalidArgument, "changing the firewall takes root")
        .hint("run 'flm firewall apply' in a terminal");
    let looks = calls(answer(&mut state, ticket, Reply::FirewallOrder(order, Err(refused))));
    assert!(matches!(looks.as_slice(), [(_, Request::ShowFirewall(_))]), "{looks:?}");
    let screen = screen_text(&draw(&mut state));
    assert!(screen.contains("takes root") && screen.contains("flm firewall apply"), "{screen}");

    state.world.status = Some(flm::types::listener::ProxyStatus { demo: true, ..status() });
    assert!(calls(press(&mut state, "a")).is_empty());
    assert!(screen_text(&draw(&mut state)).contains("demo"));
}
