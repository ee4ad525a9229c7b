//! `flm doctor`: with a proxy, without one, and on a home that nothing can open.

use serde_json::Value;

use crate::home::Home;
use crate::{run, text};

#[test]
fn everything_is_told_with_a_proxy_and_no_secret_is_in_it() {
    let home = Home::new();
    std::fs::write(home.path().join("flm.toml"), "[egress]\nuser = \"anna-the-user\"\n").expect("writes");
    home.start_proxy();
    let key = home.create_key("laptop");
    home.add_engine("openai", "nobody", 9);
    // Leaves warnings in the log that quote what was presented.
    let wrong =
        run(&home, &["engines", "add", "--kind", "openai", "--id", "x", "--url", "http://user:hunter2@127.0.0.1:9"]);
    assert_eq!(wrong.code, 1);
    let report = home.answer(&["doctor"]);
    let told = home.flm(&["doctor", "--format", "text"]).output().expect("runs");
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    let database_key = std::fs::read_to_string(home.path().join("keys/security.key")).expect("the key");
    for secret in [&key, &key[13..56], database_key.trim(), "anna-the-user", "hunter2"] {
        assert!(!report.to_string().contains(secret) && !told.contains(secret), "{secret}: {report}\n{told}");
    }
    let diagnosis = &report["home"];
    assert_eq!(report["failure"], Value::Null);
    assert_eq!(diagnosis["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(diagnosis["process"]["pid"].as_u64(), home.owner().map(u64::from), "the owner answers");
    assert!(diagnosis["proxy"]["listeners"][0]["config"]["port"].is_u64(), "{diagnosis}");
    assert_eq!((&diagnosis["counts"]["keys"], &diagnosis["engines"][0]["id"]), (&1.into(), &"nobody".into()));
    for database in diagnosis["databases"].as_array().expect("both") {
        assert_eq!(database["schema"], database["newest_schema"]);
        assert!(database["bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{database}");
    }
    let settings = diagnosis["settings"].as_array().expect("settings");
    let user = settings.iter().find(|setting| setting["key"] == "egress.user").expect("every setting");
    assert_eq!((&user["value"], &user["source"]), (&"(hidden)".into(), &"file".into()));
    let files = report["files"].as_array().expect("files");
    let database = files.iter().find(|file| file["name"] == "encrypted database").expect("named");
    assert_eq!((&database["mode"], &database["own"]), (&"0600".into(), &true.into()));
    for part in ["[files]", "[engines]", "[databases]", "[findings]", "the engine nobody does not serve", "egress.user"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn without_a_proxy_the_command_looks_itself_and_says_so() {
    let home = Home::new();
    let report = home.answer(&["doctor"]);
    assert_eq!(report["home"]["proxy"], Value::Null);
    assert_eq!(report["terminal"]["interactive"], false);
    let findings = report["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|finding| finding["what"] == "no proxy runs"), "{report}");
    assert!(text(&home, &["doctor"]).contains("this command: no proxy runs"));
}

#[test]
fn a_home_that_cannot_be_opened_is_described_all_the_same() {
    let home = Home::new();
    home.answer(&["config", "list"]);
    std::fs::write(home.path().join("config.db"), vec![0x5a; 8192]).expect("damages");
    let report = home.answer(&["doctor"]);
    assert_eq!((report["home"].clone(), &report["failure"]["code"]), (Value::Null, &"DB_ERROR".into()));
    assert_eq!(report["findings"][0]["weight"], "problem");
    assert!(report["findings"][0]["what"].as_str().expect("text").contains("damaged"), "{report}");
    let told = text(&home, &["doctor"]);
    assert!(told.contains("settings database") && told.contains("PROBLEM"), "{told}");
}
