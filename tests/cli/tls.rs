//! Modes with TLS as commands: start, refusals, what status tells, certificates that outlive a restart (SPEC §6).

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::home::Home;
use crate::{run, text};

fn fingerprint(status: &Value) -> String {
    status["listeners"][0]["tls"]["certificate"]["fingerprint"].as_str().expect("a certificate").to_owned()
}

#[test]
fn plain_http_on_an_open_address_is_refused_and_the_refusal_names_packaged_ca() {
    let home = Home::new();
    let refused = run(&home, &["proxy", "start", "--port", "0", "--bind", "0.0.0.0"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("--mode packaged-ca"), "{}", refused.out);
    home.answer(&["proxy", "start", "--port", "0", "--bind", "0.0.0.0", "--insecure-plain-http"]);
    let rows = home.answer(&["security", "audit-logs", "list", "--severity", "high"]);
    assert!(rows[0]["details"].as_str().expect("text").contains("--insecure-plain-http"), "{rows}");
}

#[test]
fn packaged_ca_just_works_on_all_addresses_and_keeps_its_certificate_over_restarts() {
    let home = Home::new();
    let started = text(&home, &["proxy", "start", "--mode", "packaged-ca", "--bind", "0.0.0.0", "--port", "0"]);
    assert!(started.contains("https://localhost:") && started.contains("flm security ca install"), "{started}");
    let status = home.answer(&["proxy", "status"]);
    let listener = &status["listeners"][0];
    let addresses = listener["addresses"].as_array().expect("addresses");
    assert!(addresses.iter().all(|address| address.as_str().expect("text").starts_with("https://")), "{addresses:?}");
    let names = listener["tls"]["certificate"]["names"].to_string();
    assert!(names.contains("localhost") && names.contains("127.0.0.1") && names.contains("::1"), "{names}");
    assert!(listener["tls"]["certificate"]["issuer"].as_str().expect("text").contains("FLM"), "{listener}");
    assert!(listener["tls"]["next_renewal"].is_i64(), "{listener}");

    home.answer(&["proxy", "stop", "--all"]);
    home.answer(&["proxy", "start"]);
    let again = home.answer(&["proxy", "status"]);
    assert_eq!(fingerprint(&again), fingerprint(&status), "the certificate is kept");
    assert_eq!(again["listeners"][0]["config"]["https_port"], listener["config"]["https_port"], "and the port");
    let told = text(&home, &["proxy", "status"]);
    assert!(told.contains("certificate of ") && told.contains("renewed from"), "{told}");
}

#[test]
fn a_listener_that_cannot_be_what_was_asked_for_is_refused_with_what_could() {
    let home = Home::new();
    let own = ["proxy", "start", "--port", "0", "--mode", "packaged-ca", "--certificate", "a.pem", "--key", "a.key"];
    // TEST-NET-2 (RFC 5737) is no address of any machine.
    let elsewhere = ["proxy", "start", "--port", "0", "--mode", "packaged-ca", "--bind", "198.51.100.1"];
    let unknown = ["proxy", "check", "--mode", "nope"];
    for (arguments, says, hint) in [
        (&own[..], "has a certificate of its own", "certificate-files"),
        (&elsewhere, "cannot listen on 198.51.100.1:0", "--bind"),
        (&unknown, "no mode", "packaged-ca"),
    ] {
        let error = run(&home, arguments).error();
        assert_eq!(error["code"], "PROXY_INVALID_CONFIG", "{error}");
        assert!(error["message"].as_str().expect("text").contains(says), "{error}");
        assert!(error["hint"].as_str().expect("a hint").contains(hint), "{error}");
    }
}

#[test]
fn the_port_for_tls_is_the_one_after_unless_it_is_named() {
    let home = Home::new();
    let same = run(&home, &["proxy", "start", "--mode", "dev-selfsigned", "--port", "9001", "--https-port", "9001"]);
    assert_eq!((same.code, same.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    let none = run(&home, &["proxy", "start", "--mode", "dev-selfsigned", "--port", "65535"]);
    assert!(none.error()["hint"].as_str().expect("a hint").contains("--https-port"), "{}", none.out);
    let clear = run(&home, &["proxy", "start", "--port", "0", "--https-port", "9001"]);
    assert!(clear.error()["message"].as_str().expect("text").contains("plain HTTP"), "{}", clear.out);
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = holder.local_addr().expect("address").port().to_string();
    let refused = run(&home, &["proxy", "start", "--mode", "dev-selfsigned", "--port", "0", "--https-port", &taken]);
    assert_eq!(refused.error()["code"], "PROXY_PORT_IN_USE");
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("--https-port"), "{}", refused.out);
}

/// Case 37.
#[test]
fn bad_certificate_files_are_refused_with_the_reason_and_never_served_in_clear() {
    let home = Home::new();
    let path = |name: &str| home.path().join(name).to_str().expect("text").to_owned();
    let write = |name: &str, content: &str, mode: u32| {
        std::fs::write(path(name), content).expect("writes");
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).expect("sets the mode");
    };
    let pair = |days: i64| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["box.example".to_owned()]).expect("params");
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(30);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    };
    let (good, good_key) = pair(60);
    let (expired, expired_key) = pair(-1);
    write("good.pem", &good, 0o644);
    write("good.key", &good_key, 0o600);
    write("open.key", &good_key, 0o644);
    write("expired.pem", &expired, 0o644);
    write("expired.key", &expired_key, 0o600);
    write("nonsense.pem", "nothing", 0o600);
    let start = |chain: &str, key: &str| {
        run(&home, &["proxy", "start", "--port", "0", "--certificate", &path(chain), "--key", &path(key)])
    };
    for (chain, key, says) in [
        ("good.pem", "open.key", "0644"),
        ("good.pem", "expired.key", "does not belong"),
        ("expired.pem", "expired.key", "expired on"),
        ("nonsense.pem", "good.key", "no certificate"),
        ("good.pem", "nonsense.pem", "no private key"),
        ("good.pem", "absent.key", "could not read"),
    ] {
        let ended = start(chain, key);
        assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("PROXY_CERT_FAILED")), "{chain} {key}");
        assert!(ended.error()["message"].as_str().expect("text").contains(says), "{chain} {key}: {}", ended.out);
        assert!(ended.error()["hint"].is_string(), "{}", ended.out);
        assert_eq!(run(&home, &["proxy", "status"]).error()["code"], "NOT_FOUND", "nothing listens instead");
    }
    assert_eq!(start("good.pem", "good.key").code, 0);
    let status = home.answer(&["proxy", "status"]);
    assert_eq!(status["listeners"][0]["config"]["mode"], "certificate-files");
    assert_eq!(status["listeners"][0]["tls"]["certificate"]["names"], serde_json::json!(["box.example"]));

    // Renewed files are served after a reload; bad ones leave what is served.
    let before = fingerprint(&status);
    let (renewed, renewed_key) = pair(90);
    write("good.key", &renewed_key, 0o600);
    let refused = run(&home, &["proxy", "reload"]);
    assert_eq!(refused.error()["code"], "PROXY_CERT_FAILED", "half renewed");
    let status = home.answer(&["proxy", "status"]);
    assert_eq!(fingerprint(&status), before);
    assert!(status["listeners"][0]["tls"]["last_error"].is_string(), "{status}");
    write("good.pem", &renewed, 0o644);
    home.answer(&["proxy", "reload"]);
    let status = home.answer(&["proxy", "status"]);
    assert_ne!(fingerprint(&status), before);
    assert_eq!(status["listeners"][0]["tls"]["last_error"], Value::Null);
}

