//! Mode `https-acme` with the real programs, against a strict little directory on loopback (SPEC §6).

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::fake_acme::{FakeAcme, FakeDns, Manner, World, txt};
use crate::home::{Home, PATIENCE, wait_until};
use crate::{run, text};

const DOMAIN: &str = "llm.example.test";

/// A home with a directory that believes that this home's plain port is port 80 of every domain.
struct Stage {
    home: Arc<Home>,
    acme: FakeAcme,
    world: World,
    ca: String,
}

impl Stage {
    fn new(manner: Manner) -> Self {
        let home = Arc::new(Home::new());
        // Not kept alive by the directory: the home's owner ends with the test.
        let known = Arc::downgrade(&home);
        let zone = home.path().join("zone");
        std::fs::create_dir(&zone).expect("a folder");
        let world = World {
            port_80: Some(Arc::new(move || known.upgrade().and_then(|home| home.proxy_port()))),
            zone: Some(zone),
        };
        let acme = FakeAcme::start(world.clone(), manner);
        let ca = home.path().join("acme-root.pem");
        std::fs::write(&ca, acme.root()).expect("writes");
        let stage = Self { home, acme, world, ca: ca.to_str().expect("text").to_owned() };
        stage.set("acme.ca_file", &stage.ca);
        stage.set("acme.directory", &stage.acme.directory);
        stage
    }

    fn set(&self, key: &str, value: &str) {
        self.home.answer(&["config", "set", key, value]);
    }

    /// The words of a start with all that is required.
    fn start<'a>(domains: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        let mut words =
            vec!["proxy", "start", "--mode", "https-acme", "--bind", "127.0.0.1", "--port", "0", "--acme-agree-tos"];
        words.extend(["--acme-email", "ops@example.test"]);
        words.extend(domains.iter().flat_map(|domain| ["--acme-domain", domain]));
        words.extend(more);
        words
    }

    fn listener(&self) -> Value {
        self.home.answer(&["proxy", "status"])["listeners"][0].clone()
    }

    fn audit(&self) -> String {
        self.home.answer(&["security", "audit-logs", "list"]).to_string()
    }

    /// A hook that keeps TXT records as the world's zone has them.
    fn hook(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let zone = self.world.zone.as_ref().expect("a zone").display();
        let hook = self.home.path().join("hook");
        let script = format!(
            "#!/bin/sh\nset -eu\necho \"$1 $2\" >>{zone}.log\nfile={zone}/$2\ncase $1 in\n\
             present) echo \"$3\" >>\"$file\" ;;\n\
             cleanup) grep -vxF -e \"$3\" \"$file\" >\"$file.new\" || true; mv \"$file.new\" \"$file\" ;;\nesac\n"
        );
        std::fs::write(&hook, script).expect("writes");
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700)).expect("executable");
        hook
    }

    /// Settings of the challenge dns-01 with that hook and a name server that tells the zone.
    fn by_dns(&self) -> FakeDns {
        let dns = FakeDns::start(self.world.clone());
        self.set("acme.challenge", "dns-01");
        self.set("acme.dns.command", self.hook().to_str().expect("text"));
        self.set("acme.dns.resolvers", &dns.address.to_string());
        dns
    }

    fn hook_log(&self) -> String {
        let zone = self.world.zone.as_ref().expect("a zone").display();
        std::fs::read_to_string(format!("{zone}.log")).unwrap_or_default()
    }
}

fn fingerprint(listener: &Value) -> String {
    listener["tls"]["certificate"]["fingerprint"].as_str().expect("a fingerprint").to_owned()
}

