//! Lists that are longer than memory: security events and requests page from the store by key, filter and sort there, and
//! nothing that happens moves the selection.

use flm::tui::action::{Action, Command};
use flm::tui::effect::{Effect, Reply, Request};
use flm::tui::geometry::ListId;
use flm::tui::state::State;
use flm::tui::update::update;
use flm::tui::window::KEPT;
use flm::tui::{tab_proxy, tab_security};
use flm::types::audit::{AuditKind, AuditRow, Severity};
use flm::types::calls::audit::{AuditColumn, ListAudit};
use flm::types::calls::requests::{NumberedRequest, PageRequests, RequestColumn, RequestKey, RequestPage};
use flm::types::failure::{ErrorCode, Failure};
use flm::types::live::{LiveEvent, LiveSnapshot};
use flm::types::order::{Order, Place};

use crate::fixture::{
    answer, attach, audit_row, busy, calls, console, draw, happen, press, request, screen_text, snapshot, type_text,
};

/// Rows of the stores below.
const ROWS: u64 = 1_000_000;

/// An event of the store.
fn event(number: u64) -> AuditRow {
    let severity = if number.is_multiple_of(50) { Severity::Critical } else { Severity::Low };
    audit_row(number, AuditKind::AddressRefused, severity, &format!("number {number}"))
}

/// What a store with a million events, in the order of time, answers.
fn events(call: &ListAudit) -> Vec<AuditRow> {
    assert_eq!((call.by, call.order), (AuditColumn::Time, Order::Descending));
    let limit = usize::try_from(call.limit).expect("small");
    let below = |from: u64| (1..from).rev().map(event).take(limit).collect::<Vec<_>>();
    match call.place {
        Place::Start => below(ROWS + 1),
        Place::End => (1..=call.limit.into()).rev().map(event).collect(),
        Place::Behind(row) => below(row),
        Place::Before(row) => {
            let mut rows: Vec<_> = (row + 1..=ROWS).map(event).take(limit).collect();
            rows.reverse();
            rows
        }
    }
}

/// A console on the Security tab of a home with a million events.
fn long(language: &str, size: (u16, u16)) -> State {
    let mut state = console(language, size);
    let audit = (ROWS - 499..=ROWS).rev().map(event).collect();
    attach(&mut state, LiveSnapshot { audit, ..snapshot() });
    let asked = press(&mut state, "4");
    answer_events(&mut state, asked);
    state
}

/// Answers the pages that were asked for; answers how many.
fn answer_events(state: &mut State, effects: Vec<Effect>) -> usize {
    let mut count = 0;
    for (ticket, asked) in calls(effects) {
        if let Request::ListAudit(call) = asked {
            count += 1;
            let rows = events(&call);
            let more = answer(state, ticket, Reply::ListAudit(call, Ok(rows)));
            count += answer_events(state, more);
        }
    }
    count
}

fn selected(state: &State) -> u64 {
    let rows = tab_security::rows(state);
    rows[tab_security::selected(state, &rows).expect("selected")].sequence
}

#[test]
fn a_million_events_are_gone_through_row_by_row_with_few_in_memory_and_no_wait() {
    let mut state = long("en", (80, 24));
    assert_eq!(selected(&state), ROWS);
    let mut pages = 0;
    for number in (ROWS - 20_000..ROWS).rev() {
        let asked = update(&mut state, Action::Run(Command::Down));
        assert_eq!(selected(&state), number, "one row further with every key");
        pages += answer_events(&mut state, asked);
        assert!(tab_security::rows(&state).len() <= KEPT);
    }
    assert!(pages <= 20_000 / 200 + 1, "a page is read once: {pages}");
    for number in ROWS - 19_999..=ROWS {
        let asked = update(&mut state, Action::Run(Command::Up));
        assert_eq!(selected(&state), number);
        answer_events(&mut state, asked);
    }
    assert!(state.security.follows(), "at the top again it goes on with what happens");
}

#[test]
fn pages_that_come_while_one_scrolls_move_nothing_on_the_screen() {
    let mut state = long("en", (120, 40));
    for _ in 0..150 {
        let asked = press(&mut state, "pagedown");
        answer_events(&mut state, asked);
    }
    // The page before the first row is asked for on the way up, and comes late.
    let mut late = Vec::new();
    while late.is_empty() {
        late = calls(press(&mut state, "pageup"));
    }
    let before = screen_text(&draw(&mut state));
    let (ticket, Request::ListAudit(call)) = late.remove(0) else { panic!("a page") };
    assert!(matches!(call.place, Place::Before(_)), "{call:?}");
    let rows = events(&call);
    answer(&mut state, ticket, Reply::ListAudit(call, Ok(rows)));
    assert_eq!(screen_text(&draw(&mut state)), before);
}

