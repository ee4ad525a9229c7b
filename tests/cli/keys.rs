//! API keys from making to revoking.

use crate::home::Home;
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
