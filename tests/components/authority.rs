//! The own authority before the judges that count: curl, OpenSSL and Python, and the trust store of a Debian machine.

use std::path::Path;
use std::process::{Command, Output};

use flm::storage::SecurityStore;
use flm::tls::authority::{Authority, ROOT};
use flm::tls::machine::Machine;
use flm::types::clock::Clock;

use crate::home::Home;

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn run(program: &str, arguments: &[&str]) -> Output {
    let missing = format!("{program} is missing: run scripts/install-test-components.sh");
    let mut command = Command::new(program);
    command.args(arguments).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env_remove("CURL_CA_BUNDLE");
    command.output().unwrap_or_else(|error| panic!("{missing} ({error})"))
}

/// What curl, Python and openssl say to a URL without being told of any authority.
fn trusted_by(port: u64) -> [bool; 3] {
    let url = format!("https://localhost:{port}/health");
    let curl = run("/usr/bin/curl", &["--silent", "--show-error", "--fail", "--noproxy", "*", &url]);
    let script = format!("import urllib.request as u; u.build_opener(u.ProxyHandler({{}})).open({url:?}).read()");
    let python = run("/usr/bin/python3", &["-c", &script]);
    let to = format!("localhost:{port}");
    let openssl = run("/usr/bin/openssl", &["s_client", "-connect", &to, "-verify_return_error", "-brief"]);
    [curl.status.success(), python.status.success(), openssl.status.success()]
}

#[test]
#[ignore = "needs curl, openssl, python3 and root on Debian: run scripts/install-test-components.sh"]
fn clients_of_this_system_trust_the_root_after_its_installation_and_no_longer_after_its_removal() {
    assert!(rustix::process::geteuid().is_root(), "changing the trust store takes root");
    let home = Home::new();
    home.answer(&["proxy", "start", "--mode", "packaged-ca", "--port", "0"]);
    let port = home.answer(&["proxy", "status"])["listeners"][0]["config"]["https_port"].as_u64().expect("a port");
    let before = std::fs::read(BUNDLE).expect("the bundle");
    assert_eq!(trusted_by(port), [false; 3], "nobody trusts it yet");

    let shown = home.answer(&["security", "ca", "install", "--dry-run"]);
    assert_eq!(shown["executed"], false);
    assert!(std::fs::read(BUNDLE).expect("the bundle") == before, "a dry run changes nothing");
    let installed = home.answer(&["security", "ca", "install"]);
    assert_eq!(installed["executed"], true, "{installed}");
    assert_eq!(home.answer(&["security", "ca", "show"])["installed"], true);
    let trusted = trusted_by(port);
    let removed = home.answer(&["security", "ca", "uninstall"]);
    assert_eq!(trusted, [true; 3], "curl, Python, openssl");
    assert_eq!(removed["executed"], true, "{removed}");
    assert!(std::fs::read(BUNDLE).expect("the bundle") == before, "the bundle is byte for byte what it was");
    assert_eq!(trusted_by(port), [false; 3], "nobody trusts it any more");
}

/// Case 36.
#[tokio::test]
#[ignore = "needs openssl: run scripts/install-test-components.sh"]
async fn openssl_takes_a_leaf_and_refuses_one_that_was_forged_with_the_stolen_key_for_a_foreign_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let store = SecurityStore::open(&path("security.db"), &path("keys/security.key")).expect("opens");
    let now = Clock::system().wall();
    let authority = Authority::make(&store, &Machine::loopback_only(), &[], now).await.expect("an authority");
    let leaf = authority.issue(vec!["localhost".into(), "127.0.0.1".into(), "10.9.8.7".into()], now).expect("issues");
    std::fs::write(path("root.pem"), authority.root_pem()).expect("writes");
    std::fs::write(path("leaf.pem"), leaf.issued.chain).expect("writes");

    // A thief has the key and none of FLM's checks.
    let stored = store.certificate(ROOT).await.expect("reads").expect("the root");
    let key = rcgen::KeyPair::from_pem(stored.key.expose()).expect("the key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(&stored.chain, key).expect("the issuer");
    let forged = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(30);
        params.signed_by(&rcgen::KeyPair::generate().expect("a key"), &issuer).expect("signs").pem()
    };
    std::fs::write(path("name.pem"), forged("evil.example")).expect("writes");
    std::fs::write(path("address.pem"), forged("203.0.113.9")).expect("writes");

    let verify = |file: &Path, more: &[&str]| {
        let root = path("root.pem");
        let fixed = ["verify", "-x509_strict", "-CAfile", root.to_str().expect("text")];
        let output = run("/usr/bin/openssl", &[&fixed[..], more, &[file.to_str().expect("text")]].concat());
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for more in [&["-verify_hostname", "localhost"][..], &["-verify_ip", "10.9.8.7"]] {
        let (passes, told) = verify(&path("leaf.pem"), more);
        assert!(passes, "{told}");
    }
    for file in ["name.pem", "address.pem"] {
        let (passes, told) = verify(&path(file), &[]);
        assert!(!passes && told.contains("error 47"), "{file}: {told}");
    }
    let text = run("/usr/bin/openssl", &["x509", "-noout", "-text", "-in", path("root.pem").to_str().expect("text")]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for expected in ["X509v3 Name Constraints: critical", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
        assert!(text.contains(expected), "{text}");
    }
}