#[test]
fn the_ends_of_a_long_list_are_one_key_away() {
    let mut state = long("en", (80, 24));
    let asked = press(&mut state, "G");
    assert_eq!(answer_events(&mut state, asked), 1, "no page between is read");
    assert_eq!(selected(&state), 1);
    let asked = press(&mut state, "pageup");
    answer_events(&mut state, asked);
    assert!(selected(&state) > 1 && selected(&state) < 40);
    press(&mut state, "g");
    assert_eq!(selected(&state), ROWS);
    assert!(state.security.follows());
    let screen = screen_text(&draw(&mut state));
    assert!(screen.contains("1,000,000"), "the number of all events is known once both ends are:\n{screen}");
}

#[test]
fn what_happens_never_moves_the_selection_nor_what_is_seen() {
    let mut state = long("en", (80, 24));
    press(&mut state, "j j j");
    let (own, offset) = (selected(&state), state.geometry.lists[&ListId::Audit].offset);
    let row_of = |screen: &str| screen.lines().position(|line| line.contains('▌')).expect("a selected row");
    let line = row_of(&screen_text(&draw(&mut state)));
    for number in 1..=3_000 {
        happen(&mut state, LiveEvent::Audit(Box::new(event(ROWS + number))));
        if number % 100 == 0 {
            assert_eq!(row_of(&screen_text(&draw(&mut state))), line, "after {number} events");
        }
    }
    assert_eq!(selected(&state), own);
    assert!(tab_security::rows(&state).len() <= KEPT);
    assert!(state.geometry.lists[&ListId::Audit].offset >= offset);
    press(&mut state, "f");
    assert_eq!(selected(&state), ROWS + 3_000, "following shows the newest");
    happen(&mut state, LiveEvent::Audit(Box::new(event(ROWS + 3_001))));
    assert_eq!(selected(&state), ROWS + 3_001);
}

#[test]
fn a_filter_is_asked_of_the_store_and_an_older_question_is_left() {
    let mut state = long("en", (80, 24));
    press(&mut state, "/");
    type_text(&mut state, "needl");
    let asked = press(&mut state, "e");
    let left = asked.iter().filter(|effect| matches!(effect, Effect::Leave(_))).count();
    assert!(left <= 1);
    let found = calls(asked);
    let Some((ticket, Request::ListAudit(call))) = found.last() else { panic!("{found:?}") };
    assert_eq!(call.text, "needle");
    let row = audit_row(3, AuditKind::KeyChanged, Severity::Low, "a needle");
    answer(&mut state, *ticket, Reply::ListAudit(call.clone(), Ok(vec![row])));
    let rows = tab_security::rows(&state);
    assert_eq!(rows.last().map(|row| row.sequence), Some(3), "what the store found stands behind what is known");
    press(&mut state, "esc");
    assert_eq!(selected(&state), ROWS);
}

#[test]
fn words_for_kinds_are_searched_in_the_language_of_the_person() {
    let mut state = long("ja", (80, 24));
    press(&mut state, "/");
    type_text(&mut state, "ブロッ");
    let asked = calls(press(&mut state, "ク"));
    let Some((_, Request::ListAudit(call))) = asked.last() else { panic!("{asked:?}") };
    assert_eq!(call.text, "ブロック");
    assert!(call.named.contains(&AuditKind::BlockAdded) && !call.named.contains(&AuditKind::KeyChanged), "{call:?}");
}

#[test]
fn severity_time_and_order_are_asked_of_the_store() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "4");
    let call = |asked: Vec<Effect>| {
        let found = calls(asked).into_iter().rev().find_map(|(ticket, asked)| match asked {
            Request::ListAudit(call) => Some((ticket, call)),
            _ => None,
        });
        found.expect("a page is asked for")
    };
    let (_, asked) = call(press(&mut state, "v"));
    assert_eq!((asked.severity, asked.since), (Some(Severity::Medium), None));
    let (_, asked) = call(press(&mut state, "t"));
    assert!(asked.since.is_some(), "of the last hour");
    press(&mut state, "t t t v v v");
    let (ticket, asked) = call(press(&mut state, "s"));
    assert_eq!((asked.by, asked.order, asked.place), (AuditColumn::Severity, Order::Descending, Place::Start));
    let rows = vec![event(50), event(7)];
    answer(&mut state, ticket, Reply::ListAudit(asked, Ok(rows)));
    let shown: Vec<_> = tab_security::rows(&state).iter().map(|row| row.sequence).collect();
    assert_eq!(shown, [50, 7], "the order of the store");
    let (_, asked) = call(press(&mut state, "S"));
    assert_eq!((asked.by, asked.order), (AuditColumn::Severity, Order::Ascending));
    let (ticket, asked) = call(press(&mut state, "s s"));
    assert_eq!((asked.by, asked.order), (AuditColumn::Address, Order::Ascending));
    answer(&mut state, ticket, Reply::ListAudit(asked, Ok(vec![event(7), event(50)])));
    let shown = screen_text(&draw(&mut state));
    assert!(shown.contains("Address↑"), "the column says that it is the order: {shown}");
    press(&mut state, "f");
    assert!(state.security.follows(), "back to what happens");
}