#[test]
fn flm_asks_its_own_endpoint_over_tls_and_trusts_nothing_but_the_certificate_that_it_shows_itself() {
    let home = Home::new();
    home.answer(&["proxy", "start", "--mode", "dev-selfsigned", "--port", "0"]);
    // No engine runs: the endpoint is reached all the same, and says so under a request id.
    let refused = run(&home, &["chat", "--model", "nowhere", "--prompt", "hi"]);
    let error = refused.error();
    assert_eq!((refused.code, error["code"].as_str()), (1, Some("NOT_FOUND")), "{}", refused.out);
    assert!(error["request_id"].as_str().expect("an id").starts_with("req_"), "{error}");
}

#[test]
fn a_listener_is_looked_at_before_it_is_started_and_nothing_is_changed() {
    let home = Home::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = held.local_addr().expect("an address").port().to_string();
    let report = home.answer(&["proxy", "check", "--mode", "packaged-ca", "--bind", "127.0.0.1", "--port", &port]);
    assert_eq!(
        (&report["exposure"], &report["privacy"], &report["keys"]),
        (&"local".into(), &"kept".into(), &0.into())
    );
    assert_eq!((&report["ports"][0]["state"], &report["ports"][0]["purpose"]), (&"held".into(), &"plain".into()));
    assert_eq!(report["ports"][1]["purpose"], "tls");
    let modes: Vec<_> = report["modes"].as_array().expect("modes").iter().map(|mode| mode["name"].clone()).collect();
    assert!(modes.contains(&"packaged-ca".into()) && modes[0] == "local-http", "{modes:?}");
    let told = text(&home, &["proxy", "check", "--bind", "0.0.0.0", "--port", &port]);
    assert!(told.contains("in clear") && told.contains("held by") && told.contains("13 enforce"), "{told}");
    assert_eq!(home.owner(), None, "no daemon was started for it");
    // What nobody names is what a start would take.
    let ports = |words: &[&str]| {
        let report = home.answer(&[&["proxy", "check"], words].concat());
        let ports = report["ports"].as_array().expect("ports").clone();
        ports.iter().map(|port| port["port"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(ports(&["--mode", "https-acme"]), [80, 443], "where the world looks for a web server");
    assert_eq!(ports(&["--mode", "packaged-ca"]), [8484, 8485]);
    drop(held);
    let url = home.start_proxy();
    let ours = url.rsplit(':').next().expect("a port");
    let report = home.answer(&["proxy", "check", "--port", ours]);
    assert_eq!(report["ports"][0]["state"], "ours");
    home.answer(&["config", "set", "proxy.port", "9300"]);
    assert_eq!(ports(&["--mode", "packaged-ca"]), [9300, 9301], "as a setting says");
}
