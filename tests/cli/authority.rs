//! `flm security ca`: made once, shown, exported, asked for certificates (SPEC §6).

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::home::Home;
use crate::{run, text};

#[test]
fn an_authority_is_made_once_shown_and_exported_for_its_owner_alone() {
    let home = Home::new();
    let none = run(&home, &["security", "ca", "show"]);
    assert_eq!((none.code, none.error()["code"].as_str()), (1, Some("NOT_FOUND")));
    assert!(none.error()["hint"].as_str().expect("a hint").contains("ca init"), "{}", none.out);

    let made = home.answer(&["security", "ca", "init", "--network", "192.168.7.0/24", "--name", "box.example"]);
    let permitted = made["permitted"].to_string();
    for expected in ["localhost", "127.0.0.0/8", "192.168.7.0/24", "box.example"] {
        assert!(permitted.contains(expected), "{permitted}");
    }
    assert!(!permitted.contains("10.0.0.0/8"), "the chosen network takes the place of the private ones: {permitted}");
    let again = run(&home, &["security", "ca", "init"]);
    assert_eq!((again.code, again.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));

    let file = home.path().join("root.pem");
    home.answer(&["security", "ca", "export", "--output", file.to_str().expect("text")]);
    assert_eq!(std::fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
    let exported = std::fs::read_to_string(&file).expect("reads");
    assert_eq!(text(&home, &["security", "ca", "export"]).trim_end(), exported.trim_end());
    let shown = text(&home, &["security", "ca", "show"]);
    assert!(shown.contains(made["root"]["fingerprint"].as_str().expect("text")), "{shown}");

    let replaced = home.answer(&["security", "ca", "init", "--replace"]);
    assert_ne!(replaced["root"]["fingerprint"], made["root"]["fingerprint"]);
    let rows = home.answer(&["security", "audit-logs", "list", "--type", "certificate-changed"]);
    assert_eq!(rows.as_array().expect("rows").len(), 2, "{rows}");
}

#[test]
fn certificates_are_issued_for_allowed_names_alone_and_their_keys_are_private() {
    let home = Home::new();
    home.answer(&["security", "ca", "init"]);
    // It is made.
    let place = home.path().join("issued/certificates");
    let folder = place.to_str().expect("text");
    let foreign = run(&home, &["security", "ca", "issue", "--name", "evil.example", "--output", folder]);
    assert_eq!((foreign.code, foreign.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    assert!(foreign.error()["hint"].as_str().expect("a hint").contains("localhost"), "{}", foreign.out);

    let issue = ["security", "ca", "issue", "--name", "api.localhost", "--name", "10.1.2.3", "--output", folder];
    let issued = home.answer(&issue);
    assert_eq!(issued["certificate"]["names"], serde_json::json!(["api.localhost", "10.1.2.3"]));
    for file in ["api.localhost.pem", "api.localhost.key"] {
        let metadata = std::fs::metadata(place.join(file)).expect("is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert!(!issued.to_string().contains("PRIVATE"), "the key stands in its file alone: {issued}");
    let again = run(&home, &issue);
    assert!(again.error()["message"].as_str().expect("text").contains("there already"), "{}", again.out);

    let path = |name: &str| place.join(name).to_str().expect("text").to_owned();
    let (chain, key) = (path("api.localhost.pem"), path("api.localhost.key"));
    home.answer(&["proxy", "start", "--port", "0", "--certificate", &chain, "--key", &key]);
}

#[test]
fn a_listener_takes_a_certificate_of_the_new_root_at_once() {
    let home = Home::new();
    home.answer(&["proxy", "start", "--mode", "packaged-ca", "--port", "0"]);
    let served = || home.answer(&["proxy", "status"])["listeners"][0]["tls"]["certificate"].clone();
    let before = served();
    let root = home.answer(&["security", "ca", "show"]);
    assert_eq!(before["issuer"], root["root"]["subject"]);
    home.answer(&["security", "ca", "init", "--replace"]);
    assert_ne!(served()["fingerprint"], before["fingerprint"]);
}

/// The names in the certificate that a client gets which calls the listener so.
fn shown_to(home: &Home, called: &'static str) -> Vec<String> {
    let status = home.answer(&["proxy", "status"]);
    let port = status["listeners"][0]["config"]["https_port"].as_u64().expect("a TLS port");
    let port = u16::try_from(port).expect("a port");
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(text(home, &["security", "ca", "export"]).as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(called).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    while client.is_handshaking() {
        client.complete_io(&mut stream).expect("is trusted");
    }
    let leaf = client.peer_certificates().expect("a chain")[0].clone().into_owned();
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("parses");
    let names = leaf.subject_alternative_name().expect("parses").expect("has names");
    names.value.general_names.iter().map(ToString::to_string).collect()
}

/// `BoringSSL`, and so Bun, and so Claude Code and opencode, cannot check a root's limits on addresses and refuses a leaf that
/// names any.
#[test]
fn who_calls_a_name_gets_a_certificate_for_names_alone() {
    let home = Home::new();
    home.answer(&["proxy", "start", "--mode", "packaged-ca", "--port", "0"]);
    let by_name = shown_to(&home, "localhost");
    assert!(by_name.iter().any(|name| name.contains("localhost")), "{by_name:?}");
    assert!(by_name.iter().all(|name| name.starts_with("DNSName")), "{by_name:?}");
    let by_address = shown_to(&home, "127.0.0.1");
    assert!(by_address.iter().any(|name| name.starts_with("IPAddress")), "{by_address:?}");
    home.answer(&["security", "ca", "init", "--replace"]);
    assert_eq!(shown_to(&home, "localhost"), by_name, "of the new root");
}

#[test]
fn nothing_is_trusted_unseen() {
    let home = Home::new();
    let root = home.answer(&["security", "ca", "init"]);
    let fingerprint = root["root"]["fingerprint"].as_str().expect("text").to_owned();
    let other = "00".repeat(32);
    let wrong = run(&home, &["security", "ca", "install", "--os", "windows", "--fingerprint", &other]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    let bare = fingerprint.replace(':', "").to_lowercase();
    let shown = home.answer(&["security", "ca", "install", "--os", "windows", "--fingerprint", &bare]);
    assert_eq!((shown["executed"].as_bool(), shown["fingerprint"].as_str()), (Some(false), Some(fingerprint.as_str())));
    assert!(shown["commands"][0].as_str().expect("text").starts_with("certutil -addstore"), "{shown}");
    let text = text(&home, &["security", "ca", "uninstall", "--os", "macos"]);
    assert!(text.contains("nothing was changed") && text.contains(&fingerprint), "{text}");
}
