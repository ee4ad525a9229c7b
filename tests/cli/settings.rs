//! `flm config`, `flm.toml` and reloading, on a real daemon.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::home::{Home, PATIENCE, wait_until};
use crate::{run, text};

fn write(home: &Home, content: &str) {
    // As editors do: a new file over the old one.
    let (new, path) = (home.path().join("flm.toml.new"), home.path().join("flm.toml"));
    std::fs::write(&new, content).expect("writes");
    std::fs::rename(&new, &path).expect("renames");
}

fn setting(home: &Home, key: &str) -> (Value, Value) {
    let view = home.answer(&["config", "get", key]);
    (view["value"].clone(), view["source"].clone())
}

#[test]
fn every_layer_is_named_and_the_stronger_wins() {
    let home = Home::new();
    assert_eq!(setting(&home, "log.level"), (json!("info"), json!("default")));
    home.answer(&["config", "set", "log.level", "warn"]);
    assert_eq!(setting(&home, "log.level"), (json!("warn"), json!("database")));
    write(&home, "[log]\nlevel = \"error\"\n");
    assert_eq!(setting(&home, "log.level"), (json!("error"), json!("file")));
    let stored = run(&home, &["config", "set", "log.level", "debug", "--format", "text"]);
    assert_eq!((stored.code, stored.out.as_str()), (0, "log.level = error\n"));
    assert!(stored.err.contains("flm.toml still sets it"), "{}", stored.err);
    let output = home.flm(&["config", "get", "log.level", "--format", "json"]).env("FLM_LOG_LEVEL", "trace").output();
    let answer: Value = serde_json::from_slice(&output.expect("runs").stdout).expect("JSON");
    assert_eq!((&answer["data"]["value"], &answer["data"]["source"]), (&json!("trace"), &json!("environment")));
    let listed = text(&home, &["config", "list"]);
    let line = listed.lines().find(|line| line.starts_with("log.level")).expect("a line");
    assert!(line.contains("error") && line.contains("flm.toml"), "{line}");
}

#[test]
fn a_reload_of_a_bad_file_ends_with_1_and_the_status_keeps_saying_why_until_it_is_mended() {
    let home = Home::new();
    home.start_proxy();
    write(&home, "[proxy]\nhead_timeout = 20\nhed_timeout = 1\n");
    let refused = run(&home, &["proxy", "reload"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    let message = refused.error()["message"].as_str().expect("text").to_owned();
    assert!(message.contains("line 3, column 1") && message.contains("proxy.head_timeout"), "{message}");
    assert_eq!(home.answer(&["proxy", "status"])["reload_fault"], message);
    assert!(text(&home, &["proxy", "status"]).contains("refused: "), "people are told too");
    assert_eq!(setting(&home, "proxy.head_timeout"), (json!("10s"), json!("default")), "the old state");

    write(&home, "[proxy]\nhead_timeout = 20\nworkers = 3\n");
    // A signal reloads too; the answer is in the status.
    let pid = i32::try_from(home.owner().expect("a daemon")).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::HUP).expect("signals");
    wait_until("the mended file is in force", PATIENCE, || {
        setting(&home, "proxy.head_timeout") == (json!("20s"), json!("file"))
    });
    let status = home.answer(&["proxy", "status"]);
    assert_eq!((&status["reload_fault"], &status["needs_restart"]), (&Value::Null, &json!(["proxy.workers"])));
    let report = home.answer(&["proxy", "reload", "--all"]);
    assert_eq!(report["needs_restart"], json!(["proxy.workers"]), "still, until the restart");
    assert_eq!(run(&home, &["proxy", "reload", "--port", "1"]).error()["code"], "NOT_FOUND");
    assert_eq!(run(&home, &["proxy", "reload", "--port", "1", "--all"]).code, 1, "one or all");
}

#[test]
fn a_file_that_cannot_be_read_keeps_the_old_state_too() {
    let home = Home::new();
    // Root reads whatever the mode says; a folder in its place nobody reads.
    home.start_proxy();
    std::fs::create_dir(home.path().join("flm.toml")).expect("a folder in the way");
    std::fs::set_permissions(home.path().join("flm.toml"), std::fs::Permissions::from_mode(0o700)).expect("mode");
    wait_until("the daemon says that it cannot read it", PATIENCE, || {
        home.answer(&["proxy", "status"])["reload_fault"].as_str().is_some_and(|why| why.contains("flm.toml"))
    });
}

#[test]
fn the_proxy_starts_where_the_settings_say() {
    let home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    write(&home, &format!("[proxy]\nport = {port}\n"));
    home.answer(&["proxy", "start"]);
    assert_eq!(home.proxy_port(), Some(port));
    home.answer(&["proxy", "stop", "--port", &port.to_string()]);
    let named = home.answer(&["proxy", "start", "--bind", "127.0.0.1"]);
    assert_eq!(named["config"]["port"], port, "an option decides its own part only");
    let other = home.answer(&["proxy", "start", "--port", "0"]);
    assert_ne!(other["config"]["port"], port, "an option is stronger");
}

#[test]
fn limits_and_ends_of_a_key_can_be_taken_away_again() {
    let home = Home::new();
    let limits = ["--expires", "1d", "--tokens-per-day", "500", "--max-parallel", "2"];
    let created = home.answer(&[&["api-keys", "create", "--label", "a"][..], &limits].concat());
    let id = created["view"]["id"].as_str().expect("the id");
    assert!(created["view"]["expires"].is_i64());
    let edit = ["api-keys", "edit", id];
    let kept = home.answer(&[&edit[..], &["--rpm", "5"]].concat());
    assert_eq!((&kept["limits"]["tokens_per_day"], kept["expires"].is_i64()), (&json!(500), true));
    let free = ["--expires", "never", "--tokens-per-day", "none", "--max-parallel", "none"];
    let freed = home.answer(&[&edit[..], &free].concat());
    assert_eq!(
        (&freed["limits"]["tokens_per_day"], &freed["limits"]["max_parallel"], &freed["expires"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let wrong = run(&home, &[&edit[..], &["--tokens-per-day", "many"]].concat());
    assert_eq!(wrong.code, 1);
    assert!(wrong.error()["message"].as_str().expect("text").contains("a whole number, or none"), "{}", wrong.out);
}
