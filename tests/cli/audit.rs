//! The audit log as commands: listing, exporting, verifying, archiving.

use crate::home::{Home, PATIENCE, wait_until};
use crate::{run, text};

#[test]
fn an_export_is_complete_and_no_cell_of_it_is_a_formula() {
    let home = Home::new();
    home.create_key("=HYPERLINK(\"http://example.test\")");
    home.answer(&["security", "ip-blocklist", "add", "203.0.113.7", "--reason", "@SUM(A1)"]);
    let file = home.path().join("audit.csv");
    let path = file.to_str().expect("text");
    let ended = run(&home, &["security", "audit-logs", "export", "--format", "csv", "--output", path]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let csv = std::fs::read_to_string(&file).expect("reads");
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("number,time,severity,type,"), "{csv}");
    assert_eq!(lines.len(), 3, "{csv}");
    for line in lines {
        assert!(line.split(',').all(|cell| !cell.trim_matches('"').starts_with(['=', '+', '-', '@'])), "{line}");
    }

    let json = home.path().join("audit.json");
    let path = json.to_str().expect("text");
    assert_eq!(
        home.answer(&["security", "audit-logs", "export", "--output", path, "--type", "key-changed"])["rows"],
        1
    );
    let document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("reads")).expect("one JSON document");
    assert_eq!(document["data"][0]["kind"], "key_changed", "{document}");
    assert_eq!(document["data"][0]["code"].as_str().map(str::len), Some(64));
}

#[test]
fn only_exports_are_written_as_csv() {
    let home = Home::new();
    let ended = run(&home, &["api-keys", "list", "--format", "csv"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
}

#[test]
fn verification_compares_with_the_heads_that_the_daemon_noted() {
    let home = Home::new();
    home.start_proxy();
    home.create_key("one");
    home.end_owner();
    let verdict = home.answer(&["security", "audit-logs", "verify"]);
    assert!(verdict["heads"].as_u64().expect("a number") >= 1, "{verdict}");
    assert_eq!((&verdict["foreign_heads"], &verdict["broken_at"]), (&0.into(), &serde_json::Value::Null));

    // The log of another home's daemon tells nothing about this one.
    let other = Home::new();
    other.create_key("two");
    std::fs::create_dir_all(other.path().join("logs")).expect("makes");
    for entry in std::fs::read_dir(home.path().join("logs")).expect("lists") {
        let from = entry.expect("entry").path();
        std::fs::copy(&from, other.path().join("logs").join(from.file_name().expect("a name"))).expect("copies");
    }
    let verdict = other.answer(&["security", "audit-logs", "verify"]);
    assert!(verdict["foreign_heads"].as_u64().expect("a number") >= 1, "{verdict}");
    assert_eq!(verdict["broken_at"], serde_json::Value::Null);
}

#[test]
fn a_log_that_was_put_back_to_an_older_state_is_told() {
    let home = Home::new();
    home.create_key("one");
    let database = home.path().join("security.db");
    let older = std::fs::read(&database).expect("reads");
    home.start_proxy();
    home.create_key("two");
    home.end_owner();
    std::fs::write(&database, older).expect("puts the older file in its place");
    let ended = run(&home, &["security", "audit-logs", "verify"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (2, Some("DB_ERROR")), "{}", ended.out);
    assert!(ended.out.contains("missing at the end"), "{}", ended.out);
}

#[test]
fn archiving_takes_what_is_old_and_refuses_a_time_to_come() {
    let home = Home::new();
    for label in ["one", "two", "three"] {
        home.create_key(label);
    }
    let nothing = text(&home, &["security", "audit-logs", "archive", "--before", "1d"]);
    assert_eq!(nothing, "nothing is that old: no row was archived\n");
    let ended = run(&home, &["security", "audit-logs", "archive", "--before", "2999-01-01"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    wait_until("rows that are a second old are archived", PATIENCE, || {
        home.answer(&["security", "audit-logs", "archive", "--before", "1s"])["through"].as_u64() >= Some(2)
    });
    let verdict = home.answer(&["security", "audit-logs", "verify"]);
    assert!(verdict["archived"].as_u64() >= Some(2) && verdict["rows"].as_u64() >= Some(1), "{verdict}");
    assert_eq!(verdict["broken_at"], serde_json::Value::Null);
}

#[test]
fn events_come_in_the_order_in_which_they_happened() {
    let home = Home::new();
    home.create_key("one");
    home.create_key("two");
    let events = home.answer(&["security", "events"]);
    let numbers: Vec<_> = events.as_array().expect("a list").iter().map(|row| row["sequence"].clone()).collect();
    assert_eq!(numbers, [1, 2]);
}
