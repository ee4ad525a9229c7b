//! What firewalls would be told: every backend, as a person reads it (SPEC §2, §11).

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
fn a_backend_of_another_system_is_refused() {
    let home = Home::new();
    let ended = run(&home, &["firewall", "preview", "--os", "macos", "--backend", "ufw"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("NOT_FOUND")));
}
