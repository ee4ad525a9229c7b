//! Egress options of `flm proxy start` (SPEC §7).

use std::net::TcpListener;

use crate::home::Home;
use crate::run;

/// An address where nothing listens.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("an address").to_string()
}

#[test]
fn a_daemon_without_its_way_out_does_not_start_and_with_fail_open_it_says_what_it_does() {
    let home = Home::new();
    let place = nowhere();
    let start = ["proxy", "start", "--port", "0", "--egress-mode", "socks5", "--socks5-endpoint", &place];
    let ended = run(&home, &start);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")), "{}", ended.out);
    assert!(ended.error()["hint"].as_str().is_some_and(|hint| hint.contains("--egress-fail-open")), "{}", ended.out);
    assert_eq!(home.owner(), None, "nothing stays behind");

    let open = [&start[..], &["--egress-fail-open"]].concat();
    home.answer(&open);
    let status = home.answer(&["proxy", "status"]);
    assert_eq!(status["egress"]["state"], "fallen_back", "{status:#}");
    assert_eq!(status["egress"]["endpoint"], place.as_str());
    let told = crate::text(&home, &["proxy", "status"]);
    assert!(told.contains("UNREACHABLE, connections go straight, fail-open"), "{told}");
    assert!(home.answer(&["security", "audit-logs", "list"]).to_string().contains("egress_fail_open_triggered"));

    // Another way, while it runs: refused, and said why.
    let other = run(&home, &["proxy", "start", "--port", "0", "--egress-mode", "direct"]);
    assert_eq!(other.error()["code"], "PROXY_INVALID_CONFIG", "{}", other.out);
    assert!(other.error()["hint"].as_str().is_some_and(|hint| hint.contains("stop --all")), "{}", other.out);
}

#[test]
fn a_password_has_no_place_on_the_command_line() {
    let home = Home::new();
    let place = nowhere();
    let start = ["proxy", "start", "--egress-mode", "socks5", "--socks5-endpoint", &place, "--socks5-user", "ada"];
    let ended = run(&home, &start);
    assert!(ended.error()["hint"].as_str().is_some_and(|hint| hint.contains("--socks5-password-env")), "{}", ended.out);
    let ended = run(&home, &[&start[..], &["--socks5-password", "x"]].concat());
    assert_ne!(ended.code, 0, "there is no such option");
}