#[test]
fn a_certificate_is_obtained_by_http_served_kept_over_restarts_and_renewed_on_demand() {
    let stage = Stage::new(Manner { refuses_nonce_every: Some(4), ..Manner::default() });
    let started = text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    assert!(started.contains(&format!("https://{DOMAIN}:")), "the domain comes first: {started}");
    let listener = stage.listener();
    assert_eq!(listener["phase"]["phase"], "running");
    assert_eq!(listener["tls"]["certificate"]["names"], serde_json::json!([DOMAIN]));
    assert_eq!(listener["tls"]["progress"], Value::Null);
    let certificate = &listener["tls"]["certificate"];
    let life =
        certificate["not_after"].as_i64().expect("an end") - certificate["not_before"].as_i64().expect("a begin");
    let renewal = listener["tls"]["next_renewal"].as_i64().expect("a renewal");
    let left = certificate["not_after"].as_i64().expect("an end") - renewal;
    assert!((left - life / 3).abs() < 60_000, "with a third of its life left: {left} of {life}");
    assert_eq!(stage.acme.contacts(), [serde_json::json!(["mailto:ops@example.test"])]);

    // Nothing is ordered again after a restart, and what was given stays a setting. Advice on renewal is looked for at any time.
    let orders = || stage.acme.asked().into_iter().filter(|asked| asked.starts_with("POST")).collect::<Vec<_>>();
    let ordered = orders();
    stage.home.answer(&["proxy", "stop", "--all"]);
    stage.home.answer(&["proxy", "start"]);
    assert_eq!(fingerprint(&stage.listener()), fingerprint(&listener));
    assert_eq!(orders(), ordered);
    assert_eq!(stage.home.answer(&["config", "get", "acme.domains"])["value"], DOMAIN);

    // Another one now, with the same account.
    let told = text(&stage.home, &["security", "certificate", "renew"]);
    assert!(told.contains(DOMAIN), "{told}");
    assert_ne!(fingerprint(&stage.listener()), fingerprint(&listener));
    assert_eq!(stage.acme.count("/new-account"), 1 + refused_before(&stage.acme, "/new-account"));
    let status = text(&stage.home, &["security", "certificate", "status"]);
    assert!(status.contains(DOMAIN) && status.contains("renewed from"), "{status}");
    assert!(stage.audit().contains("serves a new certificate"));
}

/// How often a path was asked more than once only because its nonce was refused: the same path right after itself.
fn refused_before(acme: &FakeAcme, path: &str) -> usize {
    let asked = acme.asked();
    asked.windows(2).filter(|pair| pair[0] == pair[1] && pair[0].ends_with(path)).count()
}

#[test]
fn a_wildcard_is_proved_by_dns_and_its_records_are_gone_afterwards() {
    let stage = Stage::new(Manner::default());
    let wildcard = format!("*.{DOMAIN}");
    let refused = run(&stage.home, &Stage::start(&[&wildcard], &[]));
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("dns-01"), "{}", refused.out);
    assert!(stage.acme.asked().is_empty(), "nobody was asked");

    let _dns = stage.by_dns();
    text(&stage.home, &Stage::start(&[DOMAIN, &wildcard], &[]));
    assert_eq!(stage.listener()["tls"]["certificate"]["names"], serde_json::json!([DOMAIN, wildcard]));
    let log = stage.hook_log();
    assert_eq!((log.matches("present").count(), log.matches("cleanup").count()), (2, 2), "{log}");
    assert!(txt(&stage.world, &format!("_acme-challenge.{DOMAIN}")).is_empty());
}

