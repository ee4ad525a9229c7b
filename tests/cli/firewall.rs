//! What firewalls would be told: every backend, as a person reads it (SPEC §2, §11).

use serde_json::json;

use crate::home::Home;
use crate::{run, text};

#[test]
fn every_backend_is_told_ports_networks_and_the_ssh_session() {
    let home = Home::new();
    for network in ["192.168.1.0/24", "2001:db8::/32"] {
        home.answer(&["security", "ip-allowlist", "add", network]);
    }
    for backend in ["nftables", "ufw", "firewalld", "iptables", "pf", "netsh"] {
        let output = home
            .flm(&["firewall", "preview", "--backend", backend, "--format", "text"])
            .env("SSH_CONNECTION", "203.0.113.7 50022 198.51.100.1 22")
            .output()
            .expect("runs flm");
        insta::assert_snapshot!(format!("firewall_{backend}"), String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn an_empty_allow_list_lets_everyone_in_and_says_so() {
    let home = Home::new();
    let told = text(&home, &["firewall", "preview", "--backend", "nftables"]);
    assert!(told.contains("ip-allowlist add") && !told.contains(" drop comment") && told.contains("8484"), "{told}");
    let told = text(&home, &["firewall", "preview", "--os", "windows"]);
    assert!(told.contains("netsh") && told.contains("remoteip=any"), "{told}");
}

#[test]
fn the_port_for_tls_is_guarded_as_the_plain_one_is_while_the_proxy_runs_and_after_it() {
    let home = Home::new();
    let ports = || home.answer(&["firewall", "preview", "--backend", "nftables"])["plan"]["ports"].clone();
    home.answer(&["config", "set", "proxy.port", "9000"]);
    assert_eq!(ports(), json!([9000]), "where the proxy would start");
    home.answer(&["proxy", "start", "--mode", "packaged-ca", "--port", "0", "--https-port", "0"]);
    let config = home.answer(&["proxy", "status"])["listeners"][0]["config"].clone();
    let mut both = [config["port"].as_u64().expect("a port"), config["https_port"].as_u64().expect("a port")];
    both.sort_unstable();
    assert_eq!(ports(), json!(both));
    home.end_owner();
    assert_eq!(ports(), json!(both));
}

#[test]
fn a_backend_of_another_system_is_refused() {
    let home = Home::new();
    let ended = run(&home, &["firewall", "preview", "--os", "macos", "--backend", "ufw"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("NOT_FOUND")));
}

#[test]
fn a_home_that_never_changed_the_firewall_says_so_and_has_nothing_to_confirm() {
    let home = Home::new();
    assert!(text(&home, &["firewall", "status"]).contains("has not changed"));
    let status = home.answer(&["firewall", "status"]);
    assert_eq!((&status["last"], &status["watch"]), (&serde_json::Value::Null, &serde_json::Value::from("unwatched")));
    let ended = run(&home, &["firewall", "confirm"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("NOT_FOUND")));
    assert!(ended.error()["hint"].as_str().is_some_and(|hint| hint.contains("flm firewall status")));
}

#[test]
fn the_privileged_step_takes_nothing_but_an_order() {
    let home = Home::new();
    // As root or not: it reads no order here, so it does nothing.
    let ended = run(&home, &["__firewall-step"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("cannot be read"), "{}", ended.out);
    assert_eq!(run(&home, &["__firewall-watch"]).code, 1, "a watchdog without an order watches over nothing");
}
