//! Address lists, prompts, settings, engines and requests.

use crate::home::Home;
use crate::{redacted, run, text};

#[test]
fn blocks_are_listed_until_they_are_lifted() {
    let home = Home::new();
    let entry = home.answer(&["security", "ip-blocklist", "add", "203.0.113.7/24", "--for", "2h", "--reason", "scans"]);
    assert_eq!(entry["network"], "203.0.113.0/24");
    home.answer(&["security", "ip-blocklist", "add", "::ffff:198.51.100.1"]);
    let listed = home.answer(&["security", "ip-blocklist", "list"]);
    assert_eq!(listed.as_array().expect("a list").len(), 2);
    let inside = run(&home, &["security", "ip-blocklist", "unblock", "203.0.113.7"]);
    assert_eq!((inside.code, inside.error()["code"].as_str()), (1, Some("NOT_FOUND")));
    assert!(inside.error()["hint"].as_str().expect("a hint").contains("203.0.113.0/24"), "{}", inside.out);
    home.answer(&["security", "ip-blocklist", "unblock", "198.51.100.1"]);
    assert_eq!(home.answer(&["security", "ip-blocklist", "clear"])["lifted"], 1);
    assert_eq!(text(&home, &["security", "ip-blocklist", "list"]), "nothing is blocked\n");
}

#[test]
fn nothing_that_holds_loopback_can_be_blocked() {
    let home = Home::new();
    for network in ["127.0.0.1", "127.9.0.0/16", "0.0.0.0/0", "::1", "::/0", "::ffff:127.0.0.1", "::ffff:0:0/96"] {
        let ended = run(&home, &["security", "ip-blocklist", "add", network]);
        assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")), "{network}");
        assert!(ended.error()["hint"].is_string(), "{network}: {}", ended.out);
    }
}

#[test]
fn trusted_and_allow_lists_keep_what_is_put_there() {
    let home = Home::new();
    let trusted = home.answer(&["security", "ip-trusted", "list"]);
    let networks: Vec<_> = trusted.as_array().expect("a list").iter().map(|entry| entry["network"].clone()).collect();
    assert_eq!(networks, ["127.0.0.1/32", "::1/128"], "the defaults of SPEC §5.2");
    home.answer(&["security", "ip-allowlist", "add", "192.168.1.77/24", "--note", "home"]);
    assert_eq!(home.answer(&["security", "ip-allowlist", "list"])[0]["network"], "192.168.1.0/24");
    home.answer(&["security", "ip-allowlist", "remove", "192.168.1.0/24"]);
    let again = run(&home, &["security", "ip-allowlist", "remove", "192.168.1.0/24"]);
    assert_eq!((again.code, again.error()["code"].as_str()), (1, Some("NOT_FOUND")));
}

#[test]
fn prompts_are_saved_in_versions_for_routes_that_take_them() {
    let home = Home::new();
    let file = home.path().join("prompt.txt");
    std::fs::write(&file, "Answer briefly.\nToday is {{date}}.").expect("writes");
    let path = file.to_str().expect("text");
    let set = ["api", "prompts", "set", "--file", path, "--api-id"];
    assert_eq!(home.answer(&[&set[..], &["chat.completions"]].concat())["version"], 1);
    assert_eq!(home.answer(&[&set[..], &["chat.completions"]].concat())["version"], 2);
    for (api_id, says) in [("nonsense", "chat.completions"), ("chat.completions@zzzzzzzz", "api-keys list")] {
        let ended = run(&home, &[&set[..], &[api_id]].concat());
        assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")), "{api_id}");
        assert!(ended.error()["hint"].as_str().expect("a hint").contains(says), "{}", ended.out);
    }
    let shown = text(&home, &["api", "prompts", "show", "--api-id", "chat.completions"]);
    assert_eq!(shown, "Answer briefly.\nToday is {{date}}.\n");
    home.answer(&["api", "prompts", "delete", "--api-id", "chat.completions"]);
    assert_eq!(run(&home, &["api", "prompts", "show", "--api-id", "chat.completions"]).code, 1);
}

