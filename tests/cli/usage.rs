//! `flm usage` on a home whose proxy has served.

use crate::home::Home;
use crate::{redacted, run, text};

#[test]
fn a_home_without_requests_has_used_nothing() {
    let home = Home::new();
    let report = home.answer(&["usage", "--by", "key"]);
    assert_eq!((&report["by"], &report["rows"]), (&"key".into(), &serde_json::json!([])));
    assert_eq!(report["total"]["requests"], 0);
    let told = redacted(&home, &text(&home, &["usage", "--since", "24h"]));
    assert_eq!(told, "nothing was used since [time]\n");
    let wrong = run(&home, &["usage", "--by", "colour"]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    assert!(wrong.error()["message"].as_str().expect("text").contains("engine"), "{}", wrong.out);
}
