//! `flm migrate legacy` on the sample of the old program: what a person sees, and whether old clients go on working.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use crate::engine::Engine;
use crate::home::Home;
use crate::{legacy, run, text};

/// In the sample; see `scripts/make_legacy_sample.py`.
const OLD_KEY: &str = "sk-old-4f9a1c7be0d24a6690e1b2c3d4e5f607";

fn sample() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/legacy").to_str().expect("text").to_owned()
}

/// The status that a request for the models with this key gets.
fn status(url: &str, key: &str) -> u16 {
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(
        stream,
        "GET /v1/models HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    )
    .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_plan_for_people_says_what_moves_and_that_nothing_was_changed() {
    let home = Home::new();
    let ended = run(&home, &["migrate", "legacy", "plan", "--source", &sample(), "--format", "text"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    insta::assert_snapshot!("legacy_plan_text", ended.out.replace(&sample(), "[source]"));
    assert!(ended.err.contains("nothing was changed"), "{}", ended.err);
    assert_eq!(home.answer(&["api-keys", "list"]), serde_json::json!([]));
}

#[test]
fn an_application_needs_its_confirmation_and_a_folder_of_the_old_program() {
    let home = Home::new();
    let refused = run(&home, &["migrate", "legacy", "apply", "--source", &sample()]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("--confirm"), "{}", refused.out);
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    let nothing = run(&home, &["migrate", "legacy", "plan", "--source", empty.to_str().expect("text")]);
    assert_eq!((nothing.code, nothing.error()["code"].as_str()), (1, Some("NOT_FOUND")));
    let usage = run(&home, &["migrate", "legacy", "convert", "--source", &sample()]);
    assert_eq!(usage.code, 1, "--tmp is needed");
}

#[test]
fn an_application_that_is_interrupted_while_keys_are_hashed_changes_nothing() {
    let home = Home::new();
    home.start_proxy();
    let source = home.path().join("old");
    legacy::of_many_keys(&source);
    let apply = ["migrate", "legacy", "apply", "--source", source.to_str().expect("text"), "--confirm"];
    let mut applying = home.flm(&apply).args(["--format", "jsonl"]).stdout(Stdio::piped()).spawn().expect("runs");
    let mut told = BufReader::new(applying.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("hashing")), "it tells how far it is");
    let id = rustix::process::Pid::from_raw(i32::try_from(applying.id()).expect("an id")).expect("not 0");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signals");
    let last = told.last().expect("it says how it ended");
    assert!(last.contains("CANCELLED"), "{last}");
    assert_eq!(applying.wait().expect("ends").code(), Some(1));
    // Whoever changes something next waits until what was begun is taken back.
    home.answer(&["aliases", "set", "mine", "llama3.2:3b"]);
    assert_eq!(home.answer(&["api-keys", "list"]), serde_json::json!([]));
    assert!(!home.path().join("legacy/journal.json").exists());
}

#[test]
fn keys_of_the_old_program_work_at_once_on_a_running_proxy_and_still_after_a_restart() {
    let home = Home::new();
    let engine = Engine::start();
    let url = home.start_proxy();
    home.add_engine("openai", "here", engine.port);
    assert_eq!(status(&url, OLD_KEY), 401);
    let report = home.answer(&["migrate", "legacy", "apply", "--source", &sample(), "--confirm"]);
    assert_eq!((report["stage"].as_str(), report["resumed"].as_bool()), (Some("applied"), Some(false)));
    assert_eq!(status(&url, OLD_KEY), 200, "at once");
    assert_eq!(status(&url, "sk-old-4f9a1c7be0d24a6690e1b2c3d4e5f608"), 401, "another text");
    assert_eq!(status(&url, "secret"), 401, "too easily guessed");
    let aliases = home.answer(&["aliases", "list"]);
    assert!(aliases.as_array().expect("a list").iter().any(|alias| alias["name"] == "Home-Chat"), "{aliases}");
    let again = text(&home, &["migrate", "legacy", "apply", "--source", &sample(), "--confirm"]);
    assert!(again.contains("here already") && again.lines().all(|line| !line.starts_with("moved")), "{again}");
    home.end_owner();
    let url = home.start_proxy();
    assert_eq!(status(&url, OLD_KEY), 200, "after a restart");

    let keys = home.answer(&["api-keys", "list"]);
    let laptop = keys.as_array().expect("a list").iter().find(|key| key["label"] == "laptop").expect("moved").clone();
    assert_eq!((&laptop["limits"]["requests_per_minute"], &laptop["last4"]), (&120.into(), &"f607".into()));
    let rotated = home.answer(&["api-keys", "rotate", laptop["id"].as_str().expect("an id")]);
    assert_eq!(status(&url, OLD_KEY), 401, "replaced");
    assert_eq!(status(&url, rotated["key"].as_str().expect("a key")), 200);
    for folder in [home.path().join("legacy"), home.path().join("logs")] {
        for file in
            std::fs::read_dir(&folder).expect("lists").filter_map(|entry| entry.ok().filter(|e| e.path().is_file()))
        {
            let content = std::fs::read(file.path()).expect("reads");
            assert!(!String::from_utf8_lossy(&content).contains(OLD_KEY), "{}", file.path().display());
        }
    }
}
