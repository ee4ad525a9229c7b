//! Code blocks of the documents that need more than `cargo test` has: the openai package, root, a machine to be changed
//! (docs/documentation-policy.md).

use std::process::{Command, Output};

use crate::documents;
use crate::llama_server::component;
use crate::packaging::{Machine, programs};
use crate::{CHAT_MODEL, Stage};

const THIS: &str = "tests/components/documents.rs";

#[test]
#[ignore = "needs the openai package and llama.cpp: run scripts/install-test-components.sh"]
fn the_client_of_the_readme_gets_its_answer() {
    let stage = Stage::new(CHAT_MODEL);
    let program = documents::run_by(THIS, "README.md", "from openai import OpenAI")
        .replace("http://127.0.0.1:8484", &stage.url)
        .replace("flm_…", &stage.key)
        .replace("llama3.2:3b", CHAT_MODEL);
    let mut command = Command::new(component("python/bin/python"));
    let output = command.args(["-c", &program]).env("NO_PROXY", "127.0.0.1").output().expect("runs python");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !out.trim().is_empty(), "{out}{err}");
}

/// Runs a block as root on a machine of its own, between a beginning and an end.
fn on_a_machine(begin: &str, block: &str, end: &str) -> Output {
    let machine = Machine::new();
    machine.bring(&programs().join("flm"), "flm");
    machine.shell(&format!(
        "export HOME=/root FLM_HOME=/root/flm FLM_ENGINE_DETECT_AT_START=false; ip link set lo up; \
         install -m 755 /incoming/flm /usr/local/bin/flm; sudo() {{ while [ \"${{1#-}}\" != \"$1\" ]; do shift; done; \"$@\"; }}\n\
         {begin}\n{block}\n{end}\nflm proxy stop --all; echo == done"
    ))
}

#[track_caller]
fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("== done"), "{out}{err}");
    out.into_owned()
}

#[test]
#[ignore = "needs root, curl and binutils: run scripts/install-test-components.sh"]
fn the_readmes_way_to_the_network_ends_with_a_client_that_trusts_this_machine() {
    let block = documents::run_by(THIS, "README.md", "security ca install");
    let begin = "flm proxy start; flm security ca init";
    let end = "curl --silent --show-error --noproxy \"*\" https://localhost:8485/health; flm proxy status";
    let told = told(&on_a_machine(begin, &block, end));
    assert!(told.contains("ok") && told.contains("packaged-ca") && told.contains("0.0.0.0"), "{told}");
}

#[test]
#[ignore = "needs root and binutils: run scripts/install-test-components.sh"]
fn the_authority_comes_into_the_trust_store_and_goes_as_the_document_says() {
    let block = documents::run_by(THIS, "docs/configuration.md", "security ca install");
    let begin = "sha256sum /etc/ssl/certs/ca-certificates.crt >/before; flm proxy start; flm security ca init";
    let told = told(&on_a_machine(begin, &block, "sha256sum --check /before"));
    assert!(told.contains("ca-certificates.crt: OK"), "{told}");
}

#[test]
#[ignore = "needs root, nftables and binutils: run scripts/install-test-components.sh"]
fn the_firewall_is_changed_kept_and_restored_as_the_document_says() {
    let block = documents::run_by(THIS, "docs/firewall.md", "flm firewall apply");
    let begin = "flm proxy start; nft list ruleset >/before";
    let told = told(&on_a_machine(begin, &block, "nft list ruleset | cmp - /before"));
    for phase in ["pending", "confirmed"] {
        assert!(told.contains(phase), "{phase} in {told}");
    }
}
