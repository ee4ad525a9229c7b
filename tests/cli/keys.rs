//! API keys from making to revoking.

use portable_pty::CommandBuilder;

use crate::home::{Home, PATIENCE};
use crate::terminal::Terminal;
use crate::{redacted, run, text};

#[test]
fn a_key_is_shown_once_and_never_again() {
    let home = Home::new();
    let created = home.answer(&["api-keys", "create", "--label", "laptop", "--expires", "90d", "--rpm", "60"]);
    let key = created["key"].as_str().expect("the key");
    assert!(key.starts_with("flm_") && key.len() == 62, "{key}");
    let id = created["view"]["id"].as_str().expect("the id");
    let shown = home.answer(&["api-keys", "show", id]);
    assert_eq!(shown["limits"]["requests_per_minute"], 60);
    assert_eq!(shown["last4"].as_str(), key.get(key.len() - 4..));
    for arguments in [&["api-keys", "list"][..], &["api-keys", "show", id], &["security", "audit-logs", "list"]] {
        let told = home.answer(arguments).to_string();
        assert!(!told.contains(&key[13..56]), "{told}");
    }
}

#[test]
fn labels_are_unique_among_keys_that_work() {
    let home = Home::new();
    let first = home.answer(&["api-keys", "create", "--label", "laptop"]);
    let ended = run(&home, &["api-keys", "create", "--label", " laptop "]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    let id = first["view"]["id"].as_str().expect("the id");
    home.answer(&["api-keys", "revoke", id]);
    home.answer(&["api-keys", "create", "--label", "laptop"]);
    let again = run(&home, &["api-keys", "revoke", id]);
    assert_eq!((again.code, again.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
}

#[test]
fn rotating_keeps_label_and_limits_and_revokes_the_old_key() {
    let home = Home::new();
    let old =
        home.answer(&["api-keys", "create", "--label", "agent", "--models", "flm://ollama/*", "--max-parallel", "2"]);
    let id = old["view"]["id"].as_str().expect("the id");
    let new = home.answer(&["api-keys", "rotate", id]);
    assert_ne!(new["key"], old["key"]);
    assert_eq!((&new["view"]["label"], &new["view"]["limits"]), (&old["view"]["label"], &old["view"]["limits"]));
    let keys = home.answer(&["api-keys", "list"]);
    assert_eq!(keys.as_array().expect("a list").len(), 2);
    assert_eq!(keys[0]["id"], new["view"]["id"]);
    assert!(keys[0]["revoked"].is_null() && keys[1]["revoked"].is_i64(), "{keys}");
    assert_eq!(home.answer(&["security", "audit-logs", "verify"])["broken_at"], serde_json::Value::Null);
}

#[test]
fn a_route_is_a_path_and_what_could_never_match_one_is_refused() {
    let home = Home::new();
    let refused = run(&home, &["api-keys", "create", "--label", "x", "--routes", "chat.completions"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")), "{}", refused.out);
    assert!(refused.out.contains("/v1/chat/completions"), "{}", refused.out);
    home.answer(&["api-keys", "create", "--label", "x", "--routes", "/v1/chat/*", "*/models"]);
}

#[test]
fn editing_changes_only_what_is_named() {
    let home = Home::new();
    let key = home.answer(&["api-keys", "create", "--label", "a", "--rpm", "7", "--rights", "infer,metrics"]);
    let id = key["view"]["id"].as_str().expect("the id");
    let edited = home.answer(&["api-keys", "edit", id, "--label", "b", "--priority", "high"]);
    assert_eq!((edited["label"].as_str(), edited["limits"]["priority"].as_str()), (Some("b"), Some("high")));
    assert_eq!(edited["limits"]["requests_per_minute"], 7);
    assert_eq!(edited["limits"]["rights"], serde_json::json!(["infer", "metrics"]));
}

#[test]
fn people_get_tables_and_the_key_alone_on_stdout() {
    let home = Home::new();
    assert_eq!(text(&home, &["api-keys", "list"]), "no API keys: make one with 'flm api-keys create --label LABEL'\n");
    let ended = run(&home, &["api-keys", "create", "--label", "wide 日本", "--format", "text"]);
    assert_eq!(ended.out.trim_end().len(), 62, "{}", ended.out);
    assert!(ended.err.contains("cannot be shown again"), "{}", ended.err);
    let id = &ended.out[4..12];
    let listed = redacted(&home, &text(&home, &["api-keys", "list"])).replace(id, "[keyid_]");
    insta::assert_snapshot!(listed, @"
    ID        LABEL      STATE  REQUESTS/MIN  LAST USED  MADE
    [keyid_]  wide 日本  works  600           never      [time]
    ");
}

#[test]
fn a_leaked_key_is_dealt_with_after_a_look_and_a_yes() {
    let home = Home::new();
    let id = |label: &str| {
        home.create_key(label);
        let keys = home.answer(&["api-keys", "list"]);
        let key = keys.as_array().expect("a list").iter().find(|key| key["label"] == label).expect("is there");
        key["id"].as_str().expect("an id").to_owned()
    };
    let works = |id: &str| home.answer(&["api-keys", "show", id])["revoked"].is_null();
    let (first, second) = (id("first"), id("second"));

    // Nobody to ask: it shows, and says how.
    let shown = run(&home, &["api-keys", "revoke", &first, "--ban-addresses"]);
    assert_eq!(shown.code, 1, "{}", shown.out);
    let answer: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
    assert_eq!((&answer["data"]["done"], &answer["data"]["preview"]["requests"]), (&false.into(), &0.into()));
    let shown = run(&home, &["api-keys", "revoke", &first, "--ban-addresses", "--format", "text"]);
    assert!(shown.err.contains("--yes"), "{}{}", shown.out, shown.err);
    assert!(works(&first));

    let ask = |id: &str, answer: &str| {
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_flm"));
        command.args(["api-keys", "revoke", id, "--ban-addresses"]);
        let mut terminal = Terminal::start(home.at_home(command), 110, 40);
        terminal.wait_for("[y/N]", PATIENCE);
        terminal.send(answer);
        terminal.wait_until_ended(PATIENCE).exit_code()
    };
    assert_eq!(ask(&first, "\r"), 1, "Enter alone is no");
    assert!(works(&first));
    assert_eq!(ask(&first, "y\r"), 0);
    assert!(!works(&first));

    let done = home.answer(&["api-keys", "revoke", &second, "--ban-addresses", "--yes"]);
    assert_eq!((&done["done"], done["answer"]["blocked"].as_array().map(Vec::len)), (&true.into(), Some(0)));
    assert!(!works(&second));
    let wrong = run(&home, &["api-keys", "revoke", &second, "--yes"]);
    assert_eq!(wrong.code, 1, "--yes alone agrees to nothing");
}