#[test]
fn a_page_that_cannot_be_read_is_told_in_place_and_tried_again_by_moving() {
    let mut state = console("en", (80, 24));
    let audit = (ROWS - 9..=ROWS).rev().map(event).collect();
    attach(&mut state, LiveSnapshot { audit, ..snapshot() });
    let asked = calls(press(&mut state, "4"));
    let Some((ticket, Request::ListAudit(call))) = asked.last() else { panic!("{asked:?}") };
    let failure = Failure::new(ErrorCode::DbError, "the disk is gone");
    let more = answer(&mut state, *ticket, Reply::ListAudit(call.clone(), Err(failure)));
    assert!(calls(more).is_empty(), "not asked again at once");
    assert!(screen_text(&draw(&mut state)).contains("the disk is gone"));
    let again = press(&mut state, "j");
    assert_eq!(answer_events(&mut state, again), 1);
    assert!(!screen_text(&draw(&mut state)).contains("the disk is gone"));
}

#[test]
fn requests_go_on_in_the_log_behind_what_is_live() {
    let mut state = busy("en", (80, 24));
    let live = state.world.requests.len();
    // A list that starts anew asks for what comes behind.
    let asked = calls(press(&mut state, "3 f"));
    let Some((ticket, Request::PageRequests(call))) = asked.last() else { panic!("{asked:?}") };
    let oldest = state.world.requests.back().expect("a request").clone();
    assert_eq!(call.place, Place::Behind(RequestKey::Time(oldest.at)));
    let logged = |number: u64, row| NumberedRequest { number, row };
    let rows = vec![logged(70, oldest), logged(69, request(0x0bad, 9_000)), logged(68, request(0x0cab, 9_001))];
    let page = RequestPage { rows, oldest: 11, newest: 70 };
    answer(&mut state, *ticket, Reply::PageRequests(call.clone(), Ok(page)));
    assert_eq!(tab_proxy::list::rows(&state).len(), live + 2, "what is known already is not listed twice");

    let asked = calls(press(&mut state, "o o o o"));
    let Some((ticket, Request::PageRequests(call))) = asked.last() else { panic!("{asked:?}") };
    assert_eq!((call.by, call.place), (RequestColumn::Latency, Place::Start));
    let rows = vec![logged(12, request(0x0bad, 9_000)), logged(33, request(0x0cab, 1))];
    answer(&mut state, *ticket, Reply::PageRequests(call.clone(), Ok(RequestPage { rows, oldest: 11, newest: 70 })));
    assert_eq!(tab_proxy::list::rows(&state).len(), 2, "in the order of the store");
    press(&mut state, "/");
    type_text(&mut state, "50");
    let asked = calls(press(&mut state, "3"));
    let Some((_, Request::PageRequests(PageRequests { text, by, .. }))) = asked.last() else { panic!("{asked:?}") };
    assert_eq!((text.as_str(), *by), ("503", RequestColumn::Latency), "searched and sorted there");
}

#[test]
fn new_requests_never_steal_the_selection_and_pause_holds_the_view() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "3 j j");
    let rows = tab_proxy::list::rows(&state);
    let own = rows[tab_proxy::selected_request(&state, &rows).expect("selected")].id;
    for number in 0..5 {
        happen(&mut state, LiveEvent::Request(Box::new(request(0xffff + number, 0))));
    }
    let rows = tab_proxy::list::rows(&state);
    let at = tab_proxy::selected_request(&state, &rows).expect("selected");
    assert_eq!((rows[at].id, at), (own, 7));
    // Far more than the owner keeps for consoles: the row stays all the same.
    for number in 0..5_000 {
        happen(&mut state, LiveEvent::Request(Box::new(request(0x0010_0000 + number, 0))));
    }
    let rows = tab_proxy::list::rows(&state);
    let at = tab_proxy::selected_request(&state, &rows).expect("selected");
    assert_eq!(rows[at].id, own);
    press(&mut state, "f p");
    let shown = tab_proxy::list::rows(&state).first().map(|row| row.id);
    happen(&mut state, LiveEvent::Request(Box::new(request(0x00ab_cdef, 0))));
    assert_eq!(tab_proxy::list::rows(&state).first().map(|row| row.id), shown, "paused");
    press(&mut state, "f");
    assert!(state.proxy.follows());
    assert_ne!(tab_proxy::list::rows(&state).first().map(|row| row.id), shown);
}

#[test]
fn a_clicked_row_is_the_one_that_was_drawn_there() {
    let mut state = long("en", (80, 24));
    press(&mut state, "j j j j j");
    let screen = screen_text(&draw(&mut state));
    let (line, wanted) = screen
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("number ") || line.contains("refused"))
        .map(|(at, line)| (at, line.to_owned()))
        .nth(2)
        .expect("a third row");
    // Events come between the drawing and the click.
    for number in 1..=3 {
        happen(&mut state, LiveEvent::Audit(Box::new(event(ROWS + number))));
    }
    let row = u16::try_from(line).expect("small");
    update(&mut state, Action::Click { column: 10, row });
    let own = selected(&state);
    assert!(own <= ROWS, "{own} was not on the screen that was clicked: {wanted}");
}