/// Case 34.
#[test]
fn records_are_removed_when_the_directory_refuses_and_when_nobody_waits_any_more() {
    let stage = Stage::new(Manner { offers_only: Some("http-01"), ..Manner::default() });
    let _dns = stage.by_dns();
    let failed = run(&stage.home, &Stage::start(&[DOMAIN], &[]));
    assert_eq!(failed.error_of_the_end()["code"], "PROXY_ACME_ERROR");
    assert!(failed.error_of_the_end()["message"].as_str().expect("text").contains("offers"), "{}", failed.out);
    assert_eq!(stage.hook_log(), "", "nothing was set that need be removed");

    // A record that never appears: the start is broken off while it waits.
    stage.acme.behave(|manner| manner.offers_only = None);
    let nobody = FakeDns::start(World::default());
    stage.set("acme.dns.resolvers", &nobody.address.to_string());
    let mut starting = stage.home.flm(&Stage::start(&[DOMAIN], &[])).stdout(Stdio::piped()).spawn().expect("runs flm");
    wait_until("the record is set", PATIENCE, || stage.hook_log().contains("present"));
    wait_until("the listener waits for its certificate", PATIENCE, || {
        let listener = stage.listener();
        listener["phase"]["phase"] == "obtaining" && listener["tls"]["progress"].to_string().contains("can be seen")
    });
    let shown = text(&stage.home, &["proxy", "status"]);
    assert!(shown.contains("obtaining certificate"), "{shown}");
    let second = run(&stage.home, &["proxy", "start", "--port", &stage.home.proxy_port().expect("a port").to_string()]);
    assert_eq!(second.error()["code"], "PROXY_ALREADY_RUNNING", "{}", second.out);
    let other = run(&stage.home, &["config", "set", "log.level", "debug"]);
    assert_eq!(other.code, 0, "other changes are not held up: {}", other.out);
    let pid = rustix::process::Pid::from_raw(i32::try_from(starting.id()).expect("fits")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("is told");
    assert_eq!(starting.wait().expect("ends").code(), Some(1));
    wait_until("the record is removed", PATIENCE, || stage.hook_log().contains("cleanup"));
    assert!(txt(&stage.world, &format!("_acme-challenge.{DOMAIN}")).is_empty());
}

#[test]
fn a_record_that_a_crash_left_behind_is_removed_before_the_next_certificate_is_asked_for() {
    let stage = Stage::new(Manner::default());
    let dns = stage.by_dns();
    let nobody = FakeDns::start(World::default());
    stage.set("acme.dns.resolvers", &nobody.address.to_string());
    let mut starting = stage.home.flm(&Stage::start(&[DOMAIN], &[])).stdout(Stdio::piped()).spawn().expect("runs flm");
    let record = format!("_acme-challenge.{DOMAIN}");
    wait_until("the record is set", PATIENCE, || !txt(&stage.world, &record).is_empty());
    let owner = stage.home.owner().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    rustix::process::kill_process(owner.expect("a daemon"), rustix::process::Signal::KILL).expect("is killed");
    starting.wait().expect("ends");
    let left = txt(&stage.world, &record);
    assert_eq!((left.len(), stage.hook_log().contains("cleanup")), (1, false), "the crash left it: {left:?}");

    stage.set("acme.dns.resolvers", &dns.address.to_string());
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let log = stage.hook_log();
    let steps: Vec<_> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(steps, ["present", "cleanup", "present", "cleanup"], "the old one went before the new one came");
    assert!(txt(&stage.world, &record).is_empty());

    // What could not be removed in time is tried again by a start that needs no new certificate.
    stage.home.answer(&["proxy", "stop", "--all"]);
    let hook = std::fs::read_to_string(stage.home.path().join("hook")).expect("the hook");
    std::fs::write(stage.home.path().join("hook"), hook.replace("set -eu", "set -eu; [ \"$1\" = present ]"))
        .expect("writes");
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    text(&stage.home, &["security", "certificate", "renew"]);
    assert_eq!(txt(&stage.world, &record).len(), 1, "the hook did not remove it");
    stage.home.answer(&["proxy", "stop", "--all"]);
    std::fs::write(stage.home.path().join("hook"), hook).expect("writes");
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    wait_until("the record is removed", PATIENCE, || txt(&stage.world, &record).is_empty());
}

#[test]
fn a_record_that_never_appears_is_told_with_what_is_seen_instead() {
    let stage = Stage::new(Manner::default());
    let _dns = stage.by_dns();
    let nobody = FakeDns::start(World::default());
    stage.set("acme.dns.resolvers", &nobody.address.to_string());
    stage.set("acme.dns.propagation_timeout", "1s");
    let failed = run(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let error = failed.error_of_the_end();
    assert_eq!(error["code"], "PROXY_ACME_ERROR");
    for part in [format!("_acme-challenge.{DOMAIN}"), nobody.address.to_string(), "none".to_owned()] {
        assert!(error["message"].as_str().expect("text").contains(&part), "{part}: {error}");
    }
    assert!(error["hint"].as_str().expect("a hint").contains("dig"), "{error}");
    wait_until("the record is removed", PATIENCE, || stage.hook_log().contains("cleanup"));
}

#[test]
fn what_goes_wrong_is_told_in_the_directorys_words_and_nothing_listens_instead() {
    let stage = Stage::new(Manner::default());
    let fails = |says: &str, hint: &str| {
        let failed = run(&stage.home, &Stage::start(&[DOMAIN], &[]));
        let error = failed.error_of_the_end();
        assert_eq!((failed.code, error["code"].as_str()), (1, Some("PROXY_ACME_ERROR")), "{}", failed.out);
        assert!(error["message"].as_str().expect("text").contains(says), "{says}: {error}");
        assert!(error["hint"].as_str().expect("a hint").contains(hint), "{hint}: {error}");
        assert_eq!(run(&stage.home, &["proxy", "status"]).error()["code"], "NOT_FOUND", "nothing listens instead");
    };
    stage.acme.behave(|manner| {
        manner.refuses_orders = Some((400, "rejectedIdentifier", "llm.example.test is not yours", None));
    });
    fails("llm.example.test is not yours (rejectedIdentifier)", "acme.domains");
    stage.acme.behave(|manner| {
        manner.refuses_orders = Some((403, "unauthorized", "the account has expired", None));
    });
    fails("the account has expired (unauthorized)", "the account was not closed");
    assert!(stage.acme.count("/new-account") > 1, "another account was tried first");
    stage.acme.behave(|manner| {
        (manner.refuses_orders, manner.wants_binding) = (None, true);
    });
    stage.acme.forget_accounts();
    fails("an external account is needed", "acme.eab.key_id");
    stage.acme.behave(|manner| manner.wants_binding = false);
    stage.set("acme.ca_file", "");
    fails("TLS", "acme.ca_file");
    stage.set("acme.ca_file", &stage.ca);
    stage.set("acme.directory", "https://localhost:1/directory");
    fails("localhost:1", "way out");
    assert!(stage.audit().contains("not yours"), "the audit log has it too");
}

#[test]
fn a_domain_that_another_server_answers_for_is_told_as_the_directory_sees_it() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = holder.local_addr().expect("an address").port();
    drop(holder);
    let world = World { port_80: Some(Arc::new(move || Some(port))), zone: None };
    let home = Home::new();
    let acme = FakeAcme::start(world, Manner::default());
    let ca = home.path().join("root.pem");
    std::fs::write(&ca, acme.root()).expect("writes");
    let more = ["--acme-directory", &acme.directory, "--acme-ca-file", ca.to_str().expect("text")];
    let failed = run(&home, &Stage::start(&[DOMAIN], &more));
    let error = failed.error_of_the_end();
    for part in [DOMAIN, "http-01", "connection"] {
        assert!(error["message"].as_str().expect("text").contains(part), "{part}: {error}");
    }
    assert!(error["hint"].as_str().expect("a hint").contains("port 80"), "{error}");
}

/// Case 35.
#[test]
fn a_taken_challenge_port_names_its_holder_and_the_ways_round_it_and_asks_no_directory() {
    let stage = Stage::new(Manner::default());
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = held.local_addr().expect("an address").port().to_string();
    let words: Vec<_> =
        Stage::start(&[DOMAIN], &[]).into_iter().map(|word| if word == "0" { &port } else { word }).collect();
    let failed = run(&stage.home, &words);
    let error = failed.error_of_the_end();
    assert_eq!(error["code"], "PROXY_PORT_IN_USE", "{error}");
    assert!(
        error["message"].as_str().expect("text").contains(&format!("port {port} on 127.0.0.1 is held by")),
        "{error}"
    );
    for way in ["calls port 80", "/.well-known/acme-challenge/", "--acme-challenge dns-01"] {
        assert!(error["hint"].as_str().expect("a hint").contains(way), "{way}: {error}");
    }
    assert!(stage.acme.asked().is_empty(), "nobody was asked");
    assert_eq!(run(&stage.home, &["proxy", "status"]).error()["code"], "NOT_FOUND", "nothing listens instead");
}

#[test]
fn a_rate_limit_is_obeyed_and_the_old_certificate_served_on() {
    let stage = Stage::new(Manner::default());
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let before = fingerprint(&stage.listener());
    stage.acme.behave(|manner| {
        manner.refuses_orders = Some((429, "rateLimited", "too many certificates this week", Some(3_600)));
    });
    let failed = run(&stage.home, &["security", "certificate", "renew"]);
    let error = failed.error_of_the_end();
    assert!(error["message"].as_str().expect("text").contains("too many certificates this week"), "{error}");
    assert!(error["hint"].as_str().expect("a hint").contains("staging"), "{error}");
    let orders = stage.acme.count("/new-order");
    let again = run(&stage.home, &["security", "certificate", "renew"]);
    assert!(
        again.error_of_the_end()["hint"].as_str().expect("a hint").contains("itself asked to wait"),
        "{}",
        again.out
    );
    assert_eq!(stage.acme.count("/new-order"), orders, "the directory is left alone");
    let listener = stage.listener();
    assert_eq!(fingerprint(&listener), before);
    assert!(listener["tls"]["last_error"].as_str().expect("an error").contains("too many"), "{listener}");
    assert!(stage.audit().contains("too many certificates this week"));
}

#[test]
fn a_start_that_cannot_read_its_settings_serves_the_certificate_that_it_has_and_says_so() {
    let stage = Stage::new(Manner::default());
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let before = fingerprint(&stage.listener());
    stage.home.answer(&["proxy", "stop", "--all"]);
    std::fs::remove_file(&stage.ca).expect("was there");
    stage.home.answer(&["proxy", "start"]);
    let listener = stage.listener();
    assert_eq!(fingerprint(&listener), before);
    assert!(listener["tls"]["last_error"].as_str().expect("an error").contains(&stage.ca), "{listener}");
    // Whoever asks for another one is told, and one for other domains is not there.
    let failed = run(&stage.home, &["security", "certificate", "renew"]);
    assert!(failed.error_of_the_end()["message"].as_str().expect("text").contains(&stage.ca), "{}", failed.out);
    stage.home.answer(&["proxy", "stop", "--all"]);
    let failed = run(&stage.home, &["proxy", "start", "--acme-domain", "other.example"]);
    assert!(failed.error_of_the_end()["message"].as_str().expect("text").contains(&stage.ca), "{}", failed.out);
}

#[test]
fn an_account_that_the_directory_forgot_is_made_anew() {
    let stage = Stage::new(Manner::default());
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let before = fingerprint(&stage.listener());
    stage.acme.forget_accounts();
    text(&stage.home, &["security", "certificate", "renew"]);
    assert_ne!(fingerprint(&stage.listener()), before);
    assert_eq!(stage.acme.contacts().len(), 1);
    // Other mail addresses are told to the account that there is.
    stage.set("acme.contact", "admin@example.test");
    text(&stage.home, &["security", "certificate", "renew"]);
    assert_eq!(stage.acme.contacts(), [serde_json::json!(["mailto:admin@example.test"])]);
}

/// Case 35.
#[test]
fn advice_on_renewal_is_followed_and_the_certificate_before_is_named() {
    let stage = Stage::new(Manner { advises: Some((1_000_000_000, 1_000_000_100)), ..Manner::default() });
    text(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let before = fingerprint(&stage.listener());
    // The window is long past, so the first look in passing renews; it comes at once after a restart.
    stage.home.answer(&["proxy", "stop", "--all"]);
    stage.acme.behave(|manner| manner.advises = Some((1_000_000_000, 1_000_000_100)));
    stage.home.answer(&["proxy", "start"]);
    assert_eq!(fingerprint(&stage.listener()), before, "a start does not wait for a renewal");
    wait_until("the certificate is renewed in passing", Duration::from_secs(90), || {
        fingerprint(&stage.listener()) != before
    });
    let [replaced] = stage.acme.replaced().try_into().expect("one");
    assert_eq!(replaced.as_str().matches('.').count(), 1, "{replaced}");
}

#[test]
fn without_any_certificate_a_self_signed_one_is_served_only_where_that_is_allowed_and_loudly() {
    let refuses = Some((503, "serverInternal", "out of order", None));
    let stage = Stage::new(Manner { refuses_orders: refuses, ..Manner::default() });
    assert_eq!(run(&stage.home, &Stage::start(&[DOMAIN], &[])).code, 1);
    let told = text(&stage.home, &Stage::start(&[DOMAIN], &["--acme-allow-selfsigned"]));
    assert!(told.contains("warning: SELF-SIGNED"), "{told}");
    let listener = stage.listener();
    assert_eq!(listener["tls"]["certificate"]["names"], serde_json::json!([DOMAIN]));
    assert!(listener["tls"]["last_error"].as_str().expect("an error").contains("out of order"), "{listener}");
    let high = stage.home.answer(&["security", "audit-logs", "list", "--severity", "high"]).to_string();
    assert!(high.contains("out of order"), "{high}");
    // The directory recovers.
    stage.acme.behave(|manner| manner.refuses_orders = None);
    text(&stage.home, &["security", "certificate", "renew"]);
    let listener = stage.listener();
    assert!(listener["tls"]["certificate"]["issuer"].to_string().contains("fake ACME root"), "{listener}");
    assert_eq!((&listener["tls"]["last_error"], &listener["tls"]["warning"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_certificate_that_is_not_valid_yet_points_at_the_clock() {
    let stage = Stage::new(Manner { valid: Some((2, 90)), ..Manner::default() });
    let failed = run(&stage.home, &Stage::start(&[DOMAIN], &[]));
    let error = failed.error_of_the_end();
    assert!(error["message"].as_str().expect("text").contains("clock says"), "{error}");
    assert!(error["hint"].as_str().expect("a hint").contains("timedatectl"), "{error}");
}

#[test]
fn a_start_that_hangs_is_ended_by_stopping_the_listener() {
    let stage = Stage::new(Manner { hangs: true, ..Manner::default() });
    let home = stage.home.clone();
    let ended = Arc::new(Mutex::new(None));
    let starter = {
        let ended = ended.clone();
        std::thread::spawn(move || {
            let started = run(&home, &Stage::start(&[DOMAIN], &[]));
            *ended.lock().expect("not poisoned") = Some(started.error_of_the_end()["code"].clone());
        })
    };
    wait_until("the order is asked for", PATIENCE, || stage.acme.count("/new-order") > 0);
    stage.home.answer(&["proxy", "stop"]);
    starter.join().expect("ends");
    assert_eq!(*ended.lock().expect("not poisoned"), Some(serde_json::json!("CANCELLED")));
}