#[test]
fn a_setting_says_where_it_comes_from_and_what_overrides_it() {
    let home = Home::new();
    assert_eq!(home.answer(&["config", "get", "log.level"])["source"], "default");
    home.answer(&["config", "set", "log.level", "debug"]);
    let stored = home.answer(&["config", "get", "log.level"]);
    assert_eq!((stored["value"].as_str(), stored["source"].as_str()), (Some("debug"), Some("database")));

    std::fs::write(home.path().join("flm.toml"), "[log]\nlevel = \"warn\"\n").expect("writes");
    let ended = run(&home, &["config", "set", "log.level", "error", "--format", "text"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "log.level = warn\n"));
    assert!(ended.err.contains("flm.toml still sets it to warn"), "{}", ended.err);

    let wrong = run(&home, &["config", "set", "log.level", "loud"]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    let unknown = run(&home, &["config", "get", "log.levl"]);
    assert_eq!((unknown.code, unknown.error()["code"].as_str()), (1, Some("NOT_FOUND")));
    assert!(unknown.out.contains("log.level"), "{}", unknown.out);
}

#[test]
fn an_engine_that_does_not_answer_is_added_and_shown_as_unreachable() {
    let home = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("address").port();
    home.add_engine("openai", "lab", free);
    let engines = home.answer(&["engines", "list"]);
    assert_eq!(engines[0]["record"]["id"], "lab");
    assert_eq!(engines[0]["state"]["state"], "error_network", "{engines}");
    let health = home.answer(&["engines", "health", "lab", "--since", "1h"]);
    let checks = health.as_array().expect("a list");
    assert!(checks.len() >= 2, "when it was added, and now: {health}");
    let failed = |check: &serde_json::Value| check["latency_ms"].is_null() && check["reason"].is_string();
    assert!(checks.iter().all(|check| check["engine"] == "lab" && failed(check)), "{health}");
    assert!(text(&home, &["engines", "health"]).starts_with("TIME"), "of all engines");
    let same = ["engines", "add", "--kind", "openai", "--id", "lab", "--url", "http://127.0.0.1:1"];
    assert_eq!(run(&home, &same).error()["code"], "INVALID_ARGUMENT");
    home.answer(&["engines", "remove", "lab"]);
    assert_eq!(run(&home, &["engines", "remove", "lab"]).error()["code"], "ENGINE_NOT_FOUND");
}

#[test]
fn bad_engines_are_refused_with_what_would_be_right() {
    let home = Home::new();
    let add = |kind: &str, url: &str, more: &[&str]| {
        let fixed = ["engines", "add", "--id", "x", "--kind", kind, "--url", url];
        run(&home, &[&fixed[..], more].concat())
    };
    assert_eq!(add("llama", "http://127.0.0.1:1", &[]).error()["code"], "ENGINE_NOT_FOUND");
    for url in ["ftp://127.0.0.1", "http://user:pw@127.0.0.1", "http://127.0.0.1/v1", "nonsense"] {
        assert_eq!(add("openai", url, &[]).error()["code"], "INVALID_ARGUMENT", "{url}");
    }
    let pasted = add("openai", "http://127.0.0.1:1", &["--api-key-env", "sk-123-secret"]);
    assert_eq!(pasted.error()["code"], "INVALID_ARGUMENT");
    assert!(!pasted.out.contains("sk-123"), "a pasted key is not repeated: {}", pasted.out);
    home.answer(&[
        "proxy",
        "start",
        "--mode",
        "dev-selfsigned",
        "--bind",
        "0.0.0.0",
        "--port",
        "0",
        "--https-port",
        "0",
    ]);
    let listener = home.answer(&["proxy", "status"])["listeners"][0].clone();
    let ports = ["port", "https_port"].map(|port| format!("http://localhost:{}", listener["config"][port]));
    let places = listener["addresses"].as_array().expect("where it is reached").iter().filter_map(|url| url.as_str());
    let numbers = places.filter(|url| url["https://".len()..].starts_with(|letter: char| letter.is_ascii_digit()));
    for url in numbers.map(str::to_owned).chain(ports) {
        assert!(add("openai", &url, &[]).out.contains("FLM's own"), "{url}");
    }
}

#[test]
fn paths_are_all_in_the_home() {
    let home = Home::new();
    insta::assert_snapshot!(redacted(&home, &text(&home, &["config", "path"])), @"
    config file  [home]/flm.toml
    config.db    [home]/config.db
    security.db  [home]/security.db
    key file     [home]/keys/security.key
    socket       [home]/run/control.sock
    logs         [home]/logs
    ");
}

#[test]
fn lists_without_entries_say_what_to_do() {
    let home = Home::new();
    assert_eq!(text(&home, &["engines", "list"]), "no engine is registered: look for some with 'flm engines detect'\n");
    assert_eq!(text(&home, &["logs", "requests"]), "no requests\n");
    assert_eq!(home.answer(&["models", "list"]), serde_json::json!([]));
}

/// An empty list would say that there is none of it, where a name was mistyped.
#[test]
fn what_is_listed_of_something_that_is_not_there_is_refused_with_what_there_is() {
    let home = Home::new();
    home.add_engine("openai", "lab", 1);
    for (arguments, code, hint) in [
        (&["model-profiles", "list", "--engine", "lib"][..], "ENGINE_NOT_FOUND", "lab"),
        (&["models", "list", "--engine", "lib"], "ENGINE_NOT_FOUND", "lab"),
        (&["engines", "health", "lib"], "ENGINE_NOT_FOUND", "lab"),
        (&["alerts", "deliveries", "ops"], "NOT_FOUND", "console"),
        (&["logs", "captures", "--key", "zzzzzzzz"], "NOT_FOUND", "api-keys list"),
        (&["logs", "captures", "clear", "--key", "zzzzzzzz"], "NOT_FOUND", "api-keys list"),
        (&["api", "prompts", "history", "--api-id", "chat"], "NOT_FOUND", "prompts list"),
    ] {
        let ended = run(&home, arguments);
        assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some(code)), "{arguments:?}: {}", ended.out);
        assert!(ended.error()["hint"].as_str().expect("a hint").contains(hint), "{arguments:?}: {}", ended.out);
    }
    // What is there and has none of it; what is gone and has left some.
    let list = ["model-profiles", "list", "--engine", "lab"];
    assert_eq!(home.answer(&list), serde_json::json!([]));
    assert_eq!(home.answer(&["alerts", "deliveries", "console"]), serde_json::json!([]));
    let file = home.path().join("profile.json");
    std::fs::write(&file, r#"{"temperature": 0.2}"#).expect("writes");
    let save = ["model-profiles", "save", "--engine", "lab", "--model", "m", "--label", "calm", "--params"];
    home.answer(&[&save[..], &[file.to_str().expect("text")]].concat());
    home.answer(&["engines", "remove", "lab"]);
    assert_eq!(home.answer(&list)[0]["label"], "calm");
}

#[test]
fn a_setting_that_is_unset_has_its_default_again() {
    let home = Home::new();
    let value = || {
        let view = home.answer(&["config", "get", "log.level"]);
        (view["value"].as_str().expect("text").to_owned(), view["source"].as_str().expect("text").to_owned())
    };
    home.answer(&["config", "set", "log.level", "debug"]);
    assert_eq!(text(&home, &["config", "unset", "log.level"]), "log.level = info\n");
    assert_eq!(value(), ("info".to_owned(), "default".to_owned()));
    // What was not stored is not stored afterwards either: nothing happens, and nothing is recorded.
    assert_eq!(home.answer(&["config", "unset", "log.level"])["source"], "default");
    let recorded = home.answer(&["security", "audit-logs", "list", "--type", "policy-changed"]).to_string();
    assert_eq!(recorded.matches("setting log.level is not stored any more").count(), 1, "{recorded}");

    std::fs::write(home.path().join("flm.toml"), "[log]\nlevel = \"warn\"\n").expect("writes");
    let ended = run(&home, &["config", "unset", "log.level", "--format", "text"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "log.level = warn\n"));
    assert!(ended.err.contains("flm.toml still sets it to warn"), "{}", ended.err);
    let unknown = run(&home, &["config", "unset", "log.levl"]);
    assert_eq!((unknown.code, unknown.error()["code"].as_str()), (1, Some("NOT_FOUND")));
    assert!(unknown.out.contains("log.level"), "{}", unknown.out);
}
