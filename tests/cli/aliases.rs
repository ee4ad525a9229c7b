//! `flm aliases`.

use serde_json::json;

use crate::home::Home;
use crate::{redacted, run, text};

#[test]
fn aliases_are_set_listed_and_removed() {
    let home = Home::new();
    assert_eq!(text(&home, &["aliases", "list"]), "no aliases: set one with 'flm aliases set ALIAS TARGET…'\n");
    let set = home.answer(&["aliases", "set", "fast", "lab/llama-3", "flm://desk/llama-3"]);
    assert_eq!((&set["name"], &set["order"]), (&json!("fast"), &json!("balanced")));
    home.answer(&["aliases", "set", "big", "lab/llama-3", "--in-order"]);
    insta::assert_snapshot!(redacted(&home, &text(&home, &["aliases", "list"])), @"
    ALIAS  ORDER     SET                  TARGETS
    big    in order  [time]  lab/llama-3
    fast   balanced  [time]  lab/llama-3 flm://desk/llama-3
    ");
    assert_eq!(home.answer(&["aliases", "remove", "fast"])["targets"], json!(["lab/llama-3", "flm://desk/llama-3"]));
    let again = run(&home, &["aliases", "remove", "fast"]);
    assert_eq!((again.code, again.error()["code"].as_str()), (1, Some("NOT_FOUND")));
}

#[test]
fn what_cannot_be_an_alias_is_refused_with_the_reason() {
    let home = Home::new();
    home.answer(&["aliases", "set", "fast", "lab/llama-3"]);
    for (arguments, reason) in [
        (vec!["flm://lab/x", "lab/llama-3"], "cannot begin with flm://"),
        (vec!["two words", "lab/llama-3"], "without blanks"),
        (vec!["other", "fast"], "is an alias itself"),
        (vec!["loop", "loop"], "is an alias itself"),
        (vec!["lab/llama-3", "desk/llama-3"], "as a target"),
    ] {
        let refused = run(&home, &[vec!["aliases", "set"], arguments.clone()].concat());
        assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")), "{arguments:?}");
        let message = refused.error()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(reason), "{arguments:?}: {message}");
    }
}
