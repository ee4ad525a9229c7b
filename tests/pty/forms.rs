//! What the console's forms change, through the real daemon: typed in the console, read back by command, also from the
//! next owner, which knows only what was stored.

use std::path::Path;

use crate::engine::{Engine, MODEL};
use crate::home::{Home, PATIENCE, wait_until};
use crate::{legacy, open_console, running_console};

/// Empties the field that is written in.
const EMPTY_FIELD: &str = "\x15";

#[test]
fn an_engine_that_moved_is_edited_and_what_it_offers_is_known_at_once_and_after_a_restart() {
    let engine = Engine::start();
    let home = Home::in_use();
    home.start_proxy();
    // Nothing listens where it is said to be.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("an address").port();
    home.add_engine("openai", "moved", nowhere);
    let console = open_console(&home, 110, 30);
    console.wait_for(&format!("http://127.0.0.1:{nowhere}"), PATIENCE);
    console.send("e");
    console.wait_for("Edit the engine", PATIENCE);
    console.send(&format!("{EMPTY_FIELD}127.0.0.1:{}", engine.port));
    console.wait_for("write it as http(s)://host[:port]", PATIENCE);
    console.send(&format!("{EMPTY_FIELD}http://127.0.0.1:{}\t\t\t3\r", engine.port));
    console.wait_for("moved changed", PATIENCE);
    console.wait_until("the form is gone and the new place is shown", PATIENCE, |screen| {
        let text = screen.text();
        !text.contains("Edit the engine") && text.contains(&format!("http://127.0.0.1:{}", engine.port))
    });
    console.send("2");
    console.wait_for(&format!("moved/{MODEL}"), PATIENCE);
    let stored = |when: &str| {
        let engines = home.answer(&["engines", "list"]);
        let [one] = engines.as_array().expect("a list").as_slice() else { panic!("{when}: {engines}") };
        let record = &one["record"];
        assert_eq!(record["id"], "moved", "{when}");
        assert_eq!(record["url"], format!("http://127.0.0.1:{}", engine.port), "{when}");
        assert_eq!(record["slots"], 3, "{when}");
    };
    stored("while it runs");
    drop(console);
    home.end_owner();
    stored("by the next owner");
}

#[test]
fn a_file_is_imported_into_the_block_list_and_a_wrong_line_of_it_is_named() {
    let write = |folder: &Path, text: &str| std::fs::write(folder.join("list.txt"), text).expect("writes");
    let (home, console) = running_console(110, 30);
    console.send("5");
    console.wait_for("No address is blocked.", PATIENCE);
    console.send("i");
    console.wait_for("one network in a line", PATIENCE);
    console.send("missing.txt\r");
    console.wait_for("missing.txt", PATIENCE);
    console.wait_for("No such file", PATIENCE);
    write(home.path(), "203.0.113.0/24 # scanners\nnot a network\n");
    console.send(&format!("{EMPTY_FIELD}list.txt\t10m\r"));
    console.wait_for("line 2", PATIENCE);
    assert_eq!(home.answer(&["security", "ip-blocklist", "list"]), serde_json::json!([]), "nothing of it is blocked");
    write(home.path(), "203.0.113.0/24 # scanners\n\n# a note\n2001:db8::/32\n");
    console.send("\r");
    console.wait_for("2 networks of the file are blocked", PATIENCE);
    console.wait_until("both are listed", PATIENCE, |screen| {
        ["203.0.113.0/24", "scanners", "2001:db8::/32"].iter().all(|shown| screen.text().contains(shown))
    });
    let blocked = |when: &str| {
        let list = home.answer(&["security", "ip-blocklist", "list"]);
        let mut networks: Vec<_> = list.as_array().expect("entries").iter().collect();
        networks.sort_by_key(|entry| entry["network"].to_string());
        let told: Vec<_> = networks.iter().map(|e| (e["network"].as_str(), e["reason"].as_str())).collect();
        let wanted = [(Some("2001:db8::/32"), Some("")), (Some("203.0.113.0/24"), Some("scanners"))];
        assert_eq!(told, wanted, "{when}");
        assert!(networks.iter().all(|entry| entry["expires"].is_i64()), "{when}: for ten minutes: {list}");
    };
    blocked("while it runs");
    drop(console);
    home.end_owner();
    wait_until("the owner is gone", PATIENCE, || home.owner().is_none());
    blocked("by the next owner");
}

#[test]
fn the_old_program_is_moved_in_from_the_palette() {
    let (home, console) = running_console(110, 40);
    console.send(":move-in\r");
    console.wait_for("config.json and its database", PATIENCE);
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/legacy");
    console.send(&format!("{}\r", sample.to_str().expect("text")));
    console.wait_for("Nothing is changed yet.", PATIENCE);
    console.wait_for("laptop", PATIENCE);
    assert_eq!(home.answer(&["aliases", "list"]), serde_json::json!([]));
    console.send("\x1b[C\r");
    console.wait_for("Moved keys go on working.", PATIENCE);
    let keys = home.answer(&["api-keys", "list"]).to_string();
    assert!(keys.contains("laptop") && keys.contains("earlier"), "{keys}");
    assert!(home.answer(&["aliases", "list"]).to_string().contains("Home-Chat"));
}

#[test]
fn moving_in_is_cancelled_while_keys_are_hashed_and_nothing_was_changed() {
    let (home, console) = running_console(110, 40);
    let source = home.path().join("old");
    legacy::of_many_keys(&source);
    console.send(":move-in\r");
    console.wait_for("config.json and its database", PATIENCE);
    console.send("old\r");
    console.wait_for("Nothing is changed yet.", PATIENCE);
    console.send("y");
    console.wait_for("hashing keys", PATIENCE);
    console.send("\x1b");
    console.wait_for("cancelled", PATIENCE);
    // Whoever changes something next waits until what was begun is taken back.
    home.answer(&["aliases", "set", "mine", "llama3.2:3b"]);
    let keys = home.answer(&["api-keys", "list"]);
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "{keys}");
    assert_eq!(home.answer(&["engines", "list"]), serde_json::json!([]));
    assert!(!home.path().join("legacy/journal.json").exists());
}
