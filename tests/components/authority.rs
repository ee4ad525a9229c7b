//! The own authority before the judges that count: curl, OpenSSL and Python, the trust store of a Debian machine, and those of
//! Fedora and Arch as far as this machine can have them: their folders, and the real p11-kit that gathers what is in them.

use std::path::Path;
use std::process::{Command, Output};

use flm::storage::SecurityStore;
use flm::tls::authority::{Authority, ROOT};
use flm::tls::machine::Machine;
use flm::types::clock::Clock;

use crate::home::Home;
use crate::packaging::{Machine as Overlay, programs};

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

/// A trust store that p11-kit gathers (update-ca-trust(8) of Fedora and of Arch).
struct Gathered {
    family: &'static str,
    /// Where administrators put anchors, in the folder that p11-kit reads.
    source: &'static str,
    /// Where the distribution's own are.
    shipped: &'static str,
    bundle: &'static str,
}

const GATHERED: [Gathered; 2] = [
    Gathered {
        family: "Fedora and its kin",
        source: "/etc/pki/ca-trust/source",
        shipped: "/usr/share/pki/ca-trust-source",
        bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    },
    Gathered {
        family: "Arch Linux and its kin",
        source: "/etc/ca-certificates/trust-source",
        shipped: "/usr/share/ca-certificates/trust-source",
        bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    },
];

/// Makes this machine's files, in a layer of their own, into those of the family, and tries everything there. The command of the
/// distributions is a script; this one runs the line of it that makes the bundle (Fedora's ca-certificates 2024.2, Arch's
/// ca-certificates-utils 20240618), with p11-kit told which folders are read there.
const TRY: &str = r##"
rm /usr/sbin/update-ca-certificates
mkdir -p SOURCE/anchors SHIPPED/anchors $(dirname BUNDLE) /etc/pkcs11/modules
cp /usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt SHIPPED/anchors/
sed "s#^x-init-reserved:.*#x-init-reserved: paths=SOURCE:SHIPPED#" /usr/share/p11-kit/modules/p11-kit-trust.module \
  >/etc/pkcs11/modules/p11-kit-trust.module
cat >/usr/bin/update-ca-trust <<END
#!/bin/sh
[ "\$*" = extract ] || exit 64
exec trust extract --format=pem-bundle --filter=ca-anchors --overwrite --comment --purpose server-auth BUNDLE
END
chmod 755 /usr/bin/update-ca-trust
update-ca-trust extract
ln -sf BUNDLE /etc/ssl/certs/ca-certificates.crt
cp BUNDLE /tmp/before
ip link set lo up
export FLM_HOME=/tmp/home FLM_ENGINE_DETECT_AT_START=false
flm=/incoming/flm
$flm proxy start --mode packaged-ca --port 8484 --format text
trusts() {
  curl --silent --fail --noproxy "*" --output /dev/null https://localhost:8485/health || return 1
  python3 -c "import sys, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(sys.argv[1]).read()" \
    https://localhost:8485/health 2>/dev/null
}
if trusts; then echo "trusted too early"; exit 1; fi
$flm security ca install --dry-run --format text
cmp BUNDLE /tmp/before
$flm security ca install --format text
grep -q "FLM certificate authority" BUNDLE
trusts
echo == trusted
$flm security ca uninstall --format text
cmp BUNDLE /tmp/before
test -z "$(ls SOURCE/anchors)"
if trusts; then echo "trusted too late"; exit 1; fi
echo == distrusted

# A store that cannot be written, and a program that fails: told, and nothing is left half-way.
mount -t tmpfs -o ro none SOURCE/anchors
if $flm security ca install --format text; then exit 1; fi
umount SOURCE/anchors
printf "#!/bin/sh\necho the disk is full >&2\nexit 1\n" >/usr/bin/update-ca-trust
if $flm security ca install --format text; then exit 1; fi
test -z "$(ls SOURCE/anchors)"
cmp BUNDLE /tmp/before
$flm proxy stop --all --format text
echo == done
"##;

#[test]
#[ignore = "needs root, p11-kit, curl and python3 on Debian: run scripts/install-test-components.sh"]
fn clients_trust_the_root_where_p11_kit_gathers_the_store_and_a_store_that_cannot_be_written_stays_as_it_was() {
    for Gathered { family, source, shipped, bundle } in GATHERED {
        let machine = Overlay::new();
        machine.bring(&programs().join("flm"), "flm");
        let script = TRY.replace("SOURCE", source).replace("SHIPPED", shipped).replace("BUNDLE", bundle);
        let told = machine.shell(&script);
        let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert!(told.status.success() && out.contains("== done"), "{family}: {out}\n{err}");
        let anchor = format!("{source}/anchors/flm-");
        for wanted in [family, "sudo /usr/bin/update-ca-trust extract", &anchor, "== trusted", "== distrusted"] {
            assert!(out.contains(wanted), "{family}: no {wanted:?} in {out}\n{err}");
        }
        for wanted in ["Read-only file system", "the disk is full"] {
            assert!(err.contains(wanted), "{family}: no {wanted:?} in {err}\n{out}");
        }
        assert_eq!(err.matches("the trust store is as it was").count(), 2, "{family}: {err}\n{out}");
    }
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
