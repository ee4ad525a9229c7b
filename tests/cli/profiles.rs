//! Model profiles and the versions of prompts.

use crate::home::Home;
use crate::{redacted, run, text};

/// A file in the home and its path.
fn file(home: &Home, name: &str, content: &str) -> String {
    let path = home.path().join(name);
    std::fs::write(&path, content).expect("writes");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_profile_is_saved_listed_and_deleted() {
    let home = Home::new();
    home.add_engine("ollama", "lab", 1);
    let empty = text(&home, &["model-profiles", "list"]);
    assert_eq!(empty, "no model profiles: save one with 'flm model-profiles save'\n");
    let params = file(&home, "params.json", r#"{"temperature": 0.2, "num_ctx": 4096, "pinned": ["temperature"]}"#);
    let save = ["model-profiles", "save", "--engine", "lab", "--model", "llama3.2:3b", "--label", "careful"];
    let saved = home.answer(&[&save[..], &["--params", &params]].concat());
    assert_eq!((saved["id"].as_i64(), saved["model"].as_str()), (Some(1), Some("llama3.2:3b")));
    insta::assert_snapshot!(redacted(&home, &text(&home, &["model-profiles", "list", "--engine", "lab"])), @"
    ID  ENGINE  MODEL        LABEL    SAVED                PARAMETERS
    1   lab     llama3.2:3b  careful  [time]  temperature!=0.2 num_ctx=4096
    ");
    assert_eq!(home.answer(&["model-profiles", "list", "--model", "other"]), serde_json::json!([]));
    assert_eq!(home.answer(&["model-profiles", "delete", "--id", "1"])["label"], "careful");
    let again = run(&home, &["model-profiles", "delete", "--id", "1"]);
    assert_eq!((again.code, again.error()["code"].as_str()), (1, Some("NOT_FOUND")));

    let wrong = file(&home, "wrong.json", r#"{"temperature": 5}"#);
    let refused = run(&home, &[&save[..], &["--params", &wrong]].concat());
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    assert!(refused.error()["message"].as_str().expect("text").contains("from 0 to 2"), "{}", refused.out);
}

#[test]
fn the_versions_of_a_prompt_are_listed_compared_and_restored() {
    let home = Home::new();
    for content in ["You are kind.\nToday is {{date}}.", "You are brief.\nToday is {{date}}."] {
        let path = file(&home, "prompt.txt", content);
        home.answer(&["api", "prompts", "set", "--api-id", "chat.completions", "--file", &path]);
    }
    let of = |words: &[&'static str]| [&["api", "prompts"][..], words, &["--api-id", "chat.completions"]].concat();
    insta::assert_snapshot!(redacted(&home, &text(&home, &of(&["history"]))), @"
    API ID            VERSION  SAVED                TEXT
    chat.completions  2        [time]  You are brief.\\nToday is {{date}}.
    chat.completions  1        [time]  You are kind.\\nToday is {{date}}.
    ");
    insta::assert_snapshot!(text(&home, &of(&["diff"])), @"
    --- chat.completions version 1
    +++ chat.completions version 2
    - You are kind.
    + You are brief.
      Today is {{date}}.
    ");
    let first = run(&home, &of(&["diff", "--to", "1"]));
    assert_eq!((first.code, first.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    let told = home.answer(&of(&["diff", "--from", "1", "--to", "2"]));
    assert_eq!(told["lines"][0], serde_json::json!({"change": "removed", "text": "You are kind."}));
    assert_eq!(home.answer(&of(&["restore", "--version", "1"]))["version"], 3);
    assert_eq!(text(&home, &of(&["show"])), "You are kind.\nToday is {{date}}.\n");
    assert_eq!(text(&home, &of(&["show", "--version", "2"])), "You are brief.\nToday is {{date}}.\n");
    let missing = run(&home, &of(&["show", "--version", "9"]));
    assert_eq!((missing.code, missing.error()["code"].as_str()), (1, Some("NOT_FOUND")));

    let path = file(&home, "prompt.txt", "Hello {{name}}");
    let refused = run(&home, &["api", "prompts", "set", "--api-id", "chat.completions", "--file", &path]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("{{key_label}}"), "{}", refused.out);
}
